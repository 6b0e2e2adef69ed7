"""Tell people what they have to know, by the connection `notifications`: to Slack, mail or whatever it names.

A message that can't be sent never fails a task. It is logged as a warning, and sent again with the next message, or by
the next sync.
"""

import logging
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote

import psycopg
from airflow.sdk import BaseHook
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowNotFoundException

from include.confidence import outbox
from include.confidence.messages import Event, Kind
from plugins.hooks import warehouse

if TYPE_CHECKING:
    from apprise import Apprise

log = logging.getLogger(__name__)

CONNECTION = "notifications"
# Together less than the 20 seconds after which Airflow ends the process of a failed task.
CONNECT_SECONDS = 5
SEND_SECONDS = 8
NEEDED = 'it needs {"config": {"path": "<Apprise URL of the service>"}} as its extra'


def tell(run: str, source: str, events: Sequence[Event] = (), *, ended: Collection[Kind] = ()) -> None:
    """Send each event that people were not told yet, and those that could not be sent before. Never raises.

    Events of the kinds `ended` that are not in `events` are over: if they come again, people are told again. The
    warehouse knows what was told; if it can't be reached, all events are sent.
    """
    services = _services()
    if services is None and events:
        titles = "; ".join(event.title for event in events)
        log.info("connection %s is not set, so nobody is told: %s", CONNECTION, titles)
        events = ()
    try:
        with warehouse.connect(run, timeout=CONNECT_SECONDS) as conn:
            outbox.end(conn, source, ended, [event.key for event in events])
            for event in events:
                outbox.note(conn, event)
            while services is not None and outbox.send_next(conn, lambda event: _send(services, event)):
                pass
    except (psycopg.Error, AirflowNotFoundException) as error:
        if events:
            log.warning("sent, perhaps not for the first time: the warehouse doesn't answer (%s)", type(error).__name__)
        for event in events:
            _send(services, event)


def run_link(run: str) -> str:
    """Return the address of the run `dag_id/run_id` in Airflow's UI."""
    dag_id, _, run_id = run.partition("/")
    return f"{_base()}/dags/{quote(dag_id)}/runs/{quote(run_id, safe=':')}"


def question_link(run: str) -> str:
    """Return the address of the run's page with the question of its task `decide`, and the form that answers it."""
    dag_id, _, run_id = run.partition("/")
    return f"{_base()}/sync-confidence/dags/{quote(dag_id)}/runs/{quote(run_id, safe=':')}#question"


def plan_link(source: str, evidence: str) -> str:
    """Return the address of the page with the plan of a scan."""
    return f"{_base()}/sync-confidence/sources/{source}/plans/{quote(evidence, safe='')}"


def fields_link(source: str) -> str:
    """Return the address of the page with the fields of a source."""
    return f"{_base()}/sync-confidence/sources/{source}/fields"


def _base() -> str:
    return (conf.get("api", "base_url", fallback="") or "").rstrip("/")


def _services() -> "Apprise | None":
    """Return the services that the connection names: none if it is unusable, None if there is no connection."""
    try:
        connection = BaseHook.get_connection(CONNECTION)
    except AirflowNotFoundException:
        return None
    # Slow to import, so only when needed.
    from airflow.providers.apprise.hooks.apprise import AppriseHook
    from apprise import Apprise

    # Their log lines may name the address of a service, and that holds its token.
    apprise_log = logging.getLogger("apprise")
    apprise_log.handlers, apprise_log.propagate = [logging.NullHandler()], False
    logging.getLogger("urllib3").setLevel(logging.INFO)
    services = Apprise()
    try:
        AppriseHook().set_config_from_conn(connection, services)
    except (KeyError, TypeError, ValueError):
        services.clear()
    return services


def _send(services: "Apprise", event: Event) -> bool:
    """Send an event; return whether at least one service has accepted it."""
    from apprise import NotifyType

    if not len(services):
        log.warning("connection %s names no service that Apprise knows, so nobody was told: %s", CONNECTION, NEEDED)
        return False
    result = services.notify(
        title=event.title,
        body=event.text,
        notify_type=NotifyType.FAILURE if event.kind.serious else NotifyType.WARNING,
        timeout=SEND_SECONDS,
    )
    failed = [service.name for service in result if not service]
    if failed:
        log.warning("not told by %s, see connection %s: %s", ", ".join(failed), CONNECTION, event.title)
    return len(failed) < len(result.results)
