"""Adapters that come and go: ``/v1/models``, ``/v1/adapters``, and vLLM's names for it."""

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse

from geodapt.serve.adapter_folder import ServedAdapter
from geodapt.serve.http.service import Service, may_be_done, service_of
from geodapt.serve.protocol import Body

router = APIRouter(tags=["adapters"])


class PutAdapterBody(Body):
    """``PUT /v1/adapters/{name}``."""

    source: str | None = None
    """A folder directly below the adapters' folder; null: the one of the adapter's name."""


class LoadAdapterBody(Body):
    """vLLM's ``POST /v1/load_lora_adapter``."""

    lora_name: str
    lora_path: str | None = None
    """As ``source``; a whole path is taken if it is that of such a folder."""
    load_inplace: bool = False
    """Taken and not used: a name can always be put anew."""


class UnloadAdapterBody(Body):
    """vLLM's ``POST /v1/unload_lora_adapter``."""

    lora_name: str
    lora_int_id: int | None = None
    """Taken and not used."""


@router.get("/v1/models")
async def models(request: Request) -> dict[str, Any]:
    """The base and every adapter, as OpenAI lists models."""
    service = service_of(request)
    names = await asyncio.to_thread(service.adapters.names)
    found = [_model(service, service.settings.name)]
    return {"object": "list", "data": found + [_model(service, n, adapter=True) for n in names]}


@router.get("/v1/models/{name:path}")
async def model(name: str, request: Request) -> dict[str, Any]:
    """One of them."""
    service = service_of(request)
    if name in service.base_names:
        return _model(service, name)
    await asyncio.to_thread(service.adapters.served, name)
    return _model(service, name, adapter=True)


@router.get("/v1/adapters")
async def adapters(request: Request) -> dict[str, Any]:
    """Every adapter with its version, and whether it is in memory and on the device."""
    service = service_of(request)

    def found() -> list[dict[str, Any]]:
        folder = service.adapters
        return [_adapter(service, folder.served(name)) for name in folder.names()]

    return {"object": "list", "data": await asyncio.to_thread(found)}


@router.get("/v1/adapters/{name}")
async def adapter(name: str, request: Request) -> dict[str, Any]:
    """One of them."""
    service = service_of(request)
    return _adapter(service, await asyncio.to_thread(service.adapters.served, name))


@router.put("/v1/adapters/{name}")
async def put_adapter(
    name: str, request: Request, body: PutAdapterBody | None = None
) -> dict[str, Any]:
    """Serve an adapter under a name from now on, once it has been read and fits the base."""
    service = service_of(request)
    source = body.source if body is not None else None
    return _adapter(service, await asyncio.to_thread(service.adapters.put, name, source))


@router.delete("/v1/adapters/{name}")
async def delete_adapter(name: str, request: Request) -> dict[str, Any]:
    """Serve it no more; its files stay."""
    await _delete(request, name)
    return {"name": name, "deleted": True}


@router.post("/v1/load_lora_adapter", response_class=PlainTextResponse)
async def load_lora_adapter(body: LoadAdapterBody, request: Request) -> str:
    """``PUT /v1/adapters/{name}`` as vLLM calls it."""
    await asyncio.to_thread(service_of(request).adapters.put, body.lora_name, body.lora_path)
    return f"Success: LoRA adapter '{body.lora_name}' added successfully."


@router.post("/v1/unload_lora_adapter", response_class=PlainTextResponse)
async def unload_lora_adapter(body: UnloadAdapterBody, request: Request) -> str:
    """``DELETE /v1/adapters/{name}`` as vLLM calls it."""
    await _delete(request, body.lora_name)
    return f"Success: LoRA adapter '{body.lora_name}' removed successfully."


async def _delete(request: Request, name: str) -> None:
    folder = service_of(request).adapters
    await asyncio.to_thread(folder.delete, name, missing_ok=may_be_done(request))


def _model(service: Service, name: str, adapter: bool = False) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": service.created,
        "owned_by": "geodapt",
        "root": service.settings.name,
        "parent": service.settings.name if adapter else None,
        "max_model_len": service.tokens.longest if service.tokens is not None else None,
    }


def _adapter(service: Service, served: ServedAdapter) -> dict[str, Any]:
    return {
        "name": served.name,
        "object": "adapter",
        "version": served.version,
        "loaded": served.loaded,
        "resident": served.version in service.engine.statistics().resident,
        "requests": served.requests,
        "rank": served.rank,
        "parameters": served.parameters,
    }
