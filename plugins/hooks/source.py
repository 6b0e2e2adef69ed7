"""Open a source and the warehouse through Airflow's connections, as every step of a run does first."""

import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from airflow.sdk import BaseHook, Connection

from include.api.client import ApiClient
from include.api.errors import FixConfiguration
from include.api.limits import Limiter, NoLimit, Until
from include.sources import get_source
from include.sources.base import Api, Context
from include.warehouse.rate_limit import Both, Quota, RequestCount, SharedLimit
from plugins.hooks import warehouse
from plugins.settings import variable

if TYPE_CHECKING:
    from include.api.bucket import Bucket

# The most requests that one task sends at once: to an API, and to an S3 store.
WORKERS, STORE_WORKERS = 4, 64
# The time that one task may spend on requests to an API, waiting included.
BUDGET_SECONDS = 6 * 3600


class AirflowConnections:
    """The `Connections` of a source, taken from Airflow. Database sessions are named after the run.

    After `seconds` from now, if given, a request to an API raises OutOfTime.
    """

    def __init__(self, run: str, seconds: float | None = None):
        self._run = run
        self._end = None if seconds is None else time.monotonic() + seconds

    @contextmanager
    def api(self, name: str, api: Api) -> Iterator[ApiClient]:
        """Open the API at the connection's host (https unless the host has a scheme). The password is the token.

        `requests_per_minute`, `requests_per_hour` and `requests_per_day` in the connection's extra replace the limits
        given here; 0 is no limit.
        """
        connection = BaseHook.get_connection(name)
        with (
            warehouse.connect(f"{self._run} limit") as limit_conn,
            ApiClient(
                name,
                base_url(connection) + api.base_path,
                headers=api.authorize(connection.password or ""),
                limiter=self._limited(_limiter(name, api.per_minute, api.quota, connection, limit_conn)),
                error_policy=api.error_policy,
                budget_seconds=BUDGET_SECONDS,
                connections=WORKERS,
            ) as client,
        ):
            yield client

    def _limited(self, limiter: Limiter) -> Limiter:
        return limiter if self._end is None else Until(limiter, self._end)

    def variable(self, name: str) -> str | None:
        return variable(name)

    def settings(self, name: str) -> Mapping[str, Any]:
        """Return the connection's extra."""
        return BaseHook.get_connection(name).extra_dejson

    @contextmanager
    def bucket(self, name: str) -> "Iterator[Bucket]":
        """Open the bucket in the `service_config` for s3 of the aws connection, which also has keys and endpoint.

        Raises FixConfiguration if the connection names no bucket.
        """
        # Slow to import, and only needed here.
        from airflow.providers.amazon.aws.hooks.s3 import S3Hook
        from botocore.config import Config

        from include.api.bucket import Bucket
        from include.api.s3_client import client_config

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
def opened(name: str, run: str, *, seconds: float | None = None) -> Iterator[Context]:
    """Open the source `name` for the run `run` (`dag_id/run_id`), whose requests raise OutOfTime after `seconds`."""
    source = get_source(name)
    with warehouse.connect(run) as conn, source.open(conn, run, AirflowConnections(run, seconds)) as context:
        yield context


def base_url(connection: Connection) -> str:
    """Return scheme, host and port of a connection of type http."""
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
