"""Requests made from the server's own schema."""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings

from geodapt.serve.http.app import build_routes
from tests.serve.asking import make_service
from tests.serve.steady import SteadyEngine


@pytest.mark.slow
def test_no_request_of_the_schema_makes_the_server_fail(adapters, tokenizer):
    """Some hundred requests, right ones and wrong ones."""
    folder, bank = adapters
    engine = SteadyEngine(tokenizer.decode, pause=0.0005)
    service = make_service(engine, bank, tokenizer, folder, most_answers=8)
    app = build_routes(service)
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    seen = []

    def check(case):
        answer = case.call()
        seen.append(answer.status_code)
        assert answer.status_code < 500, (case.method, case.path, answer.content)
        if answer.status_code >= 400:
            assert set(answer.json()["error"]) == {"message", "type", "param", "code"}

    bounded = settings(
        max_examples=12,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    try:
        for found in schema.get_all_operations():
            cases = found.ok().as_strategy()
            seed(0)(bounded(given(case=cases)(check)))()
    finally:
        engine.close()
    assert len(seen) > 150
    assert {200, 400, 404} <= set(seen)
