"""On an event loop: the cost of an await, README's server beside a server with threads, and stalls of the loop."""

from __future__ import annotations

import asyncio
import io
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from greenctx import ContextSwitchingEnvironment, await_
from greenctx.wasix import Limits, Program, TimeLimitExceeded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

AWAITS = 20_000

README = (Path(__file__).parents[1] / "greenctx" / "wasix" / "README.md").read_text()
[SERVER] = [
    code for code in re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL) if "run_app" in code
]


# An await.


async def one_turn() -> None:
    await asyncio.sleep(0)


async def in_a_coroutine() -> None:
    for _ in range(AWAITS):
        await one_turn()


def in_a_context() -> None:
    for _ in range(AWAITS):
        await_(one_turn())


def test_await_in_a_coroutine(measure: Callable[..., None]) -> None:
    """A turn of the loop, awaited in a plain coroutine."""
    with asyncio.Runner() as runner:
        measure(lambda: runner.run(in_a_coroutine()), times=AWAITS)


def test_await_in_main(measure: Callable[..., None]) -> None:
    """Measure an await by await_ in an environment's main context."""

    def run() -> None:
        runner.run(ContextSwitchingEnvironment().run_main_context_async(in_a_context))

    with asyncio.Runner() as runner:
        measure(run, times=AWAITS, baseline="await_in_a_coroutine")


def test_await_in_a_context(measure: Callable[..., None]) -> None:
    """Measure an await by await_ in another context."""

    def main(env: ContextSwitchingEnvironment) -> None:
        def entrypoint() -> None:
            in_a_context()
            env.switch_context(0)

        env.switch_context(env.create_context(entrypoint))

    def run() -> None:
        env = ContextSwitchingEnvironment()
        runner.run(env.run_main_context_async(main, env))

    with asyncio.Runner() as runner:
        measure(run, times=AWAITS, baseline="await_in_a_coroutine")


# A server.

CONNECTIONS = 50
REQUESTS = 40  # by each connection

CLIENT = f"""
import asyncio, sys
async def ask(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range({REQUESTS}):
        writer.write(b"GET /a-dozen/pear HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
        await reader.readuntil(b"48\\n")
    writer.close()
async def many(port):
    await asyncio.gather(*(ask(port) for _ in range({CONNECTIONS})))
for line in sys.stdin:
    asyncio.run(many(int(line)))
    print("done", flush=True)
"""


@pytest.fixture(scope="module")
def client() -> Iterator[subprocess.Popen[bytes]]:
    """Start a process that makes so many requests to a port when told, and reports when they are answered."""
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", CLIENT], **pipes) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def in_threads(server: Any, threads: int, limits: Limits) -> None:
    """Let the server run its guests in so many threads, whose host functions wait for the loop's answers."""
    pool = ThreadPoolExecutor(threads)
    program = Program(server.GUEST, limits=limits)

    def price() -> int:
        order, loop = server.current_order.get()
        return int(asyncio.run_coroutine_threadsafe(server.query(order), loop).result())

    async def a_dozen(request: web.Request) -> web.Response:
        order = server.Order(request.app[server.DATABASE], request.match_info["item"])
        loop = asyncio.get_running_loop()
        server.current_order.set((order, loop))
        body = io.BytesIO()
        await loop.run_in_executor(pool, copy_context().run, partial(program.run, stdout=body))
        return web.Response(body=body.getvalue())

    program.linker.define_func("shop", "price", server.FuncType([], [server.ValType.i32()]), price)
    server.a_dozen = a_dozen


def without_a_guest(server: Any) -> None:
    """Let the server answer by itself."""

    async def a_dozen(request: web.Request) -> web.Response:
        order = server.Order(request.app[server.DATABASE], request.match_info["item"])
        return web.Response(text=f"{12 * await server.query(order)}\n")

    server.a_dozen = a_dozen


LIMITS = Limits(contexts=10, memory=2**20, seconds=10)
NO_LIMIT_OF_TIME = Limits(contexts=10, memory=2**20)

KINDS: dict[str, Callable[[Any], None]] = {
    "threads": lambda server: in_threads(server, CONNECTIONS, LIMITS),
    "threads, no limit of time": lambda server: in_threads(server, CONNECTIONS, NO_LIMIT_OF_TIME),
    "6 threads, no limit of time": lambda server: in_threads(server, 6, NO_LIMIT_OF_TIME),
    "README": lambda _: None,
    "no guest": without_a_guest,
}


@pytest.mark.parametrize("kind", KINDS)
def test_server(kind: str, client: subprocess.Popen[bytes], measure: Callable[..., None]) -> None:
    """A request of README's server; the same where guests run in threads, one for each connection or six; or nowhere.

    (A time limit takes a thread for each run outside of an event loop.)
    """
    server: Any = ModuleType("server")
    exec(compile(SERVER, "README.md", "exec", dont_inherit=True), vars(server))
    KINDS[kind](server)
    with asyncio.Runner() as runner:
        app = web.AppRunner(server.make_app(), handler_cancellation=True)
        runner.run(app.setup())
        runner.run(web.TCPSite(app, "127.0.0.1", 0).start())
        port = app.addresses[0][1]

        async def answer() -> None:
            assert client.stdin is not None
            assert client.stdout is not None
            client.stdin.write(b"%d\n" % port)
            client.stdin.flush()
            assert await asyncio.to_thread(client.stdout.readline) == b"done\n"

        measure(lambda: runner.run(answer()), times=CONNECTIONS * REQUESTS, baseline="server[threads]")
        runner.run(app.cleanup())


# Stalls of the loop.

SECONDS = 0.5


async def longest_stall(run: Awaitable[object]) -> float:
    """Return the longest stall of the loop, in seconds, during the run."""
    running = asyncio.ensure_future(run)
    longest, last = 0.0, time.perf_counter()
    while not running.done():
        await asyncio.sleep(0)
        longest, last = max(longest, time.perf_counter() - last), time.perf_counter()
    return longest


def endless() -> Program:
    return Program(b'(module (func (export "_start") (loop (br 0))))', limits=Limits(seconds=SECONDS))


async def compute(yield_every: float) -> None:
    with pytest.raises(TimeLimitExceeded):
        await endless().run_async(yield_every=yield_every)


async def compute_in_a_thread() -> None:
    def run() -> None:
        with pytest.raises(TimeLimitExceeded):
            endless().run()

    await asyncio.to_thread(run)


async def compute_by_plain_run() -> None:
    with pytest.raises(TimeLimitExceeded):
        endless().run()


STALLS: dict[str, Callable[[], Awaitable[None]]] = {
    "nothing runs": lambda: asyncio.sleep(SECONDS),
    "run_async, yield_every=0.01": lambda: compute(0.01),
    "run_async, yield_every=0.002": lambda: compute(0.002),
    "run, in a thread": compute_in_a_thread,
    "run, in a coroutine": compute_by_plain_run,
}


@pytest.mark.parametrize("kind", STALLS)
def test_longest_stall(kind: str, benchmark: Any) -> None:
    """Measure the loop's longest stall while a guest computes for half a second: the median and the maximum."""
    stalls: list[float] = []
    benchmark.pedantic(lambda: stalls.append(asyncio.run(longest_stall(STALLS[kind]()))), rounds=7, warmup_rounds=1)
    stalls = sorted(stalls[1:])
    benchmark.extra_info["milliseconds: median, most"] = [
        round(1e3 * figure, 1) for figure in (stalls[len(stalls) // 2], stalls[-1])
    ]
