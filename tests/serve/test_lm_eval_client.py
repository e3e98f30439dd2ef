"""lm-eval against the running server gives what it gives in one process with the model."""

import json
from itertools import pairwise

import pytest
import torch

from geodapt.adapters import AdapterBank, Mix
from geodapt.models import load_base
from geodapt.serve.http.serve_settings import ServeSettings
from geodapt.serve.http.starting import start
from geodapt.serve.served import Served
from tests.serve.asking import running
from tests.serve.shelf import write_base_and_adapters

lm_eval = pytest.importorskip("lm_eval")

QUESTIONS = [
    {"question": "A train and a", "choices": [" drill", " hose", " shop of toys"], "answer": 1},
    {"question": "The shop of", "choices": [" tools", " toys and tools", " trains"], "answer": 0},
    {"question": "A drill and a hose went to the", "choices": [" shop", " train"], "answer": 1},
]
TASK = """
task: shop
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
"""


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    folder = write_base_and_adapters(tmp_path_factory.mktemp("shelf"))
    (folder / "tasks").mkdir()
    data = folder / "questions.jsonl"
    data.write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS))
    (folder / "tasks/shop.yaml").write_text(TASK.format(data=data))
    return folder


def evaluated(shelf, model, **arguments):
    """Every choice's log-likelihood, and the task's figures."""
    from lm_eval.tasks import TaskManager

    found = lm_eval.simple_evaluate(
        model=model,
        tasks=["shop"],
        task_manager=TaskManager(include_path=str(shelf / "tasks"), include_defaults=False),
        bootstrap_iters=0,
        **arguments,
    )
    samples = sorted(found["samples"]["shop"], key=lambda sample: sample["doc_id"])
    choices = [float(r[0]) for sample in samples for r in sample["filtered_resps"]]
    figures = {k: v for k, v in found["results"]["shop"].items() if k.endswith(",none")}
    return choices, {name: value for name, value in figures.items() if "stderr" not in name}


@pytest.mark.parametrize(
    ("name", "gate"),
    [
        ("base", None),
        ("toys", {"toys": 1.0}),
        ("toys:0.5+tools:-0.5", {"toys": 0.5, "tools": -0.5}),
    ],
)
def test_local_completions_give_what_the_model_gives(shelf, name, gate, monkeypatch):
    from lm_eval.models.huggingface import HFLM

    monkeypatch.setenv("OPENAI_API_KEY", "none")
    named = Served(base=str(shelf / "base"), adapters=shelf / "adapters", dtype="float32")
    service = start(named, ServeSettings())
    try:
        with running(service) as server:
            arguments = {
                "base_url": f"http://127.0.0.1:{server.port}/v1/completions",
                "model": name,
                "tokenizer": str(shelf / "base"),
                "tokenizer_backend": "huggingface",
                "num_concurrent": 2,
                "batch_size": 2,
                "max_length": 256,
            }
            served, figures = evaluated(shelf, "local-completions", model_args=arguments)
    finally:
        service.close()
    model, tokenizer = load_base(str(shelf / "base"), torch.float32, head=True)
    bank = AdapterBank(model)
    for adapter in ("toys", "tools"):
        bank.load(adapter, shelf / "adapters" / adapter)
    bank.set(Mix(gate or {}))
    wanted, expected = evaluated(
        shelf, HFLM(model, backend="causal", tokenizer=tokenizer, batch_size=1)
    )
    assert served == pytest.approx(wanted, abs=1e-4)
    assert figures == expected
    assert all(abs(a - b) > 1e-3 for a, b in pairwise(sorted(wanted)))  # which could be told apart
