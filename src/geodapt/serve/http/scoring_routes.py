"""``/v1/embeddings``, ``/v1/rerank``, ``/v1/retrieve``, ``/classify``, and their other names."""

import asyncio
import base64
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar
from uuid import uuid4

import numpy as np
from fastapi import APIRouter, Request

from geodapt.serve.http.answers import ClientGone, while_connected
from geodapt.serve.http.api_errors import ApiError
from geodapt.serve.http.scoring_protocol import (
    ClassifyBody,
    EmbeddingBody,
    PredictBody,
    RankBody,
    RerankBody,
    RetrieveBody,
    ShelfBody,
    as_list,
)
from geodapt.serve.http.sent_pictures import pictures_in
from geodapt.serve.http.service import may_be_done, service_of
from geodapt.serve.scoring import Scoring
from geodapt.serve.text_shelf import TextShelf

T = TypeVar("T")
router = APIRouter(tags=["scores"])
MOST_WAITING = 256
"""Requests for scores that may wait; more are refused."""


@router.post("/v1/embeddings")
async def embeddings(body: EmbeddingBody, request: Request) -> dict[str, Any]:
    """Unit vectors of texts, with their radius where ``hierarchy`` is asked for."""
    texts = as_list(body.input)
    found = await _scored(request, lambda scoring: scoring.embedded(texts))
    data = []
    for number, (vector, radius) in enumerate(zip(found.vectors, found.radii, strict=True)):
        written: Any = vector
        if body.encoding_format == "base64":
            written = base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode()
        more = {"radius": radius} if body.hierarchy else {}
        data.append({"object": "embedding", "index": number, "embedding": written} | more)
    usage = {"prompt_tokens": found.tokens, "total_tokens": found.tokens}
    return {"object": "list", "data": data, "model": _name(request, body.model), "usage": usage}


@router.post("/v1/rerank")
@router.post("/v2/rerank")
async def rerank(body: RerankBody, request: Request) -> dict[str, Any]:
    """Rank candidates after a history by X-Cross, the best first."""
    texts = body.texts
    if body.candidates_index is not None:
        texts = _stored(_scoring(request).catalogues, body.candidates_index, "candidates_index")
    history = as_list(body.query)
    scores = await _scored(request, lambda scoring: scoring.ranked(history, texts))
    order = sorted(range(len(texts)), key=lambda i: -scores[i])[: body.top_n]
    results = [
        {"index": i, "relevance_score": scores[i]}
        | ({"document": {"text": texts[i]}} if body.return_documents else {})
        for i in order
    ]
    return {
        "id": f"rerank-{uuid4().hex}",
        "model": _name(request, body.model),
        "results": results,
        "meta": {"api_version": {"version": "2"}},
    }


@router.post("/rerank")
async def rank(body: RankBody, request: Request) -> list[dict[str, Any]]:
    """The same in TEI's shape."""
    history = as_list(body.query)
    scores = await _scored(request, lambda scoring: scoring.ranked(history, body.texts))
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    return [
        {"index": i, "score": scores[i]} | ({"text": body.texts[i]} if body.return_text else {})
        for i in order
    ]


@router.post("/v1/retrieve")
async def retrieve(body: RetrieveBody, request: Request) -> dict[str, Any]:
    """For each text or picture a chain of texts, from general to specific."""
    texts = body.texts or []
    if body.index is not None:
        texts = _stored(_scoring(request).indexes, body.index, "index")
    queries = as_list(body.queries or [])
    asked: list[Any] = queries
    if body.images is not None:
        asked = await asyncio.to_thread(pictures_in, body.images)
    chains = await _scored(request, lambda scoring: scoring.retrieved(asked, texts, body.steps))
    data = [
        {
            "query": queries[number] if queries else None,
            "steps": [
                {"text": s.text, "radius": s.radius, "similarity": s.similarity} for s in chain
            ],
        }
        for number, chain in enumerate(chains)
    ]
    return {"object": "list", "data": data, "model": _name(request, body.model)}


@router.post("/classify")
async def classify(body: ClassifyBody, request: Request) -> dict[str, Any]:
    """The label of each text, in vLLM's shape, with every label's score."""
    texts = as_list(body.input)
    found = await _scored(request, lambda scoring: scoring.classified(texts, body.labels))
    data = [
        {
            "index": number,
            "label": max(scores, key=lambda label: scores[label]),
            "probs": list(scores.values()) if body.labels is None else None,
            "num_classes": len(scores),
            "scores": _best_first(scores),
        }
        for number, scores in enumerate(found)
    ]
    name = _name(request, body.model)
    return {"id": f"classify-{uuid4().hex}", "object": "list", "model": name, "data": data}


