"""``/v1/completions`` and ``/v1/chat/completions``."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from geodapt.errors import InputError
from geodapt.serve.generation import Event, Generation, Sampling
from geodapt.serve.http.answers import Answers, ClientGone, while_connected
from geodapt.serve.http.api_errors import ApiError
from geodapt.serve.http.event_stream import EventStream
from geodapt.serve.http.openai_shapes import AnswerSoFar, Kind, Shapes
from geodapt.serve.http.service import Service, service_of
from geodapt.serve.http.tracing import engine_stages
from geodapt.serve.protocol import ChatBody, CompletionBody, SamplingBody

router = APIRouter(tags=["text"])
TEXT_TOKENS, CHAT_TOKENS = 16, 256
"""Tokens of an answer where a request does not say how many."""
SHORT = 20_000
"""Characters that are made into tokens without a thread of their own."""


@router.post("/v1/completions")
async def complete(body: CompletionBody, request: Request) -> Response:
    """Go on with a text under a gate."""
    service = service_of(request)
    texts = body.prompts
    if sum(map(len, texts)) < SHORT:
        prompts = [service.text_tokens.prompt(text) for text in texts]
    else:
        prompts = await asyncio.to_thread(lambda: [service.text_tokens.prompt(t) for t in texts])
    most = TEXT_TOKENS if body.max_tokens is None else body.max_tokens
    sampling = _samplings(service, body, prompts, most, body.max_tokens is None, body.logprobs)
    return await _answer(
        service, request, body, prompts, sampling, bool(body.echo), body.logprobs is not None
    )


@router.post("/v1/chat/completions")
async def chat(body: ChatBody, request: Request) -> Response:
    """Answer in a conversation, by the chat template that the base brings."""
    service = service_of(request)
    messages = [{"role": message.role, "content": message.text} for message in body.messages]
    prompt = tuple(await asyncio.to_thread(service.text_tokens.chat, messages))
    if not prompt:
        raise InputError("messages: the chat template makes no tokens of them")
    asked = body.max_completion_tokens if body.max_tokens is None else body.max_tokens
    most = CHAT_TOKENS if asked is None else asked
    alternatives = (body.top_logprobs or 0) if body.logprobs else None
    sampling = _samplings(service, body, [prompt], most, asked is None, alternatives)
    return await _answer(service, request, body, [prompt], sampling, False, bool(body.logprobs))


def _samplings(
    service: Service,
    body: SamplingBody,
    prompts: Sequence[tuple[int, ...]],
    most: int,
    shorten: bool,
    logprobs: int | None,
) -> list[Sampling]:
    """How each answer's tokens are chosen: ``n`` for each prompt in turn."""
    count, longest = body.n or 1, service.text_tokens.longest
    if len(prompts) * count > service.settings.most_answers:
        raise InputError(
            f"n: the request asks for {len(prompts) * count} answers; up to "
            f"{service.settings.most_answers} are given at once"
        )
    found = []
    for prompt in prompts:
        room = longest - len(prompt) if longest is not None else None
        if room is not None and ((room < most and not shorten) or room < 0):
            raise ApiError(
                400,
                f"the model reads {longest:,} tokens; the prompt has {len(prompt):,}, and {most:,} "
                "are to follow",
                "context_length_exceeded",
                "max_tokens",
            )
        tokens = most if room is None else min(most, room)
        for number in range(count):
            seed = None if body.seed is None else (body.seed + number) % 2**63
            found.append(body.sampling(tokens, seed, logprobs))
    return found


async def _answer(
    service: Service,
    request: Request,
    body: SamplingBody,
    prompts: Sequence[tuple[int, ...]],
    samplings: Sequence[Sampling],
    echo: bool,
    logprobs: bool,
) -> Response:
    """Ask the engine, and answer whole or as a stream."""
    asked = body.requested(service.base_names)
    names, adapters = list(asked.weights), service.adapters
    if adapters.is_loaded(names):
        lease = adapters.lease(names)
    else:
        lease = await asyncio.to_thread(adapters.lease, names)
    try:
        gate = asked.gate(lease.versions)
        each = len(samplings) // len(prompts)
        generations = [
            Generation(prompts[number // each], sampling, gate, echo)
            for number, sampling in enumerate(samplings)
        ]
        model = body.model or service.settings.name
        stages = engine_stages(service.tracing, request.scope, model, generations)
        answers = Answers(generations, lease, stages, whole=not body.stream)
    except BaseException:
        lease.release()
        raise
    answers.submit(service.engine)
    kind: Kind = "chat" if isinstance(body, ChatBody) else "text"
    shapes = Shapes(kind, model, service.text_tokens, logprobs, len(prompts))
    watch, limits = _Watch(service), service.settings
    if body.stream:
        usage = body.stream_options is not None and body.stream_options.include_usage
        events = _stream(answers, shapes, usage, watch)
        return EventStream(events, answers, limits.stalled_seconds, limits.request_seconds)
    try:
        work = _whole(answers, shapes, watch)
        return JSONResponse(await while_connected(request.receive, work, limits.request_seconds))
    except ClientGone:
        return Response(status_code=499)  # which nobody reads
    except TimeoutError:
        raise ApiError(408, "the answer took too long", "timeout") from None
    finally:
        answers.cancel()


class _Watch:
    """Notes how long an answer took to begin and to end."""

    def __init__(self, service: Service) -> None:
        self.service, self.start, self.first = service, time.perf_counter(), 0.0

    def token(self) -> None:
        if not self.first:
            self.first = time.perf_counter() - self.start
            self.service.metrics.first_token.observe(self.first)

    def end(self) -> None:
        self.service.recent.append((self.first, time.perf_counter() - self.start))


async def _whole(answers: Answers, shapes: Shapes, watch: _Watch) -> dict[str, Any]:
    choices = [AnswerSoFar() for _ in answers.generations]
    async for events in answers.each():
        watch.token()
        for number, event in events:
            _check(event)
            choices[number].add(event)
    watch.end()
    return shapes.whole(choices)


async def _stream(
    answers: Answers, shapes: Shapes, usage: bool, watch: _Watch
) -> AsyncIterator[dict[str, Any]]:
    choices = [AnswerSoFar() for _ in answers.generations]
    begun = [False] * len(choices)
    async for events in answers.each():
        watch.token()
        for number, event in events:
            _check(event)
            choice = choices[number]
            if event.finish is not None:
                choice.last = event
            if event.text or event.finish or (shapes.logprobs and event.token is not None):
                yield shapes.chunk(number, choice, event, not begun[number])
                begun[number] = True
    watch.end()
    if usage:
        yield shapes.usage_chunk(choices)


def _check(event: Event) -> None:
    if event.finish == "error":
        raise ApiError(500, event.error or "the engine failed at this request", "engine")
    if event.finish == "cancelled":
        raise ApiError(503, "the server stopped before the answer was whole", "cancelled")
