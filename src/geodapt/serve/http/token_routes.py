"""``/tokenize``, ``/detokenize`` and ``/tokenizer_info``, as vLLM has them."""

import asyncio
from typing import Any

from fastapi import APIRouter, Request

from geodapt.serve.http.service import service_of
from geodapt.serve.protocol import DetokenizeBody, TokenizeBody

router = APIRouter(tags=["tokens"])


@router.post("/tokenize")
async def tokenize(body: TokenizeBody, request: Request) -> dict[str, Any]:
    """The tokens of a text, or of a conversation."""
    tokens = service_of(request).text_tokens

    def made() -> list[int]:
        if body.prompt is not None:
            return tokens.encode(body.prompt, body.add_special_tokens)
        messages = [{"role": m.role, "content": m.text} for m in body.messages or ()]
        return tokens.chat(messages, body.add_generation_prompt)

    found = await asyncio.to_thread(made)
    names = [tokens.name(token) for token in found] if body.return_token_strs else None
    return {
        "tokens": found,
        "count": len(found),
        "max_model_len": tokens.longest,
        "token_strs": names,
    }


@router.post("/detokenize")
async def detokenize(body: DetokenizeBody, request: Request) -> dict[str, str]:
    """The text of tokens."""
    return {"prompt": await asyncio.to_thread(service_of(request).text_tokens.decode, body.tokens)}


@router.get("/tokenizer_info")
async def tokenizer_info(request: Request) -> dict[str, Any]:
    """What a client that counts tokens has to know of the tokenizer."""
    return service_of(request).text_tokens.described()
