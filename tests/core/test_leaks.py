"""Nothing is left behind, and nothing that only the garbage collector could free."""

from __future__ import annotations

import ctypes
import gc
import mmap
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

import pytest
from contexts import in_environment, sleeper
from greenlet import GreenletExit, getcurrent
from leakcheck import MemoryDidNotSettleError, assert_no_leak, collector_off, own_memory

import greenctx
from greenctx import ContextCanceled, ContextSwitchingEnvironment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PART = 16384


# The harness itself.


def test_a_leaked_object_is_found_and_named() -> None:
    """An object more per run fails the check, which names its type."""
    kept: list[object] = []
    with pytest.raises(MemoryDidNotSettleError, match=r"builtins\.set"):
        assert_no_leak(lambda: kept.append({1}))


def test_a_reference_cycle_is_a_leak() -> None:
    """An object that only the collector could free fails the check."""

    class Node:
        def __init__(self) -> None:
            self.itself = self

    with pytest.raises(MemoryDidNotSettleError, match="Node"):
        assert_no_leak(Node)
    gc.collect()


def test_a_leaked_block_is_found() -> None:
    """Memory that the collector does not track (here: a string) fails the check."""
    kept: list[str] = []
    with pytest.raises(MemoryDidNotSettleError, match="blocks"):
        assert_no_leak(lambda: kept.append(f"{len(kept)} bytes"))


def test_memory_leaked_by_c_code_is_found() -> None:
    """Memory that Python knows nothing of fails the check."""
    size, protection = PART, mmap.PROT_READ | mmap.PROT_WRITE
    map_pages = ctypes.CDLL(None).mmap  # not malloc, which may have as much at hand that was freed before
    map_pages.restype = ctypes.c_void_p
    map_pages.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_ssize_t]

    def scenario() -> None:
        ctypes.memset(map_pages(None, size, protection, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0), 1, size)

    with pytest.raises(MemoryDidNotSettleError, match="bytes of memory"):
        assert_no_leak(scenario)


@pytest.fixture
def mapped(tmp_path: Path) -> Iterator[mmap.mmap]:
    """A file of more parts of `PART` bytes than `assert_no_leak` runs a scenario."""
    with (tmp_path / "file").open("w+b") as file:
        file.truncate(1100 * PART)
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            yield mapped


def test_memory_that_is_read_from_a_file_is_no_leak(mapped: mmap.mmap) -> None:
    """The system may read something of a file, such as a library, at any time."""
    parts = iter(range(0, len(mapped), PART))
    assert_no_leak(lambda: mapped[next(parts)])


