"""A small base with adapters whose answers are known, a server of them, and those who ask it."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from geodapt.adapters import AdapterBank, Route
from geodapt.serve.http.serve_settings import ServeSettings, listen
from geodapt.serve.http.server import make_server
from geodapt.serve.http.service import Service
from geodapt.serve.http.starting import start
from geodapt.serve.served import Served

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
        num_attention_heads=4, max_position_embeddings=4096, initializer_range=0.3,
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
def answering(service: Service, buffer: int | None = None) -> Iterator[int]:
    """The port of a service's server, which runs in threads of this process.

    ``buffer``: bytes that the system takes for a reader that is slow, where it is not to choose.
    """
    listening = listen("127.0.0.1", 0)
    if buffer is not None:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
    server = make_server(service)
    thread = threading.Thread(target=server.run, args=([listening],))
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
def serving(
    shelf: Shelf, stalled: float = 30.0, buffer: int | None = None, **named: Any
) -> Iterator[tuple[Service, int]]:
    """A server of a shelf, and its port."""
    served = Served(base=str(shelf.base), adapters=shelf.adapters, dtype="float32", **named)
    service = start(served, ServeSettings(stalled_seconds=stalled))
    with answering(service, buffer) as port:
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


def long_stream(port: int, small: bool = False) -> socket.socket:
    """A connection that has asked for a megabyte of events, if so with room for few of them."""
    asked = {"prompt": PROMPT, "max_tokens": 400, "n": 2, "logprobs": 20, "stream": True}
    body = json.dumps(asked | {"ignore_eos": True})
    head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    connection = socket.socket()
    if small:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(60)
    connection.connect(("127.0.0.1", port))
    connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
    return connection


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


def wait_until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    """Raises :class:`TimeoutError` where it does not come to hold."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.005)
