"""Registers the pages and endpoints of Sync confidence with Airflow.

Airflow imports this module, and no other of this folder, in each of its processes, so it has to stay light. The app
itself is imported with the first request, which only the API server gets.
"""

from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

from airflow.plugins_manager import AirflowPlugin

PREFIX = "/sync-confidence"
# Relative to the base address of Airflow's UI, which need not be the server's root.
HOME = PREFIX.removeprefix("/")
ICON = f"{HOME}/static/icon.svg"


async def app(scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
    """The ASGI app of plugins.pages."""
    from plugins.pages.app import app as pages

    await pages(scope, receive, send)


class SyncConfidence(AirflowPlugin):
    """The entry in Airflow's navigation, and a tab on each DAG and on each DAG run."""

    name = "sync_confidence"
    fastapi_apps: ClassVar[list[Any]] = [{"app": app, "url_prefix": PREFIX, "name": "Sync confidence"}]
    external_views: ClassVar[list[Any]] = [
        {
            "name": "Sync confidence",
            "href": f"{HOME}/",
            "destination": "nav",
            "nav_top_level": True,
            "url_route": "sync-confidence",
            "icon": ICON,
        },
        {
            "name": "Sync confidence",
            "href": f"{HOME}/dags/{{DAG_ID}}",
            "destination": "dag",
            "url_route": "sync-confidence-dag",
            "icon": ICON,
        },
        {
            "name": "Sync confidence",
            "href": f"{HOME}/dags/{{DAG_ID}}/runs/{{RUN_ID}}",
            "destination": "dag_run",
            "url_route": "sync-confidence-run",
            "icon": ICON,
        },
    ]