@router.post("/predict")
async def predict(body: PredictBody, request: Request) -> list[Any]:
    """The same in TEI's shape: a list of labels, or a list of such lists."""
    texts = as_list(body.inputs)
    found = await _scored(request, lambda scoring: scoring.classified(texts, body.labels))
    ordered = [_best_first(scores) for scores in found]
    return ordered[0] if isinstance(body.inputs, str) else ordered


@router.get("/v1/catalogues")
async def catalogues(request: Request) -> dict[str, Any]:
    """The stored lists of candidates."""
    return _listed(_scoring(request).catalogues)


@router.put("/v1/catalogues/{name}")
async def put_catalogue(name: str, body: ShelfBody, request: Request) -> dict[str, Any]:
    """Store candidates under a name, for ``candidates_index``."""
    return await _put(_scoring(request).catalogues, name, body.texts)


@router.delete("/v1/catalogues/{name}")
async def delete_catalogue(name: str, request: Request) -> dict[str, Any]:
    """Forget them."""
    return await _delete(request, _scoring(request).catalogues, name)


@router.get("/v1/indexes")
async def indexes(request: Request) -> dict[str, Any]:
    """The stored lists of texts to retrieve from."""
    return _listed(_scoring(request).indexes)


@router.put("/v1/indexes/{name}")
async def put_index(name: str, body: ShelfBody, request: Request) -> dict[str, Any]:
    """Store texts under a name, for ``index``; they are embedded at the first request."""
    return await _put(_scoring(request).indexes, name, body.texts)


@router.delete("/v1/indexes/{name}")
async def delete_index(name: str, request: Request) -> dict[str, Any]:
    """Forget them."""
    return await _delete(request, _scoring(request).indexes, name)


def _scoring(request: Request) -> Scoring:
    scoring = service_of(request).scoring
    if scoring is None:
        raise ApiError(
            404,
            "no system that scores is served here; start the server with --embed, --rank or "
            "--classify",
            "model_not_found",
        )
    return scoring


async def _scored(request: Request, ask: Callable[[Scoring], "Future[T]"]) -> T:
    """The result of work in the models' thread, which is not begun if the client leaves before."""
    service, scoring = service_of(request), _scoring(request)
    if len(service.waiting) >= MOST_WAITING:
        raise ApiError(
            429, "too many requests for scores wait", "queue_full", headers={"Retry-After": "1"}
        )
    seconds = service.settings.request_seconds
    future = ask(scoring)
    service.waiting.add(future)
    future.add_done_callback(service.waiting.discard)
    try:
        return await while_connected(request.receive, asyncio.wrap_future(future), seconds)
    except TimeoutError:
        raise ApiError(408, "the answer took too long", "timeout") from None
    except ClientGone:
        raise ApiError(499, "the client has gone") from None


def _name(request: Request, model: str | None) -> str:
    return model or service_of(request).settings.name


def _best_first(scores: dict[str, float]) -> list[dict[str, Any]]:
    order = sorted(scores, key=lambda label: -scores[label])
    return [{"label": label, "score": scores[label]} for label in order]


def _stored(shelf: TextShelf, name: str, param: str) -> list[str]:
    found = shelf.get(name)
    if found is None:
        raise ApiError(404, f"nothing is stored as '{name[:100]}'", "not_found", param)
    return list(found)


def _listed(shelf: TextShelf) -> dict[str, Any]:
    data = [{"name": name, "texts": count} for name, count in shelf.sizes().items()]
    return {"object": "list", "data": data, "lasting": shelf.lasting}


async def _put(shelf: TextShelf, name: str, texts: list[str]) -> dict[str, Any]:
    await asyncio.to_thread(shelf.put, name, texts)
    return {"name": name, "texts": len(texts), "lasting": shelf.lasting}


async def _delete(request: Request, shelf: TextShelf, name: str) -> dict[str, Any]:
    if not await asyncio.to_thread(shelf.delete, name) and not may_be_done(request):
        raise ApiError(404, f"nothing is stored as '{name[:100]}'", "not_found")
    return {"name": name, "deleted": True}
