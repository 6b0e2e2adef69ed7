"""The base of all tasks of a source: documentation in Airflow's UI and a link to the page of the run."""

from typing import Any, ClassVar
from urllib.parse import quote

from airflow.sdk import BaseOperator, BaseOperatorLink
from airflow.sdk.configuration import conf


class RunPage(BaseOperatorLink):
    """The button in a task's details that leads to the run's tab Sync confidence, with figures and verdicts."""

    name = "Sync confidence"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:
        run = f"dags/{quote(ti_key.dag_id, safe='')}/runs/{quote(ti_key.run_id, safe='')}"
        return f"{conf.get('api', 'base_url', fallback='').rstrip('/')}/{run}/plugin/sync-confidence-run"


class SourceOperator(BaseOperator):
    """A task of a source. `on_call` is its documentation in Airflow's UI: what it does, and what to do if it fails."""

    on_call: ClassVar[str]
    operator_extra_links = (RunPage(),)

    def __init__(self, *, source: str, **kwargs: Any):
        super().__init__(**{"doc_md": self.on_call, **kwargs})
        self.source = source
