"""Registers the pages and endpoints of Sync confidence with Airflow.

Airflow imports this module, and no other of this folder, in each of its processes, so it has to stay light. The app
itself is imported with the first request, which only the API server gets.
"""

from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

from airflow.plugins_manager import AirflowPlugin

PREFIX = "/sync-confidence"
# The navigation has room for one short word: 56 pixels, which cut "Sync confidence", and "Confidence" too.
IN_NAVIGATION = "Drift"
# Relative to the base address of Airflow's UI, which need not be the server's root.
HOME = PREFIX.removeprefix("/")
ICON = f"{HOME}/static/icon.svg"

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


async def app(scope: Any, receive: Receive, send: Send) -> None:
    """The ASGI app of plugins.pages."""
    from plugins.pages.app import app as pages

    await pages(scope, receive, send)


class Slash:
    """Sends a browser that asks for the pages' address without its last slash to the one with it.

    Airflow would answer it with a page of its own, as it does not know that address.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(
        self, scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        root = scope.get("root_path", "")
        if scope["type"] != "http" or scope["path"].removeprefix(root) != PREFIX:
            await self._app(scope, receive, send)
            return
        headers = [(b"location", f"{root}{PREFIX}/".encode()), (b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 307, "headers": headers})
        await send({"type": "http.response.body", "body": b""})


class SyncConfidence(AirflowPlugin):
    """The entry in Airflow's navigation, and a tab on each DAG and on each DAG run."""

    name = "sync_confidence"
    fastapi_apps: ClassVar[list[Any]] = [{"app": app, "url_prefix": PREFIX, "name": "Sync confidence"}]
    fastapi_root_middlewares: ClassVar[list[Any]] = [
        {"middleware": Slash, "args": [], "kwargs": {}, "name": "The pages' last slash"}
    ]
    external_views: ClassVar[list[Any]] = [
        {
            "name": IN_NAVIGATION,
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
