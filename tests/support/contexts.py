"""Entrypoints, and other helpers for contexts."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from greenctx import ContextEntrypointReturned, ContextSwitchingEnvironment
from greenctx._core.scope import IN_GUEST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from greenctx._core.scope import Scope

MAIN = ContextSwitchingEnvironment.main_context_id


def state(env: ContextSwitchingEnvironment) -> tuple[int, list[int]]:
    """Return the ids of the active and the suspended contexts, without calling the environment."""
    assert env._active is not None
    active = env._active.context_id
    return active, env._registry.suspended_ids(active)


@contextmanager
def guest_code(env: Scope) -> Iterator[None]:
    """Do what greenctx.wasix does around guest code, which runs on its fiber."""
    chain: list[Any] = [env]
    while chain[-1]._outer is not None:
        chain.append(chain[-1]._outer)
    callers = [one._admitted for one in chain]
    for one in chain:
        one._admitted = IN_GUEST
    try:
        yield
    finally:
        for one, caller in zip(chain, callers, strict=True):
            one._admitted = caller


def suspended(env: ContextSwitchingEnvironment) -> list[int]:
    return state(env)[1]


def go_to_main(env: ContextSwitchingEnvironment) -> Callable[[], None]:
    """An entrypoint that switches to main, and ends quietly if it is destroyed there."""
    return lambda: env.switch_context(MAIN)


def start(env: ContextSwitchingEnvironment, entrypoint: Callable[[], object]) -> int:
    """Create a context and switch to it; it must switch back to main."""
    context_id = env.create_context(entrypoint)
    env.switch_context(context_id)
    return context_id


def then_main(env: ContextSwitchingEnvironment, call: Callable[[], object]) -> Callable[[], None]:
    """An entrypoint that makes the call and switches to main."""

    def entrypoint() -> None:
        call()
        env.switch_context(MAIN)

    return entrypoint


def raises(error: BaseException) -> Callable[[], None]:
    def entrypoint() -> None:
        raise error

    return entrypoint


def end_four(env: ContextSwitchingEnvironment) -> None:
    """Let contexts 1 to 4 end: destroyed before it has started, destroyed, returned, raised."""
    env.destroy_context(env.create_context(list))
    env.destroy_context(start(env, go_to_main(env)))
    with pytest.raises(ContextEntrypointReturned):
        start(env, list)
    with pytest.raises(KeyError):
        start(env, raises(KeyError()))


def in_environment(main: Callable[[ContextSwitchingEnvironment], object]) -> None:
    """Run main in a new environment, which it gets as its argument."""
    env = ContextSwitchingEnvironment()
    env.run_main_context(main, env)


def sleeper(env: ContextSwitchingEnvironment) -> Callable[[], None]:
    """An entrypoint that switches to main for ever."""

    def entrypoint() -> None:
        while True:
            env.switch_context(0)

    return entrypoint


CALLS: dict[str, Callable[[ContextSwitchingEnvironment], object]] = {
    "active_context_id": lambda env: env.active_context_id,
    "create_context": lambda env: env.create_context(print),
    "switch_context to main": lambda env: env.switch_context(0),
    "switch_context to a suspended one": lambda env: env.switch_context(1),
    "switch_context to an unstarted one": lambda env: env.switch_context(2),
    "switch_context to none": lambda env: env.switch_context(99),
    "destroy_context of a suspended one": lambda env: env.destroy_context(1),
    "destroy_context of an unstarted one": lambda env: env.destroy_context(2),
    "destroy_context of none": lambda env: env.destroy_context(99),
    "destroy_context of main": lambda env: env.destroy_context(0),
}
"""The calls of an environment in which contexts 1 and 2 are suspended, and 2 has not started."""

each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
