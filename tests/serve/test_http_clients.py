"""OpenAI's client, which people really use."""

import pytest
from openai import APIError, AuthenticationError, BadRequestError, NotFoundError, OpenAI

from tests.serve.asking import ADMIN, KEY


def client(served, key=KEY):
    return OpenAI(base_url=f"http://127.0.0.1:{served.port}/v1", api_key=key, max_retries=0)


def test_openais_client_asks_streams_and_raises_its_own_errors(serve, engine):
    with serve(api_keys=[KEY], admin_keys=[ADMIN]) as served:
        asked = client(served)
        assert [model.id for model in asked.models.list()] == ["base", "tools", "toys"]
        whole = asked.completions.create(
            model="toys:0.5+tools:0.5", prompt="A hose", max_tokens=5, logprobs=2
        )
        stream = asked.completions.create(
            model="base", prompt="A hose", max_tokens=5, stream=True,
            extra_body={"adapters": {"toys": 0.5, "tools": 0.5}},
        )  # fmt: skip
        assert "".join(part.choices[0].text for part in stream) == whole.choices[0].text
        assert len(whole.choices[0].logprobs.tokens) == 5
        messages = [{"role": "user", "content": "A hose"}]
        reply = asked.chat.completions.create(
            model="toys", messages=messages, max_tokens=3, logprobs=True, top_logprobs=1
        )
        parts = list(asked.chat.completions.create(
            model="toys", messages=messages, max_tokens=3, stream=True,
            stream_options={"include_usage": True},
        ))  # fmt: skip
        said = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
        assert said == reply.choices[0].message.content
        assert parts[-1].usage == reply.usage
        with pytest.raises(AuthenticationError):
            client(served, "wrong-key").models.list()
        with pytest.raises(NotFoundError):
            asked.completions.create(model="nobody", prompt="a")
        with pytest.raises(BadRequestError, match="temperature"):
            asked.completions.create(model="base", prompt="a", temperature=-1)


def test_openais_client_raises_what_fails_within_a_stream(serve, engine):
    engine.pause = 0.05
    with serve() as served:
        stream = client(served).completions.create(
            model="base", prompt="a", max_tokens=200, stream=True
        )
        next(stream)
        engine.rows[0].end("error")
        with pytest.raises(APIError):
            list(stream)
