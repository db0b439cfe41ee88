"""Instruments: an environment without them, the events that they get, and instruments that misbehave."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import pytest
from contexts import MAIN, go_to_main, raises, start, then_main
from greenlet import getcurrent
from interruptions import interrupt_first_call
from recorder import Event, Recorder

from greenctx import (
    ContextSwitchingEnvironment,
    EnvironmentAlreadyUsed,
    EnvironmentNotRunning,
    Instrument,
    NotTheActiveContext,
    TooManyContexts,
    WrongThread,
    current_environment,
)
from greenctx._core.context import Context, name_of
from greenctx._reports.reports import EVENTS

if TYPE_CHECKING:
    from collections.abc import Callable

OPERATIONS = ("active_context_id", "create_context", "destroy_context", "run_main_context", "switch_context")


def recorded(main: Callable[[ContextSwitchingEnvironment], object]) -> list[Event]:
    """The events of an environment."""
    recorder = Recorder()
    env = ContextSwitchingEnvironment(instruments=[recorder])
    env.run_main_context(main, env)
    return recorder.events


def test_without_instruments_nothing_is_different() -> None:
    """The operations of an environment without instruments are those of the class, and no others come in between."""
    for env in (ContextSwitchingEnvironment(), ContextSwitchingEnvironment(instruments=[])):
        assert type(env) is ContextSwitchingEnvironment
        assert not hasattr(env, "_reports")
    for operation in OPERATIONS:
        owner = next(cls for cls in ContextSwitchingEnvironment.__mro__ if operation in vars(cls))
        assert owner.__module__.startswith("greenctx._core.")


def test_the_events_are_the_methods_of_an_instrument() -> None:
    """The reported events are the methods that the class documents, in the same order."""
    assert [name for name in vars(Instrument) if not name.startswith("_")] == [*EVENTS]


def test_with_instruments_it_is_still_one() -> None:
    """An environment with instruments passes for any other, and its class goes by the same name."""
    env = ContextSwitchingEnvironment(instruments=[Recorder()])
    assert isinstance(env, ContextSwitchingEnvironment)
    assert repr(env) == "<ContextSwitchingEnvironment that has not run yet>"
    assert (type(env).__module__, type(env).__qualname__) == ("greenctx.environment", "ContextSwitchingEnvironment")
    assert env.run_main_context(lambda: current_environment() is env)
    assert type(ContextSwitchingEnvironment(instruments=[Recorder()])) is type(env)
    assert type(ContextSwitchingEnvironment()) is ContextSwitchingEnvironment


def test_the_type_of_one_with_instruments_makes_others() -> None:
    """Environments made by the type of one with instruments have none, unless given, and work all the same."""
    env = type(ContextSwitchingEnvironment(instruments=[Recorder()]))()
    assert env.run_main_context(lambda: start(env, go_to_main(env))) == 1
    recorder = Recorder()
    env = type(env)(instruments=[recorder])
    env.run_main_context(list)
    assert recorder.events == [("started", 0), ("ended", 0, None)]


def test_classes_of_ones_own_have_instruments_too() -> None:
    """A subclass keeps its own methods, which are called by those that report."""
    switches: list[int] = []

    class Own(ContextSwitchingEnvironment):
        def __init__(self) -> None:
            super().__init__(instruments=[recorder])

        def switch_context(self, context_id: int) -> None:
            switches.append(context_id)
            super().switch_context(context_id)

    recorder = Recorder()
    env = Own()
    env.run_main_context(lambda: start(env, go_to_main(env)))
    assert isinstance(env, Own)
    assert switches == [1, 0]
    assert ("switched", 1, 0) in recorder.events


def test_a_life_of_contexts() -> None:
    """Each event is told in its order: creation, start, switches, ends and destruction."""

    def main(env: ContextSwitchingEnvironment) -> None:
        context = start(env, go_to_main(env))
        unstarted = env.create_context(list)
        env.destroy_context(unstarted)
        env.switch_context(MAIN)
        env.destroy_context(99)
        with pytest.raises(KeyError):
            start(env, raises(KeyError("x")))
        env.destroy_context(context)

    assert recorded(main) == [
        ("started", 0),
        ("created", 1),
        ("switched", 0, 1),
        ("started", 1),
        ("switched", 1, 0),
        ("created", 2),
        ("destroyed", 2),
        ("created", 3),
        ("switched", 0, 3),
        ("started", 3),
        ("ended", 3, "KeyError('x')"),
        ("switched", 3, 0),
        ("canceled", 1),
        ("switched", 0, 1),
        ("ended", 1, "ContextCanceled(1)"),
        ("switched", 1, 0),
        ("destroyed", 1),
        ("ended", 0, None),
    ]


def test_the_end_of_main_is_told() -> None:
    """The remaining contexts are destroyed after main has ended, and then the environment ends."""
    ended: list[ContextSwitchingEnvironment] = []

    class Last(Recorder):
        def environment_ended(self, environment: ContextSwitchingEnvironment) -> None:
            ended.append(environment)
            assert self.events[-5:] == [
                ("ended", 0, "ValueError()"),
                ("canceled", 1),
                ("switched", 0, 1),
                ("ended", 1, "ContextCanceled(1)"),
                ("switched", 1, 0),
            ] or self.events[-1] == ("destroyed", 1)

    def main() -> None:
        start(env, go_to_main(env))
        raise ValueError

    env = ContextSwitchingEnvironment(instruments=[Last()])
    with pytest.raises(ValueError, match=r"^$"):
        env.run_main_context(main)
    assert ended == [env]


def test_entrypoints_are_told_as_they_were_given() -> None:
    """Neither instruments nor `contexts` see the wrapper that reports."""
    seen: list[object] = []

    class Entrypoints:
        def context_created(self, _: ContextSwitchingEnvironment, _id: int, entrypoint: Callable[[], object]) -> None:
            seen.append(entrypoint)

    def worker() -> None: ...

    def main() -> None:
        env.create_context(worker)
        assert [info.entrypoint for info in env.contexts()] == [None, worker]

    env = ContextSwitchingEnvironment(instruments=[Entrypoints()])
    env.run_main_context(main)
    assert seen == [worker]


def test_names_of_entrypoints() -> None:
    """Wrappers are looked through; what has no name has that of its type."""

    class Invocable:
        def __call__(self) -> None: ...

        def method(self) -> None: ...

    assert name_of(test_names_of_entrypoints) == "test_names_of_entrypoints"
    assert name_of(partial(partial(pow, 1), 2)) == "pow"
    assert name_of(Invocable().method) == "method"
    assert name_of(Invocable()) == "Invocable"
    ring = Invocable()
    ring.__wrapped__ = ring  # type: ignore[attr-defined]
    assert name_of(ring) == "Invocable"


@pytest.mark.parametrize("method", [name for name in vars(Instrument) if not name.startswith(("_", "host"))])
def test_an_instrument_that_raises_is_removed(method: str, caplog: pytest.LogCaptureFixture) -> None:
    """An instrument that raises is logged with its traceback, once, and gets no more events; the program goes on."""

    class Faulty(Instrument):
        calls = 0

    def fail(self: Faulty, *_: object) -> None:
        self.calls += 1
        raise ZeroDivisionError

    def entrypoint() -> None:
        while True:
            env.switch_context(MAIN)

    def main() -> str:
        context = start(env, entrypoint)
        env.switch_context(context)
        env.destroy_context(context)
        env.destroy_context(start(env, entrypoint))
        return "done"

    setattr(Faulty, method, fail)
    faulty, before, after = Faulty(), Recorder(), Recorder()
    env = ContextSwitchingEnvironment(instruments=[before, faulty, after])
    assert env.run_main_context(main) == "done"
    assert faulty.calls == 1
    assert before.events == after.events
    assert len(before.events) > 15
    [record] = caplog.records
    assert (record.name, record.levelno) == ("greenctx", logging.ERROR)
    assert f"raised in {method} and is removed; the program goes on" in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


def test_what_is_not_an_instruments_error_comes_out() -> None:
    """A KeyboardInterrupt in an instrument is the program's; nothing is lost by it, and the instrument stays."""

    class Interrupted(Recorder):
        def context_switched(self, environment: ContextSwitchingEnvironment, from_id: int, to_id: int) -> None:
            if not interrupted:
                interrupted.append(True)
                raise KeyboardInterrupt
            super().context_switched(environment, from_id, to_id)

    interrupted: list[bool] = []
    log: list[str] = []

    def entrypoint() -> None:
        log.append("started")
        env.switch_context(MAIN)

    def main() -> None:
        context = env.create_context(entrypoint)
        with pytest.raises(KeyboardInterrupt):
            env.switch_context(context)
        assert log == []  # it came before the first line
        assert env.active_context_id == MAIN

    recorder = Interrupted()
    env = ContextSwitchingEnvironment(instruments=[recorder])
    env.run_main_context(main)
    assert recorder.events == [
        ("started", 0),
        ("created", 1),
        ("switched", 0, 1),
        ("ended", 1, "KeyboardInterrupt()"),
        ("switched", 1, 0),
        ("ended", 0, None),
    ]


