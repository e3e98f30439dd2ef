"""Requests made from the server's own schema."""

from types import SimpleNamespace

import pytest
import schemathesis
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings

from geodapt.radial import RadialModel
from geodapt.serve.http.app import build_routes
from geodapt.serve.scoring import Scoring, own_thread
from tests.radial.small import save_dual
from tests.serve.asking import make_service
from tests.serve.steady import SteadyEngine


class Ranker:
    """In place of an X-Cross, whose own tests have a real one."""

    settings = SimpleNamespace(labels=["good", "bad"])

    def rank(self, history, candidates):
        return [float(len(text)) for text in candidates]

    def label_probabilities(self, texts):
        return torch.full((len(texts), 2), 0.5)


@pytest.mark.slow
def test_no_request_of_the_schema_makes_the_server_fail(adapters, tokenizer, tmp_path):
    """Some hundred requests, right ones and wrong ones."""
    folder, bank = adapters
    engine = SteadyEngine(tokenizer.decode, pause=0.0005)
    service = make_service(engine, bank, tokenizer, folder, most_answers=8)
    encoder = RadialModel.load(str(save_dual(tmp_path / "clip", "clip"))).eval()
    service.scoring = Scoring(own_thread(), Ranker(), Ranker(), encoder)
    app = build_routes(service)
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    seen, answered = [], set()

    def check(case):
        answer = case.call()
        seen.append(answer.status_code)
        if answer.status_code == 200:
            answered.add(case.path)
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
    scores = {"/v1/embeddings", "/v1/rerank", "/rerank", "/classify", "/predict"}
    assert scores <= answered  # each has come as far as its model
