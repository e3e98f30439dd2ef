"""The application: routes, and around them errors, limits and keys."""

from fastapi import FastAPI

from geodapt import __version__
from geodapt.serve.http import (
    adapter_routes,
    scoring_routes,
    status_routes,
    text_routes,
    token_routes,
)
from geodapt.serve.http.api_errors import App, register_errors
from geodapt.serve.http.keys import KeyCheck
from geodapt.serve.http.limits import BodyLimit, QueueLimit, RateLimit
from geodapt.serve.http.service import Service
from geodapt.serve.http.tracing import Traced
from geodapt.serve.http.traffic import Traffic


def build_routes(service: Service) -> FastAPI:
    """The routes alone, without keys and limits around them."""
    app = FastAPI(
        title="geodapt",
        version=__version__,
        description="Many adapters and every gate over HTTP.",
        docs_url=None,  # FastAPI's own page loads its scripts from elsewhere
        redoc_url=None,
        separate_input_output_schemas=False,
    )
    app.state.service = service
    for routes in (text_routes, scoring_routes, adapter_routes, token_routes, status_routes):
        app.include_router(routes.router)
    register_errors(app)
    return app


def build_inner(service: Service) -> App:
    """The routes with what stands before them in every replica: room in the queue, and spans."""
    routes = build_routes(service)
    return QueueLimit(
        routes if service.tracing is None else Traced(routes, service.tracing), service
    )


def build_app(service: Service) -> App:
    """The whole application: counted, then asked for a key, then limited, then answered."""
    return around(build_inner(service), service)


def around(routes: App, service: Service) -> App:
    """Some routes with all that stands before them."""
    app: App = BodyLimit(routes, service.settings)
    app = RateLimit(app, service.settings)
    app = KeyCheck(app, service.settings)
    return Traffic(app, service)
