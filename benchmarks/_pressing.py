"""Asks a server for so many completions a second, whether or not it answers.

``python _pressing.py PORT RATE SECONDS TOKENS`` prints JSON: how many answers came whole in that
time, and how long the refusals (429) took.
"""

import asyncio
import json
import sys
import time


async def ask(port: int, content: bytes) -> tuple[int, float]:
    """The status, and the seconds until the answer was whole."""
    begun = time.perf_counter()
    reading, writing = await asyncio.open_connection("127.0.0.1", port)
    try:
        head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        writing.write(head.encode() + content)
        answer = await reading.read()
    finally:
        writing.close()
    return int(answer.split(None, 2)[1]), time.perf_counter() - begun


async def press(port: int, rate: float, seconds: float, tokens: int) -> dict:
    body = {"prompt": "w1 w2 w3", "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
    content, asked = json.dumps(body).encode(), []
    begun = time.perf_counter()
    while (now := time.perf_counter() - begun) < seconds:
        asked += [
            asyncio.create_task(ask(port, content)) for _ in range(int(now * rate) - len(asked))
        ]
        await asyncio.sleep(0.002)
    done = [task.result() for task in asked if task.done()]
    late = await asyncio.gather(*(task for task in asked if not task.done()))
    return {
        "asked": len(asked),
        "whole": sum(status == 200 for status, _ in done),
        "refused": sorted(took for status, took in [*done, *late] if status == 429),
        "other": sum(status not in (200, 429) for status, _ in [*done, *late]),
    }


if __name__ == "__main__":
    port, tokens = int(sys.argv[1]), int(sys.argv[4])
    rate, seconds = map(float, sys.argv[2:4])
    json.dump(asyncio.run(press(port, rate, seconds, tokens)), sys.stdout)
