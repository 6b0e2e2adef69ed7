"""Routes whose errors are pages: a title, what is wrong and what to do."""

from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlencode

from fastapi import HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import APIRoute

from include.confidence.queries import paging
from include.sources.installed import WrongSources
from plugins.pages.render import page
from plugins.pages.warehouse import WarehouseUnavailable


class HtmlRoute(APIRoute):
    """A route whose errors are pages with advice."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        handle = super().get_route_handler()

        async def handler(request: Request) -> Response:
            try:
                return await handle(request)
            except (WarehouseUnavailable, WrongSources) as error:
                return message(request, "No figures now", _sentence(str(error)), code=503)
            except paging.CursorRefused as error:
                return message(request, "No such page", _sentence(str(error)), code=422)
            except RequestValidationError:
                return message(request, "No such page", "The address is not one that these pages give.", code=422)
            except HTTPException as error:
                return _refusal(request, error)

        return handler


# What Airflow says, as a 403, of a login from before its secret was changed.
INVALID_TOKEN = "Invalid JWT token"


def message(
    request: Request, title: str, *lines: str, code: int = 200, link: tuple[str, str] | None = None, **values: Any
) -> Response:
    """Return a page with a title and a few lines. `link` leads to a page of Airflow's UI."""
    return page(request, "message.html", code=code, title=title, lines=lines, link=link, **values)


def _refusal(request: Request, error: HTTPException) -> Response:
    if error.status_code == 401 or error.detail == INVALID_TOKEN:
        return message(
            request,
            "Not logged in",
            "These pages are for those who are logged in to Airflow.",
            code=401,
            link=(f"/api/v2/auth/login?{urlencode({'next': _address(request)})}", "Log in"),
        )
    titles = {403: "Not for you to see", 404: "No such page", 422: "No such page"}
    title = titles.get(error.status_code, "Not possible")
    return message(request, title, _sentence(str(error.detail)), code=error.status_code)


def _address(request: Request) -> str:
    """Return path and query of the page that was asked for."""
    return quote(request.url.path) + (f"?{request.url.query}" if request.url.query else "")


def _sentence(line: str) -> str:
    return f"{line[:1].upper()}{line[1:]}."
