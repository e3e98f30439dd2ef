"""The engine's row loop against one request at a time, static batches and transformers' batching.

24 requests, each with its own mixture of two of 24 adapters (rank 16, on q, k, v and o), prompts of
16 to 96 tokens and answers of 8 to 64, on a Llama of 6 layers. Tokens a second of processor time,
one thread, the sides in turn in one process; every side's answers are compared with those of one
request at a time. transformers' continuous batching knows no adapters: there the same base answers
without any, which is less work, and so does the row loop once more. Prints JSON.

    python benchmarks/serve.py [--turns 3] [--width 512]
    python benchmarks/serve.py --load SECONDS [--only overload]
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import adapters as peers
import torch
from _continuous_batching import continuous_batches
from _killed_server import kills
from _serve_load import disconnects, fairness, latency, overload, slow_readers, soak
from _serving import Shelf, answering, make_shelf
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from geodapt.adapters import AdapterBank, Mix, Route
from geodapt.runs import device_name
from geodapt.serve.engine import Engine
from geodapt.serve.generation import EngineSettings, Generation, Sampling
from geodapt.serve.http.metrics import ServerMetrics
from geodapt.serve.http.serve_settings import ServeSettings
from geodapt.serve.http.service import Service
from geodapt.serve.text_tokens import TextTokens

REQUESTS, SLOTS, VOCABULARY = 24, 16, 32000
Answers = list[list[int]]


def requests() -> list[Generation]:
    """The same for every side."""
    draw, asked = random.Random(0), []
    for i in range(REQUESTS):
        prompt = tuple(draw.randrange(3, 32000) for _ in range(draw.randint(16, 96)))
        gate = Mix({f"n{i}": draw.uniform(0.3, 0.7), f"n{(i + 7) % REQUESTS}": 0.3})
        sampling = Sampling(draw.randint(8, 64), temperature=0.0, ignore_eos=True)
        asked.append(Generation(prompt, sampling, gate))
    return asked


def batches(bank: AdapterBank, asked: list[Generation], size: int) -> Answers:
    """``generate`` on so many requests at a time, until the longest answer is there."""
    answers: Answers = []
    for start in range(0, len(asked), size):
        part = asked[start : start + size]
        longest = max(len(each.prompt) for each in part)
        ids = torch.zeros(len(part), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for i, each in enumerate(part):
            ids[i, longest - len(each.prompt) :] = torch.tensor(each.prompt)
            mask[i, longest - len(each.prompt) :] = 1
        most = max(each.sampling.max_new_tokens for each in part)
        route = Route([dict(each.gate.entries[0]) if each.gate else None for each in part])
        with bank.use(route), torch.inference_mode():
            out = bank.model.generate(
                ids,
                attention_mask=mask,
                min_new_tokens=most,
                max_new_tokens=most,
                do_sample=False,
                pad_token_id=0,
            )
        for i, each in enumerate(part):
            answers.append(out[i, longest:][: each.sampling.max_new_tokens].tolist())
    return answers


def loop(bank: AdapterBank, asked: list[Generation]) -> Answers:
    """The engine, all requests at once."""
    with Engine(bank.model, bank=bank, settings=EngineSettings(slots=SLOTS)) as engine:
        tickets = [engine.submit(each) for each in asked]
        return [[e.token for e in ticket if e.token is not None] for ticket in tickets]


class Resident:
    """The bank's adapters, as a server's folder of them."""

    def __init__(self, names: list[str]) -> None:
        self.versions = {name: name for name in names}

    def is_loaded(self, names: list[str]) -> bool:
        return True

    def lease(self, names: list[str]) -> "Resident":
        return self

    def release(self) -> None:
        pass


def over_http(bank: AdapterBank, asked: list[Generation]) -> Answers:
    """The engine behind the server; who asks is a process of its own."""
    words = Tokenizer(models.WordLevel({f"w{n}": n for n in range(VOCABULARY)}, unk_token="w0"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0", bos_token="w1")
    bodies = [
        {
            "prompt": list(each.prompt),
            "adapters": dict(each.gate.entries[0]),
            "max_tokens": each.sampling.max_new_tokens,
            "temperature": 0,
            "ignore_eos": True,
        }
        for each in asked
    ]
    with Engine(bank.model, tokenizer, bank, EngineSettings(slots=SLOTS)) as engine:
        folder: Any = Resident(list(bank.names))
        tokens, metrics = TextTokens(tokenizer, VOCABULARY, None), ServerMetrics(engine.statistics)
        service = Service(ServeSettings(), engine, folder, tokens, metrics)
        command = [sys.executable, str(Path(__file__).with_name("_asking.py"))]
        with answering(service) as port:
            done = subprocess.run(
                [*command, str(port)],
                input=json.dumps(bodies),
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
    texts = [answer["choices"][0]["text"] for answer in json.loads(done.stdout)]
    return [[int(word[1:]) for word in text.split()] for text in texts]


ADAPTERS = {"soak": 1000, "disconnects": 1000}
"""Adapters of the shelf, 64 for the other ways of asking."""


def under_load(seconds: float, times: int, only: str | None) -> dict[str, Any]:
    """Each way of asking, or one of them, for so long; so many kills with a start after each."""
    ways: dict[str, Callable[[Shelf], Any]] = {
        "soak": lambda shelf: soak(shelf, seconds),
        "disconnects": lambda shelf: disconnects(shelf, 1000),
        "fairness": lambda shelf: fairness(shelf, seconds),
        "overload": lambda shelf: overload(shelf, seconds),
        "latency": lambda shelf: latency(shelf, seconds),
        "slow readers": lambda shelf: slow_readers(shelf, seconds / 2),
        "kills": lambda shelf: kills(shelf, times),
    }
    chosen = [only] if only else list(ways)
    with TemporaryDirectory() as folder:
        shelf = make_shelf(Path(folder), max(ADAPTERS.get(name, 64) for name in chosen))
        few = Shelf(shelf.base, shelf.adapters, dict(list(shelf.answers.items())[:65]))
        return {name: ways[name](shelf if name in ADAPTERS else few) for name in chosen}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--load", type=float, metavar="SECONDS")
    parser.add_argument("--only", help="one way of --load: soak, overload, kills, ...")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--width", type=int, default=512)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.load is not None:
        rows: Any = under_load(arguments.load, arguments.kills, arguments.only)
        print(json.dumps({"device": device_name(), "rows": rows}, indent=1))
        return
    model = peers.build(arguments.width, 6, 8, "cpu")
    model.generation_config.eos_token_id = None
    bank = AdapterBank(model)
    for name, adapter in peers.make_adapters(model, REQUESTS).items():
        bank.add(name, adapter)
    asked = requests()
    plain, alone = peers.build(arguments.width, 6, 8, "cpu"), [replace(e, gate=None) for e in asked]
    sides: dict[str, Callable[[], Answers]] = {
        "one at a time": lambda: batches(bank, asked, 1),
        "static 8": lambda: batches(bank, asked, 8),
        "static 16": lambda: batches(bank, asked, 16),
        "row loop 16": lambda: loop(bank, asked),
        "HTTP 16": lambda: over_http(bank, asked),
        "row loop 16, base alone": lambda: loop(bank, alone),
        "transformers 16, base alone": lambda: continuous_batches(plain, alone, SLOTS),
    }
    tokens = sum(each.sampling.max_new_tokens for each in asked)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    same: dict[str, int] = {}
    references: dict[bool, Answers] = {}
    for _ in range(arguments.turns):
        for name, side in sides.items():
            start = time.process_time()
            answers = side()
            seconds[name].append(time.process_time() - start)
            if not references:
                references[False] = batches(bank, alone, 1)
            reference = references.setdefault(not name.endswith("base alone"), answers)
            same[name] = sum(a == b for a, b in zip(answers, reference, strict=True))
    rates = {name: tokens / statistics.median(each) for name, each in seconds.items()}
    rows = {
        name: {
            "tokens_per_cpu_second": round(rate, 1),
            "row_loop_to_this": round(rates["row loop 16"] / rate, 3),
            "answers_as_alone": f"{same[name]} of {REQUESTS}",
        }
        for name, rate in rates.items()
    }
    print(json.dumps({"device": device_name(), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
