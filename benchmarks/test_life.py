"""The cost of a context's life: create, first switch, destroy, and all of them; and the memory of live contexts."""

from __future__ import annotations

import gc
from time import perf_counter
from typing import TYPE_CHECKING

import pytest
from greenlet import getcurrent, greenlet
from resident import grown_by

from greenctx import ContextSwitchingEnvironment

if TYPE_CHECKING:
    from collections.abc import Callable

TIMES = 500
ALIVE = 20_000

Step = tuple[float, float, float]


def bare_lives(count: int) -> Step:
    """Seconds to create so many greenlets, to switch to each, and to throw into each."""
    main = getcurrent()

    def wait() -> None:
        main.switch()

    began = perf_counter()
    greenlets = [greenlet(wait) for _ in range(count)]
    created = perf_counter()
    for one in greenlets:
        one.switch()
    started = perf_counter()
    for one in greenlets:
        one.throw()
    del greenlets, one
    return created - began, started - created, perf_counter() - started


def core_lives(count: int) -> Step:
    """Return the seconds to create so many contexts, to switch to each, and to destroy each."""
    environment = ContextSwitchingEnvironment()

    def wait() -> None:
        environment.switch_context(0)

    def main() -> Step:
        began = perf_counter()
        contexts = [environment.create_context(wait) for _ in range(count)]
        created = perf_counter()
        for one in contexts:
            environment.switch_context(one)
        started = perf_counter()
        for one in contexts:
            environment.destroy_context(one)
        return created - began, started - created, perf_counter() - started

    return environment.run_main_context(main)


@pytest.mark.parametrize("step", ["create", "first switch", "destroy"])
def test_bare_greenlet(step: str, record: Callable[..., None]) -> None:
    """Of a greenlet: its creation, the switch that starts it, and a throw that ends it."""
    index = ["create", "first switch", "destroy"].index(step)
    record(lambda: bare_lives(TIMES)[index] / TIMES)


@pytest.mark.parametrize("step", ["create", "first switch", "destroy"])
def test_context(step: str, record: Callable[..., None]) -> None:
    """The same steps of a context."""
    index = ["create", "first switch", "destroy"].index(step)
    record(lambda: core_lives(TIMES)[index] / TIMES, baseline=f"bare_greenlet[{step}]")


def test_life_of_a_bare_greenlet(record: Callable[..., None]) -> None:
    """One after the other: create, first switch, throw."""
    record(lambda: sum(sum(bare_lives(1)) for _ in range(TIMES)) / TIMES)


def test_life_of_a_context(record: Callable[..., None]) -> None:
    """One after the other in one environment: create, first switch, destroy."""
    environment = ContextSwitchingEnvironment()

    def wait() -> None:
        environment.switch_context(0)

    def lives() -> float:
        began = perf_counter()
        for _ in range(TIMES):
            context = environment.create_context(wait)
            environment.switch_context(context)
            environment.destroy_context(context)
        return (perf_counter() - began) / TIMES

    environment.run_main_context(lambda: record(lives, baseline="life_of_a_bare_greenlet"))


def test_memory_of_a_suspended_bare_greenlet(record_bytes: Callable[..., None]) -> None:
    """Resident memory, with the entry of a dict that refers to it."""
    main = getcurrent()

    def wait() -> None:
        main.switch()

    alive: dict[int, greenlet] = {}

    def start_all() -> None:
        for number in range(ALIVE):
            alive[number] = greenlet(wait)
            alive[number].switch()

    record_bytes(grown_by(start_all) / ALIVE)
    for one in alive.values():
        one.throw()


@pytest.mark.parametrize("state", ["suspended", "unstarted"])
def test_memory_of_a_context(state: str, record_bytes: Callable[..., None]) -> None:
    """Measure the memory of a context in the environment's registry."""
    environment = ContextSwitchingEnvironment()

    def wait() -> None:
        environment.switch_context(0)

    def create_all() -> None:
        for _ in range(ALIVE):
            context = environment.create_context(wait)
            if state == "suspended":
                environment.switch_context(context)

    def main() -> None:
        record_bytes(grown_by(create_all) / ALIVE, baseline="memory_of_a_suspended_bare_greenlet")

    environment.run_main_context(main)
    gc.collect()
