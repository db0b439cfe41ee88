"""How the cost of a switch grows with the number of live contexts, and with their depth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from greenlet import getcurrent, greenlet

from greenctx import ContextSwitchingEnvironment

if TYPE_CHECKING:
    from collections.abc import Callable

TIMES = 10_000
COUNTS = [10, 1_000, 100_000]
DEPTHS = [0, 50, 200]


def deep(levels: int, function: Callable[[], None]) -> None:
    """Call it so many frames further down."""
    if levels:
        deep(levels - 1, function)
    else:
        function()


@pytest.mark.parametrize("count", COUNTS)
def test_switch_with_so_many_alive(count: int, measure: Callable[..., None]) -> None:
    """There and back between main and one of ten, while the others are suspended, too."""
    environment = ContextSwitchingEnvironment()

    def wait() -> None:
        while True:
            environment.switch_context(0)

    def main() -> None:
        contexts = [environment.create_context(wait) for _ in range(count)]
        for one in contexts:
            environment.switch_context(one)
        ten = contexts[:: len(contexts) // 10][:10]

        def ping_pong() -> None:
            for _ in range(TIMES // 20):
                for one in ten:
                    environment.switch_context(one)

        measure(ping_pong, times=TIMES, baseline=f"switch_with_so_many_alive[{COUNTS[0]}]")

    environment.run_main_context(main)


@pytest.mark.parametrize("depth", DEPTHS)
def test_bare_greenlet_switch_so_deep(depth: int, measure: Callable[..., None]) -> None:
    """There and back between two greenlets, the other so many Python frames deep."""
    main = getcurrent()

    def wait() -> None:
        while True:
            main.switch()

    other = greenlet(lambda: deep(depth, wait))
    other.switch()

    def ping_pong() -> None:
        for _ in range(TIMES // 2):
            other.switch()

    measure(ping_pong, times=TIMES)
    other.throw()


@pytest.mark.parametrize("depth", DEPTHS)
def test_switch_so_deep(depth: int, measure: Callable[..., None]) -> None:
    """Measure switches between two contexts, one of them so deep."""
    environment = ContextSwitchingEnvironment()

    def wait() -> None:
        while True:
            environment.switch_context(0)

    def main() -> None:
        context = environment.create_context(lambda: deep(depth, wait))

        def ping_pong() -> None:
            for _ in range(TIMES // 2):
                environment.switch_context(context)

        measure(ping_pong, times=TIMES, baseline=f"bare_greenlet_switch_so_deep[{depth}]")

    environment.run_main_context(main)
