"""A server under load: its answers, its waits, its memory, and what a kill leaves.

Each function asks a server of its own for a while and gives what it found; ``serve.py --load`` runs
them for long, the tests for seconds.
"""

import asyncio
import http.client
import json
import random
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from geodapt.adapters import AdapterBank, Route
from geodapt.serve.http.serve_settings import ServeSettings
from geodapt.serve.http.server import listen, make_server
from geodapt.serve.http.service import Service
from geodapt.serve.http.starting import start
from geodapt.serve.loading import Served

WORDS, TOKENS, PROMPT = 120, 12, "w1 w2 w3"
JSON = {"Content-Type": "application/json"}
ASKED = {"prompt": PROMPT, "max_tokens": TOKENS, "temperature": 0, "ignore_eos": True}


@dataclass
class Shelf:
    """A small base and adapters in folders, and their answers to the prompt, computed apart."""

    base: Path
    adapters: Path
    answers: dict[str, str]
    """By adapter; the base's is that of ``base``."""

    @property
    def names(self) -> list[str]:
        return [name for name in self.answers if name != "base"]


@torch.no_grad()
def make_shelf(folder: Path, count: int) -> Shelf:
    """A Llama of two layers whose every adapter answers in words of its own."""
    torch.manual_seed(0)
    vocabulary = {"[UNK]": 0, "</s>": 1} | {f"w{n}": n + 2 for n in range(WORDS)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="[UNK]", eos_token="</s>", pad_token="</s>"
    )
    config = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=512, initializer_range=0.3,
        pad_token_id=1, bos_token_id=None, eos_token_id=1,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval().requires_grad_(False)
    model.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    model.generation_config.eos_token_id = None  # requests ignore it, too
    bank, names = AdapterBank(model), [f"n{number}" for number in range(count)]
    for name in names:
        bank.create(name, rank=4, targets=["q_proj", "v_proj"])
        for parameter in bank.parameters_of(name):
            torch.nn.init.normal_(parameter, std=0.3)
        bank.save(name, folder / "adapters" / name)
    ids = tokenizer(PROMPT, return_tensors="pt").input_ids
    answers = {}
    for begin in range(0, count + 1, 32):
        rows = [None, *names][begin : begin + 32]
        with bank.use(Route(rows)):
            out = model.generate(
                ids.expand(len(rows), -1), attention_mask=torch.ones(len(rows), ids.shape[1]),
                max_new_tokens=TOKENS, do_sample=False,
            )  # fmt: skip
        for name, row in zip(rows, out[:, ids.shape[1] :], strict=True):
            answers[name or "base"] = tokenizer.decode(row, skip_special_tokens=True)
    bank.close()
    return Shelf(folder / "base", folder / "adapters", answers)


@contextmanager
def answering(service: Service) -> Iterator[int]:
    """The port of a service's server, which runs in threads of this process."""
    listening = listen("127.0.0.1", 0)
    server = make_server(service)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])))
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()
        service.close()


@contextmanager
def serving(shelf: Shelf, stalled: float = 30.0, **named: Any) -> Iterator[tuple[Service, int]]:
    """A server of a shelf, and its port."""
    served = Served(base=str(shelf.base), adapters=shelf.adapters, dtype="float32", **named)
    service = start(served, ServeSettings(stalled_seconds=stalled))
    with answering(service) as port:
        yield service, port


class Client:
    """A connection that stays open."""

    def __init__(self, port: int, timeout: float = 60.0) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        content = None if body is None else json.dumps(body)
        self._connection.request(method, path, content, JSON)
        response = self._connection.getresponse()
        return response.status, response.read()

    def complete(self, **body: Any) -> tuple[int, str]:
        """The status and the text."""
        status, content = self.ask("POST", "/v1/completions", ASKED | body)
        return status, json.loads(content)["choices"][0]["text"] if status == 200 else ""

    def leave(self, **body: Any) -> None:
        """Ask for a stream, take one byte of it, and go."""
        self._connection.request(
            "POST", "/v1/completions", json.dumps(ASKED | {"stream": True} | body), JSON
        )
        self._connection.getresponse().read(1)
        self.close()

    def arrivals(self, **body: Any) -> list[float]:
        """Seconds from a request to each event of its stream."""
        begun, times = time.perf_counter(), []
        content = json.dumps(ASKED | {"stream": True} | body)
        self._connection.request("POST", "/v1/completions", content, JSON)
        with self._connection.getresponse() as response:
            for line in response:
                if line.startswith(b"data: {"):
                    times.append(time.perf_counter() - begun)
        return times

    def close(self) -> None:
        self._connection.close()


def in_threads(count: int, work: Callable[[int], None]) -> None:
    """Do the work in so many threads; the first error is raised."""
    errors: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def quantiles(values: list[float]) -> dict[str, float]:
    """Median and 99th of a hundred, in milliseconds."""
    ordered = sorted(values)
    return {
        "p50_ms": round(1000 * statistics.median(ordered), 1),
        "p99_ms": round(1000 * ordered[min(int(0.99 * len(ordered)), len(ordered) - 1)], 1),
    }


