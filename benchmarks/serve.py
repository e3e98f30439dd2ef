"""The engine's row loop against one request at a time and against static batches.

24 requests, each with its own mixture of two of 24 adapters (rank 16, on q, k, v and o), prompts of
16 to 96 tokens and answers of 8 to 64, on a Llama of 6 layers. Tokens a second of processor time,
one thread, the sides in turn in one process; every side's answers are compared with those of one
request at a time. Prints JSON.

    python benchmarks/serve.py [--turns 3] [--width 512]
"""

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable

import adapters as peers
import torch

from geodapt.adapters import AdapterBank, Mix, Route
from geodapt.runs import device_name
from geodapt.serve.engine import Engine
from geodapt.serve.generation import EngineSettings, Generation, Sampling

REQUESTS, SLOTS = 24, 16
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
        route = Route([dict(each.gate.entries[0]) for each in part])  # type: ignore[union-attr]
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--width", type=int, default=512)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = peers.build(arguments.width, 6, 8, "cpu")
    model.generation_config.eos_token_id = None
    bank = AdapterBank(model)
    for name, adapter in peers.make_adapters(model, REQUESTS).items():
        bank.add(name, adapter)
    asked = requests()
    sides: dict[str, Callable[[], Answers]] = {
        "one at a time": lambda: batches(bank, asked, 1),
        "static 8": lambda: batches(bank, asked, 8),
        "static 16": lambda: batches(bank, asked, 16),
        "row loop 16": lambda: loop(bank, asked),
    }
    tokens = sum(each.sampling.max_new_tokens for each in asked)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    same: dict[str, int] = {}
    reference: Answers = []
    for _ in range(arguments.turns):
        for name, side in sides.items():
            start = time.process_time()
            answers = side()
            seconds[name].append(time.process_time() - start)
            reference = reference or answers
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
