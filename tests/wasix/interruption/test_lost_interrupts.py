"""Ctrl-C that comes in a ``__del__`` is dropped by Python: a program that runs is interrupted all the same."""

from __future__ import annotations

import _thread
import operator
import signal
import sys
import threading
from collections import deque
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from guests.embedding import signature

from greenctx.wasix import Program
from greenctx.wasix._program.lost_interrupts import LostInterrupts

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

CALLS = b'(module (import "host" "f" (func $f)) (func (export "_start") (call $f) END))'
FOR_EVER = CALLS.replace(b"END", b"(loop (br 0))")
ONCE = CALLS.replace(b"END", b"")


class Interrupted:
    """Ctrl-C comes while it is deleted."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


class Failing:
    def __del__(self) -> None:
        raise LookupError("of a __del__")


@pytest.fixture(autouse=True)
def reported() -> Iterator[list[object]]:
    """The errors that the host's own hook gets."""
    before = sys.unraisablehook
    told: list[object] = []

    def hook(lost: sys.UnraisableHookArgs) -> None:
        told.append(lost.exc_type)

    sys.unraisablehook = hook
    try:
        yield told
        assert sys.unraisablehook is hook
    finally:
        sys.unraisablehook = before


def program(code: bytes, function: Callable[[], Any]) -> Program:
    def host() -> None:
        function()

    made = Program(code)
    made.linker.define_func("host", "f", signature("->"), host)
    return made


def test_it_comes_again(reported: list[object]) -> None:
    """A lost interrupt comes again: it ends a guest that goes on for ever, and no hook gets it."""
    endless = program(FOR_EVER, Interrupted)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            endless.run()
    assert reported == []


def test_another_that_comes_in_the_hook(reported: list[object]) -> None:
    """A second Ctrl-C right after the first, before the hook has begun, is not lost either."""

    def generator() -> Generator[None]:
        yield

    def function() -> None:
        call: Any = operator.call
        # All in C: Python would run the handler of the second in the ``__del__``.
        both: tuple[Any, ...] = (_thread.interrupt_main, partial(generator().throw, KeyboardInterrupt))

        class InterruptedTwice:
            __del__: Any = staticmethod(partial(deque, map(call, both)))

        InterruptedTwice()

    with pytest.raises(KeyboardInterrupt):
        program(FOR_EVER, function).run()
    assert reported == []


def test_one_that_comes_in_the_hosts_hook() -> None:
    """While that hook reports another error."""

    def hook(_: sys.UnraisableHookArgs) -> None:
        signal.raise_signal(signal.SIGINT)

    sys.unraisablehook, before = hook, sys.unraisablehook
    try:
        with pytest.raises(KeyboardInterrupt):
            program(FOR_EVER, Failing).run()
    finally:
        sys.unraisablehook = before


def test_other_errors_go_to_the_hosts_hook(reported: list[object]) -> None:
    """Other errors, and interrupts in other threads, go to the host's hook."""

    def in_thread() -> None:
        thread = threading.Thread(target=lambda: fail_in_del(KeyboardInterrupt))
        thread.start()
        thread.join()

    def fail_in_del(error: type[BaseException]) -> None:
        class Other:
            def __del__(self) -> None:
                raise error

        Other()

    assert program(ONCE, Failing).run() == 0
    assert program(ONCE, in_thread).run() == 0
    assert reported == [LookupError, KeyboardInterrupt]


def test_where_ctrl_c_has_no_handler(reported: list[object]) -> None:
    """The KeyboardInterrupt of another signal is reported, as without greenctx: there is nothing to deliver it by."""

    class Other:
        def __del__(self) -> None:
            raise KeyboardInterrupt

    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert program(ONCE, Other).run() == 0
    finally:
        signal.signal(signal.SIGINT, handler)
    assert reported == [KeyboardInterrupt]


def test_in_a_program_within_another() -> None:
    """The outer one's hook is there again when the inner one has ended."""

    def nested() -> None:
        assert program(ONCE, int).run() == 0
        Interrupted()

    with pytest.raises(KeyboardInterrupt):
        program(FOR_EVER, nested).run()


def test_in_another_thread(reported: list[object]) -> None:
    """A program in another thread sets no hook, because signals do not interrupt it."""
    before, seen = sys.unraisablehook, []
    thread = threading.Thread(target=program(ONCE, lambda: seen.append(sys.unraisablehook)).run)
    thread.start()
    thread.join()
    assert seen == [before]
    assert reported == []


@contextmanager
def a_hook_of_somebody_elses() -> Iterator[list[object]]:
    """Set and put back, as test frameworks do."""
    before = sys.unraisablehook
    told: list[object] = []

    def hook(lost: sys.UnraisableHookArgs) -> None:
        told.append(lost.exc_type)
        before(lost)

    sys.unraisablehook = hook
    try:
        yield told
    finally:
        sys.unraisablehook = before


def test_a_hook_that_is_set_meanwhile(reported: list[object]) -> None:
    """A hook set meanwhile is called first, and stays."""

    def function() -> None:
        with a_hook_of_somebody_elses() as told:
            Interrupted()
            assert told == [KeyboardInterrupt]

    with pytest.raises(KeyboardInterrupt):
        program(FOR_EVER, function).run()
    assert reported == []
    with a_hook_of_somebody_elses():
        hook = sys.unraisablehook
        assert program(ONCE, int).run() == 0
        assert sys.unraisablehook is hook


def test_runs_that_overlap(reported: list[object]) -> None:
    """Runs may overlap, as under gevent: whichever ends first, no hook is left after the last."""
    first, second, third = LostInterrupts(), LostInterrupts(), LostInterrupts()
    first.__enter__()
    second.__enter__()
    first.__exit__()
    third.__enter__()
    second.__exit__()
    Failing()
    assert reported == [LookupError]
    third.__exit__()  # the fixture looks whether its own hook is there
