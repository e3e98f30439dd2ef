"""How the server does: for load balancers, for Prometheus, and for the page at ``/``."""

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from geodapt.serve.http.api_errors import ApiError
from geodapt.serve.http.page import status_page
from geodapt.serve.http.service import service_of

router = APIRouter(tags=["status"])
POLICY = "default-src 'none'; script-src 'nonce-{0}'; style-src 'nonce-{0}'; connect-src 'self'"


@router.get("/health")
@router.head("/health", include_in_schema=False)
async def health() -> dict[str, str]:
    """Whether the process answers. The only route without a key."""
    return {"status": "ok"}


@router.get("/ready")
@router.head("/ready", include_in_schema=False)
async def ready(request: Request) -> dict[str, str]:
    """Whether new requests are taken: 503 while the server ends, or when its engine has died."""
    service = service_of(request)
    if not service.ready:
        why = "the server is ending" if service.draining else service.silence
        raise ApiError(503, why, "not_ready")
    return {"status": "ready"}


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Prometheus' text format."""
    content = service_of(request).metrics.text()
    return Response(content, media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/status")
async def status(request: Request) -> dict[str, Any]:
    """What the page shows, as JSON."""
    service = service_of(request)
    now = service.engine.statistics()
    firsts, ends = (
        (sorted(times) for times in zip(*service.recent, strict=True))
        if (service.recent)
        else ([], [])
    )
    return {
        "ready": service.ready,
        "model": service.settings.name,
        "http_requests": service.running,
        "running": now.running,
        "queued": now.queued,
        "requests": now.requests,
        "tokens": now.tokens,
        "prompt_tokens": now.prompt_tokens,
        "steps": now.steps,
        "step_seconds": now.step_seconds,
        "kv_tokens": now.kv_tokens,
        "replicas": service.replicas() if service.replicas is not None else None,
        "resident": [version.partition("#")[0] for version in now.resident],
        "first_token": {"p50": _quantile(firsts, 0.5), "p95": _quantile(firsts, 0.95)},
        "whole_answer": {"p50": _quantile(ends, 0.5), "p95": _quantile(ends, 0.95)},
    }


@router.get("/", response_class=HTMLResponse)
async def page(request: Request) -> HTMLResponse:
    """What runs, and a form that tries a prompt under a gate."""
    text, nonce = status_page(service_of(request).settings.name)
    headers = {"Content-Security-Policy": POLICY.format(nonce), "X-Frame-Options": "DENY"}
    return HTMLResponse(text, headers=headers)


def _quantile(values: list[float], share: float) -> float | None:
    return values[min(int(share * len(values)), len(values) - 1)] if values else None
