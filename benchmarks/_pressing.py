"""Asks a server for completions: so many a second, whether or not it answers, or one by one.

``python _pressing.py PORT SECONDS TOKENS RATE`` asks ``RATE`` times a second; a negative rate
stands for so many clients that ask again as soon as they are answered. Every request has a
connection of its own, and asks for between half of ``TOKENS`` and one and a half times as many:
answers of one length would end, and the next begin, all at once, which costs less and which no
other load does. Prints JSON: how many answers came whole in that time, with how many tokens, and
with how many those that came later, too; how long the refusals (429) took; and the processor time
of asking.
"""

import asyncio
import json
import random
import sys
import time
from typing import Any


async def ask(port: int, content: bytes) -> tuple[int, float, float]:
    """The status, and when it was asked and answered."""
    begun = time.perf_counter()
    reading, writing = await asyncio.open_connection("127.0.0.1", port)
    try:
        head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        writing.write(head.encode() + content)
        answer = await reading.read()
    finally:
        writing.close()
    return int(answer.split(None, 2)[1]), begun, time.perf_counter()


async def press(port: int, seconds: float, tokens: int, rate: float) -> dict[str, Any]:
    body = {"prompt": "w1 w2 w3", "temperature": 0, "ignore_eos": True}
    draw = random.Random(0)
    waiting: set[asyncio.Task] = set()
    # Of tasks instead, Python's collector would look through all of them.
    done: list[tuple[int, int, float, float]] = []
    count, begun = 0, time.perf_counter()

    def another() -> asyncio.Task:
        nonlocal count
        count += 1
        length = draw.randint(tokens // 2, tokens + tokens // 2)
        task = asyncio.create_task(ask(port, json.dumps(body | {"max_tokens": length}).encode()))
        waiting.add(task)
        task.add_done_callback(waiting.discard)
        task.add_done_callback(lambda ended: done.append((length, *ended.result())))
        return task

    async def client() -> None:
        while time.perf_counter() < begun + seconds:
            await another()

    clients = [asyncio.create_task(client()) for _ in range(int(-rate))]
    while (now := time.perf_counter() - begun) < seconds:
        for _ in range(int(now * rate) - count):
            another()
        await asyncio.sleep(0.002)
    spent = time.process_time()
    await asyncio.gather(*clients, *waiting)
    refused = [ended - at for _, status, at, ended in done if status == 429]
    answered = [(length, ended) for length, status, _, ended in done if status == 200]
    in_time = [length for length, ended in answered if ended < begun + seconds]
    return {
        "asked": count,
        "whole": len(in_time),
        "tokens": sum(in_time),
        "tokens_later_too": sum(length for length, _ in answered),
        "refused": refused,
        "other": sum(status not in (200, 429) for _, status, *_ in done),
        "cpu_seconds": spent,
    }


if __name__ == "__main__":
    port, tokens = int(sys.argv[1]), int(sys.argv[3])
    seconds, rate = float(sys.argv[2]), float(sys.argv[4])
    json.dump(asyncio.run(press(port, seconds, tokens, rate)), sys.stdout)
