"""Whether a source's connections are set. Until then its scheduled runs are skipped, and other runs fail at once."""

from typing import Any

from airflow.sdk.exceptions import AirflowSkipException

from include.api.errors import FixConfiguration, TryLater
from include.confidence.watch import how_to_configure, not_configured
from include.sources import get_source
from include.warehouse import sync_log
from plugins.hooks import warehouse
from plugins.runs import run_name


def missing_connections(source: str) -> tuple[str, ...]:
    """Return the names of the connections that the source needs and Airflow does not have."""
    return tuple(name for name in get_source(source).connections if not warehouse.is_set(name))


def skip_unless_configured(context: Any, source: str) -> None:
    """Raise AirflowSkipException in a scheduled run if a connection is missing and the source was never synced.

    A source that was synced before has lost its connection, or Airflow can't say: its runs go on, and fail.
    """
    if context["dag_run"].run_type != "scheduled":
        return
    missing = missing_connections(source)
    if missing and not _ever_synced(context, source):
        raise AirflowSkipException(f"skipped: {_line(source, missing)}")


def require_configured(context: Any, source: str) -> None:
    """Raise as `skip_unless_configured` does, and FixConfiguration in any other run if a connection is missing.

    Raises TryLater, and so is tried again, if the source was synced before: Airflow says the same of a connection that
    it can't look up for the moment.
    """
    missing = missing_connections(source)
    if not missing:
        return
    line = _line(source, missing)
    if _ever_synced(context, source):
        raise TryLater(line)
    if context["dag_run"].run_type == "scheduled":
        raise AirflowSkipException(f"skipped: {line}")
    raise FixConfiguration(line)


def _line(source: str, missing: tuple[str, ...]) -> str:
    return f"{not_configured(source, missing)}. Nothing was done. Next: {how_to_configure(source, missing)}"


def _ever_synced(context: Any, source: str) -> bool:
    with warehouse.connect(run_name(context)) as conn:
        return sync_log.ever_synced(conn, source)