def soak(
    shelf: Shelf, seconds: float, streams: int = 16, capacity: int = 32, changes: float = 10.0
) -> dict[str, Any]:
    """Streams that ask for adapters at random, while others come, change and go all the time.

    Every answer is compared with that computed apart; one under a name that changes must be that
    of a version that the name has had.
    """
    names, process = shelf.names, psutil.Process()
    counts = {"answers": 0, "wrong": 0, "failed": 0, "changes": 0}
    memory: list[tuple[float, float]] = []
    open_files: list[int] = []
    threads: list[int] = []
    lock, end = threading.Lock(), time.monotonic() + seconds

    def count(name: str) -> None:
        with lock:
            counts[name] += 1

    with serving(shelf, capacity=capacity, most_loaded=2 * capacity) as (service, port):
        Client(port).ask("PUT", "/v1/adapters/mine", {"source": names[0]})

        def asking(number: int) -> None:
            draw, client = random.Random(number), Client(port)
            while time.monotonic() < end:
                name = draw.choice([*names, "base", "mine"])
                status, text = client.complete(model=name)
                right = [names[0], names[1]] if name == "mine" else [name]
                count("answers" if status == 200 else "failed")
                if status == 200 and text not in [shelf.answers[n] for n in right]:
                    count("wrong")
            client.close()

        def changing() -> None:
            client, turn = Client(port), 0
            while time.monotonic() < end:
                turn += 1
                method = ("PUT", "PUT", "DELETE")[turn % 3]
                name, source = ("mine", names[turn % 2]) if turn % 3 == 0 else ("spare", names[2])
                body = {"source": source} if method == "PUT" else None
                status, _ = client.ask(method, f"/v1/adapters/{name}", body)
                count("changes" if status < 500 else "failed")
                time.sleep(1 / changes)
            client.close()

        def looking() -> None:
            while time.monotonic() < end:
                memory.append((time.monotonic(), process.memory_info().rss / 2**20))
                open_files.append(process.num_fds())
                threads.append(process.num_threads())
                time.sleep(min(1.0, seconds / 20))

        jobs = [lambda n=n: asking(n) for n in range(streams)]
        in_threads(streams + 2, lambda n: [*jobs, changing, looking][n]())
        wait_until(lambda: service.running == 0)
        left = leases_left(service, names[:50])
    settled = memory[len(memory) // 3 :]
    slope = statistics.linear_regression(*zip(*settled, strict=True)).slope
    return counts | {
        "seconds": seconds,
        "leases_left": left,
        "memory_mb_per_minute": round(60 * slope, 2),
        "descriptors": sorted({*open_files[len(open_files) // 3 :]}),
        "threads": sorted({*threads[len(threads) // 3 :]}),
    }


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
            base = number < base_clients
            while time.monotonic() < end:
                name = "base" if base else draw.choices(names, weights)[0]
                waits["base" if base else "adapters"].append(client.arrivals(model=name)[0])
            client.close()

        in_threads(clients, asking)
    return {kind: {"answers": len(each)} | quantiles(each) for kind, each in waits.items()}


def slow_readers(shelf: Shelf, seconds: float, slow: int = 8) -> dict[str, Any]:
    """The gaps between a client's tokens beside others that read, and beside others that do not."""
    body = json.dumps(
        {"prompt": PROMPT, "max_tokens": 400, "n": 2, "logprobs": 20, "stream": True,
         "ignore_eos": True}
    )  # fmt: skip
    head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()
    found: dict[str, Any] = {}
    for kind in ("reading", "not reading"):
        with serving(shelf, stalled=2.0, slots=2 * slow + 2) as (service, port):
            end, gaps = time.monotonic() + seconds, []

            def other(_: int, port: int = port, end: float = end, kind: str = kind) -> None:
                while time.monotonic() < end:
                    with socket.socket() as connection:
                        if kind == "not reading":
                            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                        connection.settimeout(30)
                        connection.connect(("127.0.0.1", port))
                        connection.sendall(request)
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
                Client(port).leave(model=name, max_tokens=400)

        in_threads(together, leaving)
        begun = time.monotonic()
        wait_until(lambda: service.engine.statistics().running == 0)
        seconds = time.monotonic() - begun
        wait_until(lambda: service.running == 0)
        leases = leases_left(service, shelf.names)
        cancelled = service.engine.statistics().cancelled
        status, text = Client(port).complete()
    assert (status, text) == (200, shelf.answers["base"])
    return {
        "times": times,
        "cancelled": cancelled,
        "last_row_gone_ms": round(1000 * seconds),
        "leases_left": leases,
    }


def leases_left(service: Service, names: list[str]) -> int:
    """What is still held a minute after the last request; a lease ends a moment after its own."""

    def held() -> int:
        return sum(service.adapters.served(name).requests for name in names)

    with suppress(TimeoutError):
        wait_until(lambda: held() == 0)
    return held()


def wait_until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    """Raises :class:`TimeoutError` where it does not come to hold."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.005)