def test_instruments_must_not_call_back(caplog: pytest.LogCaptureFixture) -> None:
    """An operation within an instrument is refused, which removes it. To look is not: the stacks, or who is active."""
    errors: list[BaseException] = []

    class Meddling(Instrument):
        def context_switched(self, environment: ContextSwitchingEnvironment, _from: int, _to: int) -> None:
            assert [info.id for info in environment.contexts()] == [0, 1]
            assert "context 1 (" in environment.format_stacks()
            assert environment.active_context_id == current_environment().active_context_id == 1
            for operation in (
                lambda: environment.switch_context(0),
                lambda: environment.create_context(list),
                lambda: environment.destroy_context(0),
            ):
                with pytest.raises(NotTheActiveContext, match="the call came from an instrument") as caught:
                    operation()
                errors.append(caught.value)
            raise errors[0]

    env = ContextSwitchingEnvironment(instruments=[Meddling()])
    env.run_main_context(lambda: start(env, go_to_main(env)))
    assert len(errors) == 3
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    "thing", [None, 3, "text", object(), Recorder], ids=["None", "number", "text", "object", "class"]
)
def test_things_that_are_no_instruments_are_refused(thing: object) -> None:
    """A TypeError says what an instrument is; a class in place of its instance is refused."""
    with pytest.raises(TypeError, match=r"an instrument is an object with methods of greenctx\.Instrument, not "):
        ContextSwitchingEnvironment(instruments=[thing])


