"""What is served where: the page, the API, `/metrics`, health. Read-only; nothing from elsewhere.

The page is the program's own HTML with two files beside it, so that the browser is told to load
nothing else and to run nothing inline.
"""

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, Final

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware

from planner.adapters.http.records import KEEP_MOST
from planner.adapters.http.site import Site
from planner.model import Service, ServiceKey
from planner.view.service_list import list_page, service_rows
from planner.view.service_page import asset, service_page

SECURITY_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

ASSETS: Final = {"page.css": "text/css", "page.js": "text/javascript"}
READ: Final = ["GET", "HEAD"]

Limit = Annotated[int, Query(ge=1, le=KEEP_MOST)]


def create_app(site: Site) -> FastAPI:
    """Return the application that serves a site."""
    app = FastAPI(title="pd-planner", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(GZipMiddleware, minimum_size=2048)
    app.middleware("http")(_secured)
    app.add_exception_handler(HTTPException, _told)
    app.add_exception_handler(RequestValidationError, _mended)
    _add_operations(app, site)
    _add_api(app, site)
    _add_page(app, site)
    return app


def _add_operations(app: FastAPI, site: Site) -> None:
    """Add what Prometheus and the kubelet ask for."""

    @app.api_route("/metrics", methods=READ)
    def metrics(request: Request) -> Response:
        text, media_type = site.metrics.exposition(request.headers.get("accept", ""))
        return Response(text, headers={"Content-Type": media_type})

    @app.api_route("/healthz", methods=READ)
    def healthz() -> Response:
        return _health(site.health.faults_of_life())

    @app.api_route("/readyz", methods=READ)
    def readyz() -> Response:
        return _health(site.health.faults_of_readiness())


def _add_api(app: FastAPI, site: Site) -> None:
    """Add what programs ask for."""

    @app.api_route("/api/v1/services", methods=READ)
    def services() -> Response:
        return JSONResponse({"services": service_rows(_with_last(site))})

    @app.api_route("/api/v1/services/{namespace}/{name}/records", methods=READ)
    def records(namespace: str, name: str, limit: Limit = 60) -> Response:
        service = _followed(site, namespace, name)
        ticks = [record.to_json() for record in site.records.of(service.key)[-limit:]]
        head = json.dumps({"namespace": namespace, "name": name})
        body = f'{head[:-1]}, "records": [{",".join(ticks)}]}}'
        return Response(body, media_type="application/json")


def _add_page(app: FastAPI, site: Site) -> None:
    """Add what people look at."""

    @app.api_route("/", methods=READ)
    def page() -> Response:
        services = site.records.services()
        if len(services) == 1:
            return HTMLResponse(service_page(services[0], site.records.of(services[0].key)))
        return HTMLResponse(list_page(_with_last(site)))

    @app.api_route("/services/{namespace}/{name}", methods=READ)
    def one(namespace: str, name: str) -> Response:
        service, is_alone = _followed(site, namespace, name), len(site.records.services()) == 1
        ticks = site.records.of(service.key)
        return HTMLResponse(service_page(service, ticks, is_top=False, is_alone=is_alone))

    @app.api_route("/assets/{file}", methods=READ)
    def assets(file: str) -> Response:
        if file not in ASSETS:
            raise HTTPException(404, f"no file {file}; legal: {', '.join(ASSETS)}")
        return Response(asset(f"service_{file}"), media_type=ASSETS[file])


def _with_last(site: Site) -> list[Any]:
    return [(service, site.records.last(service.key)) for service in site.records.services()]


def _followed(site: Site, namespace: str, name: str) -> Service:
    """Return a service.

    Raises
    ------
    HTTPException
        If there is none of that name.
    """
    service = site.records.service(key := ServiceKey(namespace, name))
    if service is None:
        raise HTTPException(404, f"no service {key}; /api/v1/services lists those there are")
    return service


def _health(faults: Sequence[str]) -> Response:
    if not faults:
        return JSONResponse({"status": "ok"})
    return JSONResponse({"status": "failed", "reasons": list(faults)}, status_code=503)


async def _secured(
    request: Request, call_next: Callable[[Request], Awaitable[Response]]
) -> Response:
    response = await call_next(request)
    for name, value in SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    return response


async def _told(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse(
        {"error": f"{request.method} {request.url.path}: {error.detail}"},
        status_code=error.status_code,
        headers=error.headers,
    )


async def _mended(_: Request, error: Exception) -> Response:
    """Answer a wrong query in one line."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    name, given = first["loc"][-1], str(first["input"])[:40]
    return JSONResponse(
        {"error": f"{name}: {given!r}: {first['msg']}; legal: a whole number 1 to {KEEP_MOST}"},
        status_code=422,
    )
