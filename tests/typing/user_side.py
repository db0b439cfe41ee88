"""The types as a type checker sees them in a user's code. Never run: mypy (strict) and pyright check it.

A misuse carries a `type: ignore`, which is itself an error where the checker finds nothing to ignore.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn, assert_type

import greenctx
from greenctx import ContextSwitchingEnvironment, current_environment
from greenctx.wasix import Program

if TYPE_CHECKING:
    from collections.abc import Callable

    from greenlet import GreenletExit

env = ContextSwitchingEnvironment()
limited = ContextSwitchingEnvironment(max_contexts=10)
ContextSwitchingEnvironment(max_contexts=None)
ContextSwitchingEnvironment(10)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
ContextSwitchingEnvironment(max_contexts="10")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# Instruments are any objects; what they are told is known to be passed by position.


class Own(greenctx.Instrument):
    def context_switched(self, env: ContextSwitchingEnvironment, _out: int, _into: int) -> None:
        assert_type(env.contexts()[0].age, float)
        assert_type(env.contexts()[0].switches, int | None)


instrumented = ContextSwitchingEnvironment(instruments=[Own(), greenctx.Statistics()])
assert_type(instrumented, ContextSwitchingEnvironment)
assert_type(instrumented.format_stacks(), str)
ContextSwitchingEnvironment(instruments=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# run_main_context returns what main returns, and takes the arguments that main takes.


def without_arguments() -> str:
    return ""


def with_arguments(number: int, names: list[str]) -> dict[str, int]:
    return dict.fromkeys(names, number)


def with_a_default(number: int = 1) -> float:
    return float(number)


def with_any_number(*numbers: int) -> int:
    return sum(numbers)


def never() -> NoReturn:
    raise SystemExit


class Main:
    def run(self, flag: bool) -> Main:
        return self if flag else Main()


assert_type(env.run_main_context(without_arguments), str)
assert_type(env.run_main_context(with_arguments, 1, ["a"]), dict[str, int])
assert_type(env.run_main_context(with_a_default, 1), float)
assert_type(env.run_main_context(with_any_number, 1, 2, 3), int)
assert_type(env.run_main_context(Main().run, True), Main)
assert_type(env.run_main_context(lambda: 1), int)
env.run_main_context(without_arguments, 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
env.run_main_context(with_arguments, "1", ["a"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
env.run_main_context(with_arguments, 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
env.run_main_context()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
env.run_main_context(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# Entrypoints take no arguments; their result may have any type.


def entrypoint_with_argument(_: int) -> None: ...


assert_type(env.create_context(without_arguments), int)
assert_type(env.create_context(never), int)
assert_type(env.create_context(with_a_default), int)
assert_type(env.create_context(lambda: env.switch_context(0)), int)
env.create_context(entrypoint_with_argument)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
env.create_context(without_arguments())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
env.create_context(without_arguments, 1)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue]


# Ids are ints.

assert_type(env.active_context_id, int)
assert_type(env.main_context_id, int)
assert_type(ContextSwitchingEnvironment.main_context_id, int)
assert_type(env.destroy_context(1), bool)
assert_type(current_environment(), ContextSwitchingEnvironment)
switch: Callable[[int], None] = env.switch_context
env.switch_context("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
env.destroy_context("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
env.active_context_id = 1  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


# The exceptions, and their attributes.

try:
    env.switch_context(1)
except greenctx.ContextCanceled as canceled:
    assert_type(canceled.context_id, int)
    assert_type(canceled.defused, bool)
    canceled.defuse()
    as_exit: GreenletExit = canceled
except greenctx.SwitchTargetMissing as missing:
    assert_type(missing.context_id, int)
    lookup: LookupError = missing
except greenctx.DestroyNotAllowed as refused:
    assert_type(refused.context_id, int)
    value: ValueError = refused
except greenctx.ContextEntrypointReturned as returned:
    assert_type(returned.context_id, int)
    assert_type(returned.exit_code, int)
except greenctx.CancellationSwallowed as swallowed:
    assert_type(swallowed.context_id, int)
except greenctx.TooManyContexts as many:
    assert_type(many.limit, int)
except greenctx.WrongThread as wrong:
    assert_type(wrong.expected, str)
    assert_type(wrong.found, str)
except greenctx.NotTheActiveContext as other:
    assert_type(other.context_id, int)
except greenctx.NoEnvironment as none:
    lookup = none
except (greenctx.EnvironmentNotRunning, greenctx.EnvironmentAlreadyUsed) as state:
    base: greenctx.GreenctxError = state


# In a task: the same, awaited. await_ returns what the awaitable does.


async def in_a_task() -> None:
    assert_type(await env.run_main_context_async(without_arguments), str)
    assert_type(await env.run_main_context_async(with_arguments, 1, ["a"]), dict[str, int])
    await env.run_main_context_async(without_arguments, 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(await Program(b"").run_async(yield_every=0.1), int)


async def name() -> str:
    return ""


assert_type(greenctx.await_(name()), str)
greenctx.await_(name)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
