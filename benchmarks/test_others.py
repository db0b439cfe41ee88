"""Other switches in Python, to compare with `test_switch.py`: generators, gevent, asyncio and threads."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import gevent  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

TIMES = 10_000
BARE = "bare_greenlet_switch"


def test_generator_switch(measure: Callable[..., None]) -> None:
    """There and back between a function and a generator: two switches, which cannot happen in a call of either."""

    def other() -> Generator[None, None, None]:
        while True:
            yield

    generator = other()
    next(generator)

    def ping_pong() -> None:
        for _ in range(TIMES // 2):
            next(generator)

    measure(ping_pong, times=TIMES, baseline=BARE)


def test_gevent_switch(measure: Callable[..., None]) -> None:
    """Two of gevent's greenlets take turns, through its hub."""

    def turns() -> None:
        for _ in range(TIMES // 2):
            gevent.sleep(0)

    measure(lambda: gevent.joinall([gevent.spawn(turns), gevent.spawn(turns)]), times=TIMES, baseline=BARE)


def test_asyncio_switch(measure: Callable[..., None]) -> None:
    """Two tasks take turns, through their loop."""

    async def turns() -> None:
        for _ in range(TIMES // 2):
            await asyncio.sleep(0)

    async def both() -> None:
        await asyncio.gather(turns(), turns())

    measure(lambda: asyncio.run(both()), times=TIMES, baseline=BARE)


def test_thread_switch(measure: Callable[..., None]) -> None:
    """Two threads take turns, by semaphores."""
    here, there = threading.Semaphore(0), threading.Semaphore(0)

    def other() -> None:
        for _ in range(TIMES // 20):
            there.acquire()
            here.release()

    def ping_pong() -> None:
        thread = threading.Thread(target=other)
        thread.start()
        for _ in range(TIMES // 20):
            there.release()
            here.acquire()
        thread.join()

    measure(ping_pong, times=TIMES // 10, baseline=BARE)