def test_refusals_are_the_same() -> None:
    """Misuse is refused with the same errors as without instruments, and is not told as anything."""
    from threading import Thread

    recorder = Recorder()
    env = ContextSwitchingEnvironment(max_contexts=1, instruments=[recorder])
    errors: list[BaseException] = []

    def elsewhere() -> None:
        for operation in (lambda: env.switch_context(0), lambda: env.active_context_id):
            with pytest.raises(WrongThread) as caught:
                operation()
            errors.append(caught.value)

    def main() -> None:
        thread = Thread(target=elsewhere)
        thread.start()
        thread.join()
        with pytest.raises(TypeError, match="must be callable, not 3"):
            env.create_context(3)  # type: ignore[arg-type]
        env.create_context(list)
        with pytest.raises(TooManyContexts):
            env.create_context(list)
        with pytest.raises(TypeError, match="unhashable"):
            env.switch_context([])  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="unhashable"):
            env.destroy_context([])  # type: ignore[arg-type]
        with pytest.raises(EnvironmentAlreadyUsed):
            env.run_main_context(list)

    for operation in (lambda: env.switch_context(0), lambda: env.active_context_id):
        with pytest.raises(EnvironmentNotRunning, match="has not run yet"):
            operation()
    env.run_main_context(main)
    with pytest.raises(EnvironmentAlreadyUsed):
        env.run_main_context(list)
    assert len(errors) == 2
    assert recorder.events == [("started", 0), ("created", 1), ("ended", 0, None), ("destroyed", 1)]


def test_a_long_chain_of_starts() -> None:
    """Contexts that each start the next one nest no deeper with instruments than without."""
    count = 20_000

    class Counter(Instrument):
        started = 0

        def context_started(self, _: ContextSwitchingEnvironment, _id: int) -> None:
            self.started += 1

    def entrypoint() -> None:
        if env.active_context_id < count:
            env.switch_context(env.create_context(entrypoint))
        env.switch_context(MAIN)

    def main() -> None:
        start(env, entrypoint)

    counter = Counter()
    env = ContextSwitchingEnvironment(instruments=[counter])
    env.run_main_context(main)
    assert counter.started == count + 1


def test_environments_nest() -> None:
    """Each tells its own events, to its own instruments."""
    outer, inner = Recorder(), Recorder()
    env = ContextSwitchingEnvironment(instruments=[outer])

    def entrypoint() -> None:
        nested = ContextSwitchingEnvironment(instruments=[inner])
        nested.run_main_context(lambda: start(nested, go_to_main(nested)))
        env.switch_context(MAIN)

    env.run_main_context(lambda: start(env, entrypoint))
    assert outer.events[:5] == [
        ("started", 0),
        ("created", 1),
        ("switched", 0, 1),
        ("started", 1),
        ("switched", 1, 0),
    ]
    assert inner.events == outer.events


