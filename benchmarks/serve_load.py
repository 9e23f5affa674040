"""A client that loads a service of embeddings, for benchmarks/serve.py: plain HTTP/1.1 over connections that stay open.

It reads one JSON object from standard input and writes one to standard output. It imports nothing heavy: it shares the
cores with what it measures, and makes most of its requests before it sends the first. No text is sent twice.

    echo '{"host": "127.0.0.1", "port": 8000, "path": "/v1/embeddings", "models": ["base"], "words": ["a", "b"],
           "length": 10, "texts": 1, "clients": 8, "seconds": 5, "warm_s": 1, "encoding": "base64", "seed": 1,
           "ahead": 4000}' |
        python benchmarks/serve_load.py
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import Counter, deque
from typing import Any


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.waiter: asyncio.Future[int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        """Collect a reply until its body is whole."""
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self.buffer[:end]).lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0])
        if len(self.buffer) >= end + 4 + length and self.waiter is not None:
            status = int(head[9:12])
            self.buffer.clear()
            waiter, self.waiter = self.waiter, None
            waiter.set_result(status)

    def connection_lost(self, error: Exception | None) -> None:
        """Fail the request under way."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_exception(ConnectionError(str(error)))

    async def send(self, request: bytes) -> int:
        """Send a request and return the status of its reply."""
        self.waiter = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await self.waiter


class Load:
    """What is asked for, and what came back."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self.plan = plan
        self.draw = random.Random(plan["seed"])
        self.count = 0
        self.answered = 0
        self.statuses: Counter[int] = Counter()
        self.times: list[float] = []
        self.measuring = False
        self.ahead = deque(self.made() for _ in range(plan["ahead"]))

    def request(self) -> bytes:
        """The next request."""
        return self.ahead.popleft() if self.ahead else self.made()

    def made(self) -> bytes:
        """A new request: texts that were never sent before, for the next of the models."""
        plan = self.plan
        texts = [" ".join(self.draw.choices(plan["words"], k=plan["length"])) for _ in range(plan["texts"])]
        model = plan["models"][self.count % len(plan["models"])]
        self.count += 1
        body = json.dumps(
            {"model": model, "input": texts if len(texts) > 1 else texts[0], "encoding_format": plan["encoding"]}
        ).encode()
        head = (
            f"POST {plan['path']} HTTP/1.1\r\nHost: {plan['host']}:{plan['port']}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    async def connected(self) -> Connection:
        """A new connection."""
        loop = asyncio.get_running_loop()
        return (await loop.create_connection(Connection, self.plan["host"], self.plan["port"]))[1]

    async def ask(self, connection: Connection) -> None:
        """Send one request and note what comes back."""
        request = self.request()
        started = time.perf_counter()
        status = await connection.send(request)
        self.answered += 1
        if self.measuring:
            self.statuses[status] += 1
            if status == 200:
                self.times.append(time.perf_counter() - started)

    async def closed(self) -> float:
        """Every client sends its next request when the last one is answered; return the seconds measured.

        It is measured once every client has had an answer, and until as many more have come as there are clients.
        """
        connections = [await self.connected() for _ in range(self.plan["clients"])]
        stop = False

        async def client(connection: Connection) -> None:
            while not stop:
                await self.ask(connection)

        tasks = [asyncio.create_task(client(connection)) for connection in connections]
        clients = len(connections)
        started = time.perf_counter()
        while time.perf_counter() - started < self.plan["warm_s"] or self.answered < clients:
            await asyncio.sleep(0.02)
        self.measuring, started = True, time.perf_counter()
        while time.perf_counter() - started < self.plan["seconds"] or len(self.times) < clients:
            await asyncio.sleep(0.02)
        self.measuring, seconds = False, time.perf_counter() - started
        stop = True
        await asyncio.gather(*tasks)
        return seconds

    async def open(self) -> float:
        """Requests come at a fixed rate, whether they are answered or not; return the seconds until all were."""
        free: list[Connection] = []
        self.measuring, started = True, time.perf_counter()

        async def one() -> None:
            connection = free.pop() if free else await self.connected()
            await self.ask(connection)
            free.append(connection)

        async with asyncio.TaskGroup() as group:
            sent = 0
            while (now := time.perf_counter() - started) < self.plan["seconds"]:
                while sent < now * self.plan["rate"]:
                    group.create_task(one())
                    sent += 1
                await asyncio.sleep(0.005)
        return time.perf_counter() - started


def main() -> None:
    """Load a service as the plan on standard input says, and print what came of it."""
    plan = json.load(sys.stdin)
    load = Load(plan)
    try:
        import uvloop
    except ImportError:
        uvloop = None
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if uvloop else None) as runner:
        seconds = runner.run(load.open() if "rate" in plan else load.closed())
    times = sorted(load.times)
    quantiles = {f"p{q}": times[min(len(times) - 1, len(times) * q // 100)] if times else None for q in (50, 99)}
    slowest = {"slowest": times[-1] if times else None}
    found = {"seconds": seconds, "statuses": load.statuses, "answered": len(times), "replies": load.answered}
    json.dump({**found, **quantiles, **slowest}, sys.stdout)


if __name__ == "__main__":
    main()
