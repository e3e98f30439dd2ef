"""Connections as they are accepted."""

import asyncio
import errno
import socket

from geodapt.serve.http import acceptor
from geodapt.serve.http.refusing import Refusals
from tests.serve.asking import make_service, read_all


class Answering(asyncio.Protocol):
    def connection_made(self, transport):
        transport.write(b"hello")
        transport.close()


class WithoutDescriptors(socket.socket):
    """Takes in nobody twice, as where a process has all the files open that it may."""

    left = 2

    def accept(self):
        if self.left:
            self.left -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


def test_where_no_descriptor_is_left_it_is_tried_again(monkeypatch, engine, adapters, tokenizer):
    monkeypatch.setattr(acceptor, "PAUSE", 0.05)
    refusals = Refusals(make_service(engine, adapters[1], tokenizer, adapters[0]))

    async def answers():
        with WithoutDescriptors() as listening:
            listening.bind(("127.0.0.1", 0))
            taking = acceptor.Acceptor(listening, lambda first: Answering(), refusals)
            host, port = listening.getsockname()
            found = []
            for _ in range(3):
                reading, writing = await asyncio.open_connection(host, port)
                found.append(await asyncio.wait_for(reading.read(), 30))
                writing.close()
            taking.close()
            await taking.wait_closed()
            return listening.left, found

    assert asyncio.run(answers()) == (0, [b"hello"] * 3)


def test_what_has_come_in_overload_is_refused_without_a_connection_of_uvicorns(
    engine, adapters, tokenizer
):
    engine.most, (folder, bank) = 0, adapters
    refusals = Refusals(make_service(engine, bank, tokenizer, folder))
    request = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"
    made = []

    def make(first):
        made.append(first)
        return Answering()

    async def answers():
        with socket.create_server(("127.0.0.1", 0)) as listening:
            asked = [socket.create_connection(listening.getsockname()) for _ in range(4)]
            for each, content in zip(asked, [request, request, request[:-1], b""], strict=True):
                each.sendall(content)
            taking = acceptor.Acceptor(listening, make, refusals)
            found = [await asyncio.to_thread(read_all, each) for each in asked]
            taking.close()
            return found

    found = asyncio.run(answers())
    assert [answer.split(b" ")[1:2] for answer in found] == [[b"429"], [b"429"], [], []]
    assert found[2:] == [b"hello"] * 2
    assert made == [request[:-1], b""]


def test_as_many_go_on_as_there_is_room_for(monkeypatch, engine, adapters, tokenizer):
    monkeypatch.setattr(acceptor, "BATCH", 0.5)
    engine.most, (folder, bank) = 0, adapters
    refusals = Refusals(make_service(engine, bank, tokenizer, folder))
    request = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"

    async def statuses():
        with socket.create_server(("127.0.0.1", 0)) as listening:
            address = listening.getsockname()
            silent = socket.create_connection(address)
            taking = acceptor.Acceptor(listening, lambda first: Answering(), refusals)
            await asyncio.sleep(0.1)  # it is accepted, and the next batch comes later
            asked = [socket.create_connection(address) for _ in range(5)]
            for each in asked:
                each.sendall(request)
            engine.most = 2
            found = [await asyncio.to_thread(read_all, each) for each in [*asked, silent]]
            taking.close()
            return found

    found = asyncio.run(statuses())
    assert [answer.split(b" ")[1:2] for answer in found[2:]] == [[b"429"]] * 3 + [[]]
    assert found[:2] == [b"hello"] * 2
