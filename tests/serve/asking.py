"""A server of the test's own, in a thread, and plain HTTP to it."""

import http.client
import json
import socket
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass

from geodapt.serve.adapter_folder import AdapterFolder
from geodapt.serve.http.metrics import ServerMetrics
from geodapt.serve.http.serve_settings import ServeSettings, listen
from geodapt.serve.http.server import Server, make_server
from geodapt.serve.http.service import Service
from geodapt.serve.text_tokens import TextTokens

KEY, ADMIN = "a-key-for-everybody", "a-key-for-the-admin"


@dataclass
class Answer:
    status: int
    headers: dict
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def events(self):
        """What stands in the data lines of a stream."""
        lines = self.body.decode().split("\n\n")
        return [line.removeprefix("data: ") for line in lines if line]


@dataclass
class Served:
    service: Service
    port: int
    host: str = "127.0.0.1"
    server: Server | None = None

    @property
    def connections(self):
        """Those that the server holds open."""
        return self.server.server_state.connections

    def ask(self, method, path, body=None, headers=None, timeout=120):
        """One request; a body that is not bytes is sent as JSON."""
        content = None
        sent = {"Host": f"{self.host}:{self.port}"}
        if body is not None:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            sent["Content-Type"] = "application/json"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, content, sent | (headers or {}))
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())
        finally:
            connection.close()

    def complete(self, timeout=120, **body):
        return self.ask("POST", "/v1/completions", {"prompt": "A hose"} | body, timeout=timeout)

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=120)

    def raw(self, content):
        """What comes back for these bytes until the server closes."""
        with self.connect() as connection:
            connection.sendall(content)
            return read_all(connection)


def read_all(connection):
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


def eventually(holds, seconds=60.0):
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come to hold"
        time.sleep(0.005)


def make_service(engine, bank, tokenizer, folder, **settings):
    return Service(
        ServeSettings(**settings),
        engine,
        AdapterFolder(folder, bank),
        TextTokens(tokenizer, len(tokenizer), 256),
        ServerMetrics(engine.statistics),
    )


def streamed(port, tokens, headers=()):
    """A connection that has asked for a stream of so many tokens."""
    body = json.dumps({"prompt": "A hose", "max_tokens": tokens, "stream": True})
    connection = socket.create_connection(("127.0.0.1", port), timeout=120)
    head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in dict(headers).items())
    connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
    return connection


@contextmanager
def running(service, app=None):
    """The server of a service, until the block ends."""
    listening = listen("127.0.0.1", 0)
    server = make_server(service, app)
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        eventually(lambda: server.started)
        yield Served(service, listening.getsockname()[1], server=server)
    finally:
        server.should_exit = True
        thread.join()
