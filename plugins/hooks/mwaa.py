"""The way into the REST API of an Amazon MWAA environment, which lets in IAM roles and knows no passwords."""

import requests
from airflow.providers.amazon.aws.hooks.mwaa import MwaaHook
from airflow.sdk import Connection
from botocore.exceptions import BotoCoreError, ClientError

from include.api.errors import FixConfiguration, TryLater

ENVIRONMENT = "mwaa_environment"
# Of Airflow 3; Airflow 2 has another one.
LOGIN = "/pluginsv2/aws_mwaa/login"
# A task that has failed asks once more, and has 20 seconds for it.
TIMEOUT_SECONDS = 5


def log_in(connection: Connection) -> tuple[str, str]:
    """Return base URL and token of the environment that the aws connection's extra names as `mwaa_environment`.

    The connection's keys, or else the worker's own role, need airflow:CreateWebLoginToken. Raises FixConfiguration if
    that is refused, TryLater if the environment does not answer.
    """
    name = connection.extra_dejson.get(ENVIRONMENT)
    if not name:
        raise FixConfiguration(f"Connection {connection.conn_id!r} names no {ENVIRONMENT} in its extra. Set it there")
    try:
        made = MwaaHook(aws_conn_id=connection.conn_id).conn.create_web_login_token(Name=name)
    except (BotoCoreError, ClientError) as error:
        raise FixConfiguration(
            f"{connection.conn_id}: AWS gives no token for the MWAA environment {name} ({_reason(error)}): check the"
            f" connection {connection.conn_id!r}, and that its role has airflow:CreateWebLoginToken"
        ) from None
    url = f"https://{made['WebServerHostname']}"
    try:
        answer = requests.post(url + LOGIN, data={"token": made["WebToken"]}, timeout=TIMEOUT_SECONDS)
        answer.raise_for_status()
        return url, answer.cookies["_token"]
    except (requests.RequestException, KeyError) as error:
        raise TryLater(
            f"{connection.conn_id}: the MWAA environment {name} let nobody in ({type(error).__name__} at POST {LOGIN}):"
            " run again later; if that goes on, check that workers reach its web server"
        ) from None


def _reason(error: BotoCoreError | ClientError) -> str:
    return error.response["Error"]["Code"] if isinstance(error, ClientError) else type(error).__name__
