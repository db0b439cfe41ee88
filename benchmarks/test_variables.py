"""The cost of context variables to a switch of bare greenlets and of the core: none, one and twenty on each side."""

from __future__ import annotations

from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING

import pytest
from greenlet import getcurrent, greenlet
from test_switch import BARE, TIMES

from greenctx import ContextSwitchingEnvironment

if TYPE_CHECKING:
    from collections.abc import Callable

VARIABLES = [ContextVar[str](f"variable {number}") for number in range(20)]
COUNTS = [0, 1, 20]


def set_variables(count: int, value: str) -> None:
    for variable in VARIABLES[:count]:
        variable.set(value)


@pytest.mark.parametrize("count", COUNTS)
def test_bare_greenlets_with_variables(count: int, measure: Callable[..., None]) -> None:
    """Two greenlets with a ``gr_context`` each; `bare_greenlet_switch` has none."""
    main = getcurrent()

    def other() -> None:
        set_variables(count, "other's")
        while True:
            main.switch()

    target = greenlet(other)
    target.gr_context = copy_context()

    def ping_pong() -> None:
        for _ in range(TIMES // 2):
            target.switch()

    def run() -> None:
        set_variables(count, "main's")
        measure(ping_pong, times=TIMES, baseline=BARE)
        assert all(variable.get() == "main's" for variable in VARIABLES[:count])

    copy_context().run(run)
    target.throw()


@pytest.mark.parametrize("count", COUNTS)
def test_core_switch_with_variables(count: int, measure: Callable[..., None]) -> None:
    """Two contexts of an environment."""
    environment = ContextSwitchingEnvironment()

    def other() -> None:
        set_variables(count, "other's")
        while True:
            environment.switch_context(0)

    def main() -> None:
        set_variables(count, "main's")
        context = environment.create_context(other)

        def ping_pong() -> None:
            for _ in range(TIMES // 2):
                environment.switch_context(context)

        measure(ping_pong, times=TIMES, baseline=(f"bare_greenlets_with_variables[{count}]", "core_switch"))
        assert all(variable.get() == "main's" for variable in VARIABLES[:count])

    copy_context().run(environment.run_main_context, main)