def test_a_context_that_is_interrupted_before_its_first_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A context interrupted before its first line is reported as ended, whether main or another context started it."""

    def main() -> None:
        context = start(env, go_to_main(env))
        interrupt_first_call(monkeypatch, Context, "run")
        with pytest.raises(KeyboardInterrupt):
            start(env, list)
        env.destroy_context(context)
        starter = env.create_context(then_main(env, lambda: start(env, list)))
        started.append(starter)
        with pytest.raises(KeyboardInterrupt):
            env.switch_context(starter)

    class Starts(Recorder):
        def context_started(self, environment: ContextSwitchingEnvironment, context_id: int) -> None:
            super().context_started(environment, context_id)
            if [context_id] == started:
                interrupt_first_call(monkeypatch, Context, "run")

    started: list[int] = []
    recorder = Starts()
    env = ContextSwitchingEnvironment(instruments=[recorder])
    env.run_main_context(main)
    events = recorder.events
    assert [event for event in events if 2 in event[1:2]] == [("created", 2), ("ended", 2, "KeyboardInterrupt()")]
    assert [event for event in events if 4 in event[1:2]] == [("created", 4), ("ended", 4, "KeyboardInterrupt()")]


def test_an_end_that_is_interrupted_is_told_once() -> None:
    """Should an interruption come while the end of a context is told, it is told as it was."""

    class Interrupting(Recorder):
        interrupted = False

        def context_ended(
            self, environment: ContextSwitchingEnvironment, context_id: int, error: BaseException | None
        ) -> None:
            if context_id == 1 and not self.interrupted:
                self.interrupted = True
                raise KeyboardInterrupt
            super().context_ended(environment, context_id, error)

    recorder = Interrupting()
    env = ContextSwitchingEnvironment(instruments=[recorder])
    with pytest.raises(KeyboardInterrupt):
        env.run_main_context(lambda: start(env, list))
    assert [event for event in recorder.events if event[0] == "ended"] == [
        ("ended", 1, None),
        ("ended", 0, "KeyboardInterrupt()"),
    ]


def test_what_is_done_behind_its_back_does_no_harm() -> None:
    """The operations of the class itself, called by that, are found out about later, or not at all."""
    base = ContextSwitchingEnvironment

    def main() -> None:
        env.create_context(list)
        assert base.create_context(env, list) == 2
        assert base.destroy_context(env, 1)
        assert base.destroy_context(env, 2)
        assert base.create_context(env, list) == 3
        assert env.active_context_id == MAIN

    recorder = Recorder()
    env = ContextSwitchingEnvironment(instruments=[recorder])
    env.run_main_context(main)
    assert recorder.events == [
        ("started", 0),
        ("created", 1),
        ("created", 3),
        ("ended", 0, None),
        ("destroyed", 3),
        ("ended", 1, None),
    ]


def test_a_switch_finds_what_was_done_behind_its_back() -> None:
    """A creation comes before the switch that follows it, by the context that switches or by the one it resumes."""
    base = ContextSwitchingEnvironment

    def entrypoint() -> None:
        env.switch_context(MAIN)
        base.create_context(env, list)
        base.switch_context(env, MAIN)
        env.switch_context(MAIN)

    def main() -> None:
        context = start(env, entrypoint)
        env.switch_context(context)
        base.create_context(env, list)
        env.switch_context(context)

    recorder = Recorder()
    env = ContextSwitchingEnvironment(instruments=[recorder])
    env.run_main_context(main)
    assert recorder.events[4:10] == [
        ("switched", 1, 0),
        ("switched", 0, 1),
        ("created", 2),
        ("switched", 1, 0),
        ("created", 3),
        ("switched", 0, 1),
    ]


def test_an_instrument_that_is_removed_is_told_nothing_more(caplog: pytest.LogCaptureFixture) -> None:
    """Not even what has happened by then."""

    class Faulty(Instrument):
        calls = 0

        def context_created(self, *_: object) -> None:
            self.calls += 1
            raise ZeroDivisionError

    def main() -> None:
        ContextSwitchingEnvironment.create_context(env, list)
        ContextSwitchingEnvironment.create_context(env, list)
        assert env.active_context_id == MAIN

    faulty = Faulty()
    env = ContextSwitchingEnvironment(instruments=[faulty])
    env.run_main_context(main)
    assert faulty.calls == 1
    assert len(caplog.records) == 1


def test_a_switch_that_an_instrument_asks_for_changes_nothing() -> None:
    """It is refused before any other context runs."""
    log: list[object] = []

    class Meddling(Instrument):
        def context_switched(self, environment: ContextSwitchingEnvironment, _from: int, to_id: int) -> None:
            with pytest.raises(NotTheActiveContext):
                environment.switch_context(1 - to_id)
            log.append(to_id)

    def entrypoint() -> None:
        while True:
            log.append("worker")
            env.switch_context(MAIN)

    def main() -> None:
        context = env.create_context(entrypoint)
        for _ in range(2):
            env.switch_context(context)
            log.append("main")
        env.destroy_context(context)

    env = ContextSwitchingEnvironment(instruments=[Meddling()])
    env.run_main_context(main)
    assert log == [1, "worker", 0, "main", 1, "worker", 0, "main", 1, 0]


def test_a_switch_that_is_refused_is_not_taken_for_the_latest(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a context that was interrupted before its first line is found by the latest switch."""

    def interrupted(*_: object) -> None:
        monkeypatch.undo()
        with suppress(WrongThread):
            run_in_thread(lambda: env.switch_context(MAIN))
        raise KeyboardInterrupt

    def main() -> None:
        monkeypatch.setattr(Context, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            start(env, list)

    recorder = Recorder()
    env = ContextSwitchingEnvironment(instruments=[recorder])
    env.run_main_context(main)
    assert recorder.events[1:3] == [("created", 1), ("ended", 1, "KeyboardInterrupt()")]


def run_in_thread(function: Callable[[], object]) -> None:
    """Run a function in another thread; raise what it raises."""
    with ThreadPoolExecutor() as pool:
        pool.submit(function).result()


def test_an_interruption_between_contexts_that_have_started() -> None:
    """A switch that an instrument was not told, because it was interrupted, is told before the next one, once."""

    class Interrupted(Recorder):
        def context_switched(self, environment: ContextSwitchingEnvironment, from_id: int, to_id: int) -> None:
            if [to_id] == due:
                due.clear()
                raise KeyboardInterrupt
            super().context_switched(environment, from_id, to_id)

    due: list[int] = []

    def entrypoint() -> None:
        while True:
            with suppress(KeyboardInterrupt):
                env.switch_context(MAIN)

    def main() -> None:
        context = start(env, entrypoint)
        for interrupted_id in (context, MAIN):
            due.append(interrupted_id)
            with suppress(KeyboardInterrupt):
                env.switch_context(context)
            assert due == []

    recorders = Interrupted(), Recorder()
    env = ContextSwitchingEnvironment(instruments=recorders)
    env.run_main_context(main)
    for recorder in recorders:
        assert recorder.events[2:9] == [
            ("switched", 0, 1), ("started", 1), ("switched", 1, 0),
            ("switched", 0, 1), ("switched", 1, 0), ("switched", 0, 1), ("switched", 1, 0),
        ]  # fmt: skip


def test_an_instrument_that_waits_is_told_the_rest_later() -> None:
    """While an instrument waits (for gevent, say) other contexts go on; what they do is told when it goes on, too."""

    class Waiting(Recorder):
        def context_canceled(self, environment: ContextSwitchingEnvironment, context_id: int) -> None:
            super().context_canceled(environment, context_id)
            other.switch()
            self.events.append(("goes on",))

    other = main_greenlet = getcurrent()

    def entrypoint() -> None:
        nonlocal other
        other = getcurrent()
        env.switch_context(MAIN)
        assert env.active_context_id == 1
        env.create_context(list)
        main_greenlet.switch()

    def main() -> None:
        start(env, entrypoint)
        env.destroy_context(start(env, go_to_main(env)))

    recorder = Waiting()
    env = ContextSwitchingEnvironment(instruments=[recorder])
    env.run_main_context(main)
    position = recorder.events.index(("goes on",))
    assert recorder.events[position - 1 : position + 4] == [
        ("canceled", 2),
        ("goes on",),
        ("switched", 0, 1),
        ("created", 3),
        ("switched", 1, 2),
    ]


def test_a_context_that_is_being_destroyed_already() -> None:
    """To destroy it again does nothing, and nothing is told of it."""
    recorder, again = Recorder(), []
    env = ContextSwitchingEnvironment(instruments=[recorder])

    def first() -> None:
        try:
            env.switch_context(0)
        finally:
            env.destroy_context(2)

    def second() -> None:
        try:
            env.switch_context(0)
        finally:
            again.append(env.destroy_context(1))

    def main() -> None:
        for entrypoint in (first, second):
            env.switch_context(env.create_context(entrypoint))
        assert env.destroy_context(1)

    env.run_main_context(main)
    assert again == [False]
    told = [event[:2] for event in recorder.events if event[0] in ("canceled", "ended", "destroyed")]
    assert told == [
        ("canceled", 1), ("canceled", 2), ("ended", 2), ("destroyed", 2), ("ended", 1), ("destroyed", 1), ("ended", 0),
    ]  # fmt: skip
