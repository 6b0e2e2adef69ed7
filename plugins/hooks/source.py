"""A source and the warehouse, ready to work with: what every step of a runbook opens first."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from airflow.sdk import BaseHook, Connection

from include.api.client import ApiClient
from include.api.errors import FixConfiguration
from include.api.limits import Limiter, NoLimit
from include.sources import get_source
from include.sources.base import Context
from include.warehouse.rate_limit import Both, Quota, RequestCount, SharedLimit
from plugins.hooks import warehouse
from plugins.settings import variable

if TYPE_CHECKING:
    from include.api.bucket import Bucket

# Requests of one task that are on their way at once: to an API that counts them, and to a store.
WORKERS, STORE_WORKERS = 4, 64
# What one task may spend on an API, its waiting included, before it gives up.
BUDGET_SECONDS = 6 * 3600


class AirflowConnections:
    """Opens what a source asks for through Airflow's connections, for a run that the warehouse shows by name."""

    def __init__(self, run: str):
        self._run = run

    @contextmanager
    def api(
        self,
        name: str,
        *,
        base_path: str,
        authorize: Callable[[str], Mapping[str, str]],
        per_minute: float | None,
        quota: Quota | None = None,
    ) -> Iterator[ApiClient]:
        """The connection's host is the API's (https unless it names a scheme), its password the token.

        Its extra `requests_per_minute`, `requests_per_hour` and `requests_per_day` replace the vendor's limits for this
        account; 0 lifts one.
        """
        connection = BaseHook.get_connection(name)
        with (
            warehouse.connect(f"{self._run} limit") as limit_conn,
            ApiClient(
                name,
                base_url(connection) + base_path,
                headers=authorize(connection.password or ""),
                limiter=_limiter(name, per_minute, quota or Quota(), connection, limit_conn),
                budget_seconds=BUDGET_SECONDS,
                connections=WORKERS,
            ) as client,
        ):
            yield client

    def variable(self, name: str) -> str | None:
        return variable(name)

    def settings(self, name: str) -> Mapping[str, Any]:
        """The connection's extra."""
        return BaseHook.get_connection(name).extra_dejson

    @contextmanager
    def bucket(self, name: str) -> "Iterator[Bucket]":
        """Keys, endpoint and region are the aws connection's; its service_config for s3 names the bucket.

        Raises FixConfiguration where it names none.
        """
        # Slow to import, which the other sources need not pay.
        from airflow.providers.amazon.aws.hooks.s3 import S3Hook
        from botocore.config import Config

        from include.api.bucket import Bucket, client_config

        declared = S3Hook(aws_conn_id=name).conn_config
        bucket = declared.get_service_config("s3").get("bucket_name")
        if not bucket:
            raise FixConfiguration(
                f"Connection {name!r} is missing or names no bucket."
                ' Set it, with {"service_config": {"s3": {"bucket_name": ...}}} in its extra.'
            )
        config = client_config(STORE_WORKERS).merge(declared.botocore_config or Config())
        with closing(S3Hook(aws_conn_id=name, config=config).get_conn()) as store:
            yield Bucket(store, bucket, connection=name)

    @contextmanager
    def database(self, name: str) -> Iterator[psycopg.Connection]:
        with warehouse.connect(self._run, name) as conn:
            yield conn


@contextmanager
def opened(name: str, run: str) -> Iterator[Context]:
    """The context for `run` (`dag_id/run_id`) of the source `name`."""
    source = get_source(name)
    with warehouse.connect(run) as conn, source.open(conn, run, AirflowConnections(run)) as context:
        yield context


def base_url(connection: Connection) -> str:
    """Scheme, host and port of a connection of type http."""
    host = (connection.host or "").rstrip("/")
    if "://" not in host:
        host = f"{connection.schema or 'https'}://{host}"
    return f"{host}:{connection.port}" if connection.port else host


def _limiter(
    name: str, per_minute: float | None, quota: Quota, connection: Connection, conn: psycopg.Connection
) -> Limiter:
    extra = connection.extra_dejson
    rate = float(extra.get("requests_per_minute", per_minute or 0))
    quota = Quota(
        int(extra.get("requests_per_hour", quota.per_hour or 0)) or None,
        int(extra.get("requests_per_day", quota.per_day or 0)) or None,
    )
    limit = SharedLimit(conn, name, rate) if rate else NoLimit()
    return Both(RequestCount(conn, name, quota), limit) if quota else limit
