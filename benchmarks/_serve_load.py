"""A server under load: its answers, its waits, its memory, and what a kill leaves.

Each function asks a server of its own for a while and gives what it found; ``serve.py --load`` runs
them for long, the tests for seconds.
"""

import json
import os
import random
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
from _killed_server import process, started
from _serving import (
    PROMPT,
    TOKENS,
    Client,
    Shelf,
    in_threads,
    long_stream,
    serving,
    wait_until,
)

from geodapt.serve.generation import Generation, Sampling
from geodapt.serve.http.service import Service

TURN = 5.0
"""Seconds of each turn where two ways are measured in turn."""


def quantiles(values: list[float]) -> dict[str, float]:
    """Median and 99th of a hundred, in milliseconds."""
    ordered = sorted(values)
    return {
        "p50_ms": round(1000 * statistics.median(ordered), 1),
        "p99_ms": round(1000 * ordered[min(int(0.99 * len(ordered)), len(ordered) - 1)], 1),
    }


def soak(
    shelf: Shelf,
    seconds: float,
    streams: int = 16,
    capacity: int = 32,
    changes: float = 10.0,
    least: int = 0,
) -> dict[str, Any]:
    """Streams that ask for adapters at random, while others come, change and go all the time.

    Every answer is compared with that computed apart; one under a name that changes must be that
    of a version that the name has had. It goes on until there are ``least`` answers and a quarter
    as many changes, however long that takes.
    """
    names, process, changers = shelf.names, psutil.Process(), 4  # a put takes its time
    counts = {"answers": 0, "wrong": 0, "failed": 0, "changes": 0}
    memory: list[tuple[float, float]] = []
    open_files: list[int] = []
    threads: list[int] = []
    lock, begun = threading.Lock(), time.monotonic()

    def count(name: str) -> None:
        with lock:
            counts[name] += 1

    def goes_on() -> bool:
        few = counts["answers"] < least or counts["changes"] < least // 4
        return time.monotonic() < begun + seconds or (few and not counts["failed"])

    with serving(shelf, capacity=capacity, most_loaded=2 * capacity) as (service, port):
        Client(port).ask("PUT", "/v1/adapters/mine", {"source": names[0]})

        def asking(number: int) -> None:
            draw, client = random.Random(number), Client(port)
            while goes_on():
                name = draw.choice([*names, "base", "mine"])
                status, text = client.complete(model=name)
                right = [names[0], names[1]] if name == "mine" else [name]
                count("answers" if status == 200 else "failed")
                if status == 200 and text not in [shelf.answers[n] for n in right]:
                    count("wrong")
            client.close()

        def changing(number: int) -> None:
            client, turn, due = Client(port), 0, time.monotonic()
            while goes_on():
                turn += 1
                method, spare = ("PUT", "PUT", "DELETE")[turn % 3], f"spare{number}"
                name, source = ("mine", names[turn % 2]) if turn % 3 == 0 else (spare, names[2])
                body = {"source": source} if method == "PUT" else None
                status, _ = client.ask(method, f"/v1/adapters/{name}", body)
                count("changes" if status == 200 else "failed")
                due += changers / changes
                time.sleep(max(0.0, due - time.monotonic()))
            client.close()

        def looking() -> None:
            while goes_on():
                memory.append((time.monotonic(), process.memory_info().rss / 2**20))
                open_files.append(process.num_fds())
                threads.append(process.num_threads())
                time.sleep(min(1.0, seconds / 20))

        jobs = [lambda n=n: asking(n) for n in range(streams)]
        jobs += [lambda n=n: changing(n) for n in range(changers)]
        in_threads(len(jobs) + 1, lambda n: [*jobs, looking][n]())
        wait_until(lambda: service.running == 0)
        left = leases_left(service, [*names[:50], "mine"])
        seconds = time.monotonic() - begun
    settled = memory[len(memory) // 3 :]
    slope = statistics.linear_regression(*zip(*settled, strict=True)).slope
    return counts | {
        "seconds": round(seconds, 1),
        "leases_left": left,
        "memory_mb_per_minute": round(60 * slope, 2),
        "descriptors": sorted({*open_files[len(open_files) // 3 :]}),
        "threads": sorted({*threads[len(threads) // 3 :]}),
    }


def overload(shelf: Shelf, seconds: float, times: float = 10.0, tokens: int = 64) -> dict[str, Any]:
    """Ten times the requests that can be answered: how many are, and how soon others are refused.

    The server is a process with a core of its own, who asks is one with another. What can be
    answered is what 32 clients get that ask again when they are answered: both in turn, so that a
    machine that is slower for a while is so for both.
    """
    cores = sorted(os.sched_getaffinity(0))
    script = Path(__file__).with_name("_pressing.py")

    turns = max(1, round(seconds / TURN))

    def pressed(rate: float) -> dict[str, Any]:
        begun = sum(server.cpu_times()[:2])
        command = [sys.executable, str(script), *map(str, (port, seconds / turns, tokens, rate))]
        with on_core(cores[-1]):
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        found = json.loads(done.stdout)
        found["server_seconds"] = sum(server.cpu_times()[:2]) - begun
        return found

    enough, much = [], []
    with ExitStack() as stack:
        with on_core(cores[0]):
            served = process(shelf, started, "--slots", "16", "--queue", "32")
            run, port, _ = stack.enter_context(served)
        server = psutil.Process(run.pid)
        Client(port).complete()  # so that what is made once is made
        for _ in range(turns):
            enough.append(pressed(-32))
            much.append(pressed(times * enough[-1]["whole"] / seconds * turns))

    def total(runs: list[dict[str, Any]], name: str) -> float:
        return sum(found[name] for found in runs)

    def a_second(runs: list[dict[str, Any]], name: str) -> float:
        return round(total(runs, name) / seconds, 2)

    ratios = [m["tokens"] / e["tokens"] for e, m in zip(enough, much, strict=True)]
    # Of processor time all that is answered counts: what waits at the end costs some, too.
    for found in [*enough, *much]:
        found["speed"] = found["tokens_later_too"] / found["server_seconds"]
    by_time = [m["speed"] / e["speed"] for e, m in zip(enough, much, strict=True)]
    refused = [time for found in much for time in found["refused"]]
    return {
        "asked_a_second": a_second(much, "asked"),
        "can_be_answered_a_second": a_second(enough, "whole"),
        "goodput": round(statistics.median(ratios), 3),
        "goodput_of_each_turn": [round(ratio, 3) for ratio in ratios],
        "goodput_by_processor_time": round(statistics.median(by_time), 3),
        "by_processor_time_of_each_turn": [round(ratio, 3) for ratio in by_time],
        "server_cores": [a_second(enough, "server_seconds"), a_second(much, "server_seconds")],
        "clients_cores": [a_second(enough, "cpu_seconds"), a_second(much, "cpu_seconds")],
        "refused": len(refused),
        "other": total([*much, *enough], "other") + sum(len(found["refused"]) for found in enough),
    } | {f"refusal_{name}": value for name, value in quantiles(refused).items()}


@contextmanager
def on_core(number: int) -> Iterator[None]:
    """What is started inside runs on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {number})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def latency(shelf: Shelf, seconds: float) -> dict[str, Any]:
    """One answer after the other, of the engine and over HTTP in turn: what HTTP adds to each.

    Who asks is in the server's process, so its own time is counted, too.
    """
    times: dict[str, list[float]] = {"engine": [], "http": []}
    with serving(shelf) as (service, port):
        client, prompt = Client(port), service.text_tokens.prompt(PROMPT)
        sampling = Sampling(TOKENS, temperature=0.0, ignore_eos=True)

        def engine() -> str:
            ticket: Any = service.engine.submit(Generation(prompt, sampling))
            return "".join(event.text for event in ticket)

        sides = {"engine": engine, "http": lambda: client.complete()[1]}
        end = time.monotonic() + seconds
        while not times["http"] or time.monotonic() < end:
            for name, side in sides.items():
                begun = time.perf_counter()
                text = side()
                times[name].append(time.perf_counter() - begun)
                assert text.strip() == shelf.answers["base"].strip()
        client.close()
    added = [b - a for a, b in zip(*times.values(), strict=True)]
    return {name: quantiles(each) for name, each in times.items()} | {"added": quantiles(added)}


def fairness(
    shelf: Shelf, seconds: float, clients: int = 12, capacity: int = 4, base_clients: int = 2
) -> dict[str, Any]:
    """Waits for the first token where few adapters are asked for often and many rarely (Zipf)."""
    names = shelf.names
    weights = [1 / rank for rank in range(1, len(names) + 1)]
    waits: dict[str, list[float]] = {"adapters": [], "base": []}
    with serving(shelf, capacity=capacity) as (_, port):
        for name in names:
            Client(port).complete(model=name, max_tokens=1)  # so that no file is read meanwhile
        end = time.monotonic() + seconds

        def asking(number: int) -> None:
            draw, client = random.Random(number), Client(port)
            base, answers = number < base_clients, 0
            while not answers or time.monotonic() < end:
                answers += 1
                name = "base" if base else draw.choices(names, weights)[0]
                waits["base" if base else "adapters"].append(client.arrivals(model=name)[0])
            client.close()

        in_threads(clients, asking)
    return {kind: {"answers": len(each)} | quantiles(each) for kind, each in waits.items()}


def slow_readers(shelf: Shelf, seconds: float, slow: int = 8) -> dict[str, Any]:
    """The gaps between a client's tokens beside others that read, and beside others that do not."""
    found: dict[str, Any] = {}
    for kind in ("reading", "not reading"):
        with serving(shelf, stalled=2.0, slots=2 * slow + 2) as (service, port):
            end, gaps = time.monotonic() + seconds, []

            def other(_: int, port: int = port, end: float = end, kind: str = kind) -> None:
                while time.monotonic() < end:
                    with long_stream(port, small=kind == "not reading") as connection:
                        if kind == "not reading":
                            time.sleep(max(0.0, min(5.0, end - time.monotonic())))
                            continue
                        rest = b""
                        while b"[DONE]" not in rest and time.monotonic() < end:
                            rest = rest[-20:] + connection.recv(65536)

            def watched(_: int, port: int = port, end: float = end, gaps: list = gaps) -> None:
                client = Client(port)
                while time.monotonic() < end:
                    times = client.arrivals(max_tokens=64)
                    gaps += [b - a for a, b in pairwise(times)]
                client.close()

            in_threads(slow + 1, lambda n: (other if n else watched)(n))
            wait_until(lambda service=service: service.running == 0)
        found[kind] = quantiles(gaps)
    return found


def disconnects(shelf: Shelf, times: int, together: int = 16) -> dict[str, Any]:
    """Clients that leave in the middle of a stream: how long their rows stay, and what is held."""
    with serving(shelf) as (service, port):

        def leaving(number: int) -> None:
            for turn in range(times // together):
                name = shelf.names[(number + turn) % len(shelf.names)]
                Client(port).leave(model=name, max_tokens=4000)

        in_threads(together, leaving)
        begun = time.monotonic()
        wait_until(lambda: service.engine.statistics().running == 0)
        seconds = time.monotonic() - begun
        wait_until(lambda: service.running == 0)
        held = leases_left(service, shelf.names)
        cancelled = service.engine.statistics().cancelled
        status, text = Client(port).complete()
    assert (status, text) == (200, shelf.answers["base"])
    return {
        "times": times,
        "cancelled": cancelled,
        "last_row_gone_ms": round(1000 * seconds),
        "leases_left": held,
    }


def leases_left(service: Service, names: list[str]) -> int:
    """Uses of adapters that remain when every request has ended: a row ends a step later."""

    def left() -> int:
        return sum(service.adapters.served(name).requests for name in names)

    with suppress(TimeoutError):
        wait_until(lambda: left() == 0)
    return left()