def test_memory_that_the_system_takes_back_hides_no_leak(mapped: mmap.mmap) -> None:
    """The system takes back pages of files when memory is short; meanwhile the test leaks as much of its own."""
    assert mapped.find(b"1") == -1  # reads all of it
    parts = iter(range(0, len(mapped), PART))
    kept: list[mmap.mmap] = []

    def scenario() -> None:
        mapped.madvise(mmap.MADV_DONTNEED, next(parts), PART)
        kept.append(mmap.mmap(-1, PART, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        kept[-1].write(bytes(PART))

    with pytest.raises(MemoryDidNotSettleError, match="bytes of memory"):
        assert_no_leak(scenario)


def test_what_is_left_now_and_then_is_named() -> None:
    """If only some rounds leave something, the error names what the last such round left."""
    kept: list[object] = []
    runs = iter(range(-1, 1000))

    def scenario() -> None:
        if next(runs) // 50 % 2 == 0:  # in every other round of 50, but not in the twentieth
            kept.append({1})

    with pytest.raises(MemoryDidNotSettleError, match=r"leave behind: 50 builtins\.set"):
        assert_no_leak(scenario)


def test_a_leaked_context_is_found() -> None:
    """A context that other code keeps fails the check."""
    kept: list[object] = []

    def body(env: ContextSwitchingEnvironment) -> None:
        def entrypoint() -> None:
            kept.append(getcurrent())
            env.switch_context(0)

        env.switch_context(env.create_context(entrypoint))

    with pytest.raises(MemoryDidNotSettleError, match=r"greenlet\.greenlet"):
        assert_no_leak(lambda: in_environment(body))


# The core.


def destroy_unstarted(env: ContextSwitchingEnvironment) -> None:
    env.destroy_context(env.create_context(sleeper(env)))


def destroy_suspended(env: ContextSwitchingEnvironment) -> None:
    context = env.create_context(sleeper(env))
    env.switch_context(context)
    env.destroy_context(context)


def end_with_unstarted(env: ContextSwitchingEnvironment) -> None:
    env.create_context(sleeper(env))


def end_with_suspended(env: ContextSwitchingEnvironment) -> None:
    env.switch_context(env.create_context(sleeper(env)))


def start_from_a_context(env: ContextSwitchingEnvironment) -> None:
    def first() -> None:
        env.switch_context(env.create_context(sleeper(env)))

    env.switch_context(env.create_context(first))


def error_in_context(env: ContextSwitchingEnvironment) -> None:
    def entrypoint() -> NoReturn:
        raise LookupError("from the context")

    with suppress(LookupError):
        env.switch_context(env.create_context(entrypoint))


def exit_in_context(env: ContextSwitchingEnvironment) -> None:
    def entrypoint() -> NoReturn:
        raise GreenletExit("a bare one")

    with suppress(GreenletExit):
        env.switch_context(env.create_context(entrypoint))


def forged_cancellation(env: ContextSwitchingEnvironment) -> None:
    def entrypoint() -> NoReturn:
        raise ContextCanceled(7)

    with suppress(ContextCanceled):
        env.switch_context(env.create_context(entrypoint))


def entrypoint_returned(env: ContextSwitchingEnvironment) -> None:
    with suppress(greenctx.ContextEntrypointReturned):
        env.switch_context(env.create_context(lambda: None))


def switch_target_missing(env: ContextSwitchingEnvironment) -> None:
    with suppress(greenctx.SwitchTargetMissing):
        env.switch_context(99)


def cleanup_error(env: ContextSwitchingEnvironment) -> None:
    def entrypoint() -> None:
        try:
            env.switch_context(0)
        finally:
            raise LookupError("from the cleanup")

    context = env.create_context(entrypoint)
    env.switch_context(context)
    with suppress(LookupError):
        env.destroy_context(context)


def exit_from_cleanup(env: ContextSwitchingEnvironment) -> None:
    def entrypoint() -> None:
        try:
            env.switch_context(0)
        finally:
            raise GreenletExit("another one")

    context = env.create_context(entrypoint)
    env.switch_context(context)
    with suppress(GreenletExit):
        env.destroy_context(context)


def swallowing(env: ContextSwitchingEnvironment, *, defuse: bool) -> Callable[[], None]:
    def entrypoint() -> None:
        try:
            env.switch_context(0)
        except ContextCanceled as canceled:
            if defuse:
                canceled.defuse()

    return entrypoint


def swallowed_cancellation(env: ContextSwitchingEnvironment) -> None:
    context = env.create_context(swallowing(env, defuse=False))
    env.switch_context(context)
    with suppress(greenctx.CancellationSwallowed):
        env.destroy_context(context)


def defused_cancellation(env: ContextSwitchingEnvironment) -> None:
    context = env.create_context(swallowing(env, defuse=True))
    env.switch_context(context)
    env.destroy_context(context)


def repeated_cancellation(env: ContextSwitchingEnvironment) -> None:
    def entrypoint() -> None:
        try:
            env.switch_context(0)
        finally:
            env.switch_context(0)

    context = env.create_context(entrypoint)
    env.switch_context(context)
    env.destroy_context(context)


def destroyed_by_cleanup(env: ContextSwitchingEnvironment) -> None:
    inner = env.create_context(sleeper(env))
    env.switch_context(inner)

    def entrypoint() -> None:
        try:
            env.switch_context(0)
        finally:
            env.destroy_context(inner)

    outer = env.create_context(entrypoint)
    env.switch_context(outer)
    env.destroy_context(outer)


def suspended_with_cleanup_errors(env: ContextSwitchingEnvironment, count: int) -> None:
    def entrypoint() -> None:
        try:
            env.switch_context(0)
        finally:
            raise LookupError("from the cleanup")

    for _ in range(count):
        env.switch_context(env.create_context(entrypoint))


def one_error_at_the_end(env: ContextSwitchingEnvironment) -> None:
    suspended_with_cleanup_errors(env, 1)


def errors_at_the_end(env: ContextSwitchingEnvironment) -> None:
    suspended_with_cleanup_errors(env, 3)


def errors_beside_mains(env: ContextSwitchingEnvironment) -> None:
    suspended_with_cleanup_errors(env, 3)
    raise LookupError("from main")


def interruption_among_the_errors(env: ContextSwitchingEnvironment) -> None:
    def entrypoint() -> None:
        try:
            env.switch_context(0)
        finally:
            raise KeyboardInterrupt

    suspended_with_cleanup_errors(env, 2)
    env.switch_context(env.create_context(entrypoint))


class Interrupted(ContextSwitchingEnvironment):
    """A signal's KeyboardInterrupt arrives at the end of every destroy_context."""

    def destroy_context(self, context_id: int) -> bool:
        super().destroy_context(context_id)
        raise KeyboardInterrupt


def interruption_of_the_end(_: ContextSwitchingEnvironment) -> None:
    interrupted = Interrupted()

    def body() -> None:
        interrupted.switch_context(interrupted.create_context(sleeper(interrupted)))

    interrupted.run_main_context(body)


def interruption_of_the_end_beside_mains_error(_: ContextSwitchingEnvironment) -> None:
    interrupted = Interrupted()

    def body() -> None:
        interrupted.switch_context(interrupted.create_context(sleeper(interrupted)))
        raise LookupError("from main")

    interrupted.run_main_context(body)


def nested_environments(env: ContextSwitchingEnvironment) -> None:
    def entrypoint() -> None:
        in_environment(end_with_suspended)
        env.switch_context(0)

    env.switch_context(env.create_context(entrypoint))


SCENARIOS = [
    destroy_unstarted,
    destroy_suspended,
    end_with_unstarted,
    end_with_suspended,
    start_from_a_context,
    error_in_context,
    exit_in_context,
    forged_cancellation,
    entrypoint_returned,
    switch_target_missing,
    cleanup_error,
    exit_from_cleanup,
    swallowed_cancellation,
    defused_cancellation,
    repeated_cancellation,
    destroyed_by_cleanup,
    one_error_at_the_end,
    errors_at_the_end,
    errors_beside_mains,
    interruption_among_the_errors,
    interruption_of_the_end,
    interruption_of_the_end_beside_mains_error,
    nested_environments,
]


@pytest.mark.parametrize("body", SCENARIOS, ids=lambda body: body.__name__)
def test_nothing_is_left_behind(body: Callable[[ContextSwitchingEnvironment], object]) -> None:
    """Whatever a context does and however it ends, reference counting alone frees all of it."""

    def scenario() -> None:
        with suppress(LookupError, KeyboardInterrupt, BaseExceptionGroup):
            in_environment(body)

    assert_no_leak(scenario)


def test_nothing_is_left_behind_by_refused_calls() -> None:
    """Errors of misuse outside of a running environment leave nothing behind."""

    def scenario() -> None:
        env = ContextSwitchingEnvironment(max_contexts=0)
        for call in (lambda: env.switch_context(0), lambda: env.create_context(print), greenctx.current_environment):
            with suppress(greenctx.GreenctxError):
                call()
        with suppress(greenctx.TooManyContexts):
            env.run_main_context(env.create_context, print)
        with suppress(greenctx.EnvironmentAlreadyUsed):
            env.run_main_context(print)

    assert_no_leak(scenario)


def test_the_end_of_main_leaves_nothing_of_1000_suspended_contexts() -> None:
    """At the end of main 1,000 suspended contexts are freed, their saved stacks included."""

    def body(env: ContextSwitchingEnvironment) -> None:
        for _ in range(1000):
            env.switch_context(env.create_context(sleeper(env)))

    # A round has 10,000 contexts: 1 MB is a tenth of a kilobyte for each.
    assert_no_leak(lambda: in_environment(body), repeats=10, memory_slack=2**20)


def test_many_cycles_in_one_environment_leave_memory_flat(long: bool) -> None:
    """Creating, starting and destroying contexts without end keeps memory flat to 1 MB."""
    cycles = 1_000_000 if long else 20_000
    grown: list[int] = []

    def body(env: ContextSwitchingEnvironment) -> None:
        for _ in range(2000):
            destroy_suspended(env)
        before = own_memory()
        for _ in range(cycles):
            destroy_suspended(env)
        grown.append(own_memory() - before)

    with collector_off():
        in_environment(body)
    print(f"{cycles} cycles: memory grew by {grown[0]} bytes")
    assert grown[0] < 2**20


def test_memory_for_frames_is_kept_for_a_few_contexts_only(env: ContextSwitchingEnvironment) -> None:
    """When thousands of contexts have ended, little of their memory remains."""
    count, mebibyte = 4000, 2**20

    def main() -> tuple[int, int]:
        contexts = [env.create_context(sleeper(env)) for _ in range(count)]
        before = own_memory()
        for context in contexts:
            env.switch_context(context)
        alive = own_memory() - before
        for context in contexts:
            env.destroy_context(context)
        return alive, own_memory() - before

    alive, left = env.run_main_context(main)
    assert alive > 8 * mebibyte
    assert left < alive / 3
