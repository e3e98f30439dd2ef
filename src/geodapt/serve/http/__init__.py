"""HTTP around the engine: routes in OpenAI's shapes, keys, limits, streams, a page, metrics."""

from geodapt.extras import require

for _package, _name in (
    ("fastapi", "FastAPI"),
    ("uvicorn", "uvicorn"),
    ("prometheus_client", "prometheus-client"),
):
    require(_package, f"serving over HTTP needs {_name}", "serve")
