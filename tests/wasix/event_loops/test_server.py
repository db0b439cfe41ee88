"""README's server: 200 requests at a time, clients that go away in the middle, and nothing that stays behind."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from leakcheck import own_memory
from processes import TIMEOUT

from greenctx import ContextSwitchingEnvironment
from greenctx._core.aio import AsyncRun
from greenctx._core.context import Context
from greenctx.wasix import Program

web = pytest.importorskip("aiohttp.web")
pytest.importorskip("aiosqlite")

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

T = TypeVar("T")

README = (Path(__file__).parents[3] / "greenctx" / "wasix" / "README.md").read_text()
[CODE] = [code for code in re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL) if "run_app" in code]

# On a slow machine 240 requests at a time take longer than the example's limit of time allows each.
CODE, _replaced = re.subn(r"seconds=\d+\)", "seconds=1000)", CODE)
assert _replaced == 1

HOST = "127.0.0.1"
REQUESTS = 200
DOZENS = {"apple": b"36\n", "pear": b"48\n"}


async def get(port: int, item: str) -> tuple[int, bytes]:
    """The status and body of the server's answer."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        writer.write(f"GET /a-dozen/{item} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        return int(head.split()[1]), body
    finally:
        writer.close()
        await writer.wait_closed()


async def ask_and_leave(port: int, item: str, turns: int) -> None:
    """Send a request, and go away after so many turns of the loop."""
    _, writer = await asyncio.open_connection(HOST, port)
    writer.write(f"GET /a-dozen/{item} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    for _ in range(turns):
        await asyncio.sleep(0)
    writer.transport.abort()


async def many(port: int) -> Counter[tuple[str, tuple[int, bytes]]]:
    """Send so many requests at once, and a fifth more from clients that go away; count the answers."""
    items = ["apple", "pear"] * (REQUESTS // 2)
    leaving = [ask_and_leave(port, "apple", turns) for turns in range(REQUESTS // 5)]
    answers, _ = await asyncio.gather(asyncio.gather(*(get(port, item) for item in items)), asyncio.gather(*leaving))
    return Counter(zip(items, answers, strict=True))


ALL_RIGHT = Counter({(item, (200, dozen)): REQUESTS // 2 for item, dozen in DOZENS.items()})


# As README says, in a process of its own.


def test_the_server_in_its_own_process() -> None:
    """The server answers every request although clients go away, keeps no descriptor or thread, and ends by Ctrl-C."""
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    assert CODE.count("port=8080") == 1
    code = CODE.replace("port=8080", f"port={port}")
    with subprocess.Popen([sys.executable, "-u", "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            while b"Running on" not in (line := server.stdout.readline()):
                assert line, "it has ended"
            asyncio.run(check_from_outside(port, server.pid))
            server.send_signal(signal.SIGINT)
            _, said = server.communicate(timeout=TIMEOUT)
            assert (server.returncode, said) == (0, b"")
        finally:
            server.kill()


async def check_from_outside(port: int, pid: int) -> None:
    calm = used(pid)[:2]
    memory = []
    for _ in range(4):
        assert await many(port) == ALL_RIGHT
        assert (await get(port, "plum"))[0] == 404
        # There may be something to clean up, and epochs end for a moment longer.
        assert await settled(lambda: used(pid)[:2], calm) == calm
        memory.append(used(pid)[2])
    assert memory[-1] - memory[1] < 16 * 2**20, f"its memory grows: {memory}"


async def settled(look: Callable[[], T], calm: T) -> T:
    """Return the last observation: the state before the load, or another one if that does not return for long."""
    end = time.monotonic() + TIMEOUT / 4
    while (seen := look()) != calm and time.monotonic() < end:
        await asyncio.sleep(0.01)
    return seen


def used(pid: int) -> tuple[int, int, int]:
    """The resources of a process: descriptors, threads, bytes of memory."""
    process = Path(f"/proc/{pid}")
    return len(os.listdir(process / "fd")), len(os.listdir(process / "task")), own_memory(pid)


# In this process, where one can look inside.


class Server:
    """README's module, its app on a port of its own."""

    def __init__(self) -> None:
        self.module: Any = ModuleType("server")
        exec(compile(CODE, "README.md", "exec", dont_inherit=True), vars(self.module))
        self.port = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Server]:
        runner = web.AppRunner(self.module.make_app(), handler_cancellation=True)
        await runner.setup()
        try:
            site = web.TCPSite(runner, HOST, 0)
            await site.start()
            self.port = runner.addresses[0][1]
            yield self
        finally:
            await runner.cleanup()


def alive() -> Counter[str]:
    """Count the objects that a run consists of."""
    gc.collect()
    kinds = (AsyncRun, Context, ContextSwitchingEnvironment)
    return Counter(type(thing).__name__ for thing in gc.get_objects() if isinstance(thing, kinds))


def test_nothing_is_left_of_any_request() -> None:
    """Clients go away while their guests wait for the database: these are cancelled there, and unwound; all the others
    are answered."""
    server = Server()
    query = server.module.query
    slow = 0
    canceled = 0

    async def slow_query(order: Any) -> int:
        nonlocal slow, canceled
        if order.item != "slow":
            return int(await query(order))
        slow += 1
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            canceled += 1
            raise
        raise AssertionError

    async def everything() -> None:
        async with server.running():
            for _ in range(3):
                leaving = [asyncio.ensure_future(get(server.port, "slow")) for _ in range(100)]
                answering = asyncio.ensure_future(many(server.port))
                while slow < 100:
                    await asyncio.sleep(0)
                assert alive()["AsyncRun"] >= 100
                for one in leaving:
                    one.cancel()
                await asyncio.gather(*leaving, return_exceptions=True)
                assert await answering == ALL_RIGHT
                while canceled < 100:
                    await asyncio.sleep(0)
                # Of the clients that have gone away, some requests may not even have begun.
                assert await settled(lambda: (alive(), len(server.module.program._runs)), (before, 0)) == (before, 0)
                reset()

    def reset() -> None:
        nonlocal slow, canceled
        slow = canceled = 0

    server.module.query = slow_query
    before = alive()
    asyncio.run(everything())
    server.module.program.close()


def test_a_guest_that_computes_holds_nobody_up() -> None:
    """Requests are answered while the guest of another one loops for ever."""
    server = Server()

    async def everything() -> None:
        endless = Program(b'(module (func (export "_start") (loop (br 0))))')
        async with server.running():
            looping = asyncio.ensure_future(endless.run_async(yield_every=0.001))
            assert [await get(server.port, "apple") for _ in range(5)] == [(200, b"36\n")] * 5
            looping.cancel()
            await asyncio.wait([looping])
            assert looping.cancelled()

    asyncio.run(everything())
