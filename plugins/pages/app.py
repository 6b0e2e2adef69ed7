"""The app behind the pages and endpoints, which Airflow's API server mounts at /sync-confidence."""

import os
from typing import Any

from airflow.api_fastapi.core_api.security import requires_authenticated
from fastapi import Depends, FastAPI, Request, status
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from include.confidence.queries.paging import CursorRefused
from include.sources.installed import WrongSources
from plugins.pages import api, html
from plugins.pages.warehouse import WarehouseUnavailable

DESCRIPTION = """\
How the copies of all sources stand, and what their runs have found. Everything here reads; runs are triggered, holds
answered and syncs rolled back through Airflow's own REST API (`/api/v2`).

Log in as for that API: `POST /auth/token`, then `Authorization: Bearer <token>`. A source is seen by those who may read
the runs of its DAG `<source>_reconcile`.

Lists come a page at a time, newest first: ask again with `cursor` set to `next_cursor` until that is null. Refusals
are `{"detail": "<one line: what, where, what to do>"}`.
"""


class DescribedApp(FastAPI):
    """An app whose OpenAPI document says of optional parameters what they may be, and not null: no address has that."""

    def openapi(self) -> dict[str, Any]:
        """Return the document, with the plain type of each optional parameter in place of "type or null"."""
        document = super().openapi()
        parameters = [each for path in document["paths"].values() for each in path["get"].get("parameters", [])]
        for schema in (parameter["schema"] for parameter in parameters if "anyOf" in parameter["schema"]):
            (kind,) = (each for each in schema.pop("anyOf") if each != {"type": "null"})
            schema |= kind
        return document


def create_app(*, open_readiness: bool = False) -> FastAPI:
    """Return the app. `open_readiness`: /readiness needs no login."""
    # FastAPI's own pages would be open to anyone and load scripts from another host.
    app = DescribedApp(
        title="Sync confidence", version="1", description=DESCRIPTION, openapi_url=None, docs_url=None, redoc_url=None
    )
    app.include_router(html.static_router)
    app.include_router(html.router)
    app.include_router(api.router)
    app.include_router(api.readiness_router(open_to_all=open_readiness))
    app.get("/openapi.json", include_in_schema=False, dependencies=[Depends(requires_authenticated())])(_describe)
    app.exception_handler(WarehouseUnavailable)(_unavailable)
    app.exception_handler(WrongSources)(_unavailable)
    app.exception_handler(CursorRefused)(_refused)
    app.exception_handler(RequestValidationError)(_invalid)
    return app


def _describe(request: Request) -> dict[str, Any]:
    """Return the OpenAPI of all endpoints, with the address where the app is mounted."""
    return request.app.openapi() | {"servers": [{"url": request.scope["root_path"]}]}


def _unavailable(_: Request, error: WarehouseUnavailable | WrongSources) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, status.HTTP_503_SERVICE_UNAVAILABLE)


def _refused(_: Request, error: CursorRefused) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, status.HTTP_422_UNPROCESSABLE_CONTENT)


def _invalid(_: Request, error: RequestValidationError) -> JSONResponse:
    return JSONResponse({"detail": api.one_line(error)}, status.HTTP_422_UNPROCESSABLE_CONTENT)


app = create_app(open_readiness=os.environ.get("SYNC_CONFIDENCE_OPEN_READINESS") == "1")
