"""Connections as they are taken in."""

import asyncio
import errno
import socket
from types import SimpleNamespace

from geodapt.serve.http import door


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


def test_where_no_descriptor_is_left_it_is_tried_again(monkeypatch):
    monkeypatch.setattr(door, "SHORT", 0.05)

    async def answers():
        with WithoutDescriptors() as listening:
            listening.bind(("127.0.0.1", 0))
            taking = door.Door(listening, lambda first: Answering(), SimpleNamespace(full=None))
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


def test_in_overload_refusals_do_not_reach_uvicorn(serve, engine):
    engine.most = 0
    with serve() as served:
        asked = served.server.server_state
        assert [served.complete(max_tokens=1).status for _ in range(5)] == [429] * 5
        assert asked.total_requests == 0
        assert served.ask("GET", "/health").status == 200
        assert asked.total_requests == 1
        engine.most = 4
        assert served.complete(max_tokens=1).status == 200
