"""Which switch is in use. (All other tests hold on both paths: ``GREENCTX_PURE=1 pytest`` runs them on Python's.)"""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from functools import partial
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from inspect import isfunction, isgetsetdescriptor, isroutine
from typing import TYPE_CHECKING

import pytest
from processes import TIMEOUT
from recorder import Recorder

from greenctx import ContextSwitchingEnvironment, Instrument
from greenctx._core.admission import Admission
from greenctx._core.context import Context, Registry
from greenctx._core.switching import COMPILED, Coroutine, Switching, Tables
from greenctx._reports.reporting_environment import ReportingEnvironment

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType


def test_the_one_that_was_asked_for() -> None:
    """It is the compiled switch, which an install may silently leave out, unless GREENCTX_PURE is set."""
    assert COMPILED is (os.environ.get("GREENCTX_PURE", "0") in ("", "0"))
    module = "greenctx._core._switching" if COMPILED else "greenctx._core.switching"
    assert {base.__module__ for base in (Coroutine, Switching, Tables)} == {module}
    assert (Context.__bases__, Admission.__bases__, Registry.__bases__) == ((Coroutine,), (Switching,), (Tables,))


def test_the_switch_can_be_looked_up() -> None:
    """help() and inspect.signature find the switch's parameters and docstring, on both paths."""
    switch = ContextSwitchingEnvironment.switch_context
    assert [*inspect.signature(switch).parameters] == ["self", "context_id"]
    assert [*inspect.signature(ContextSwitchingEnvironment().switch_context).parameters] == ["context_id"]
    assert (inspect.getdoc(switch) or "").startswith("Suspend the active context and resume that one; return when")


TWINS: dict[str, dict[str, list[str]]] = {
    "greenctx._core.switching": {"Tables": [], "Coroutine": ["run"], "Switching": ["switch_context", "_cancel"]},
    "greenctx._reports.delivery": {"Subscriber": [], "Delivery": ["deliver"]},
    "greenctx._instruments.tracks": {"Activity": ["now", "switch", "cut_calls", "begin_call", "end_call"]},
}
"""By module: its compiled classes in their order, and of each the methods that Python calls."""


def in_python(name: str) -> ModuleType:
    """Load a module once more, without its compiled twin."""
    found = find_spec(name)
    assert found is not None
    spec = spec_from_file_location("in_python", found.origin)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GREENCTX_PURE", "1")
        spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(not COMPILED, reason="there is one specification, and here no twin")
@pytest.mark.parametrize("module", TWINS)
def test_the_twins_have_the_same_names_in_the_same_order(module: str) -> None:
    """The compiled twin has the same classes, methods, parameters, docstrings and attributes as the Python code."""
    package, _, name = module.rpartition(".")
    ours, theirs, names = in_python(module), import_module(f"{package}._{name}"), TWINS[module]
    classes = [
        name for name, value in vars(ours).items() if isinstance(value, type) and value.__module__ == "in_python"
    ]
    assert [*names] == [name for name in classes if name != "Tracks"]  # which has no twin
    assert [*names] == [name for name, value in vars(theirs).items() if isinstance(value, type) and name in names]
    for name, methods in names.items():
        one, other = vars(ours)[name], vars(theirs)[name]
        assert getattr(import_module(module), name) is other
        assert inspect.getdoc(other) == inspect.getdoc(one)
        assert {*one.__slots__} == {each for each, value in vars(other).items() if isgetsetdescriptor(value)}
        compiled = [each for each, value in vars(other).items() if isroutine(value) and not each.startswith("__")]
        # The rest is called in C only.
        assert compiled == methods
        assert compiled == [each for each, value in vars(one).items() if isfunction(value) and each in compiled]
        for method in compiled:
            its, others = getattr(one, method), getattr(other, method)
            assert [*inspect.signature(its).parameters] == [*inspect.signature(others).parameters]
            assert inspect.getdoc(its) == inspect.getdoc(others)


def test_the_twins_write_the_same_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of switches at all kinds of times: within host calls, from contexts that have ended, at once, after years."""
    texts = []
    for module in (in_python("greenctx._instruments.tracks"), import_module("greenctx._instruments.tracks")):
        times, processor_times = iter([1000, 1000, 2234, 10**6, 10**17]), iter([0, 5, 1239, 10**6, 10**16])
        monkeypatch.setattr(module, "perf_counter_ns", partial(next, times))
        monkeypatch.setattr(module, "thread_time_ns", partial(next, processor_times))
        tracks, flows, lines = module.Tracks(7, 1000), iter([1, 2, 3, 10**12, 2**40]), list[str]()
        tracks.begin(0, "main")
        tracks.begin(1, 'a "worker" ☃')
        tracks.begin(2**31, "x" * 5000)
        due = [tracks.switch(0, 1, flows, lines), tracks.switch(0, 1, flows, lines)]
        tracks.calls[1] = [("host.outer", 0), ("host.inner", 3)]
        due += [tracks.switch(1, 2**31, flows, lines)]
        tracks.gone(2**31)
        tracks.sampled = 10**6
        due += [tracks.switch(2**31, 3, flows, lines), tracks.switch(3, 0, flows, lines)]
        assert due == [True, False, True, False, True]
        assert [*tracks.names] == [0, 1]
        assert tracks.last == tracks.since - 1
        texts.append(",\n".join([*lines, *tracks.pieces(0, tracks.last, 10**16 + 1)]))
    assert texts[0] == texts[1]
    assert len(texts[0].splitlines()) == 4 * 3 + 2 + 1
    assert '"id":1,"pid":7,"tid":1,"ts":0.005}' in texts[0]
    assert '"id":1000000000000,"pid":7,"tid":4,"ts":99999999999998.999}' in texts[0]


@pytest.mark.parametrize(
    ("value", "which"), [(None, "compiled"), ("", "compiled"), ("0", "compiled"), ("1", "pure Python")]
)
def test_version(value: str | None, which: str) -> None:
    """``greenctx --version`` says which."""
    environ = {name: text for name, text in os.environ.items() if name != "GREENCTX_PURE"}
    if value is not None:
        environ["GREENCTX_PURE"] = value
    command = [sys.executable, "-m", "greenctx", "--version"]
    ran = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=TIMEOUT, check=True)
    name, number, *rest = ran.stdout.split()
    assert name == "greenctx"
    assert number[0].isdigit()
    assert " ".join(rest).endswith(f"switches: {which}")


class Faulty(Recorder):
    """Is told of switches until it raises, at the first one."""

    def context_switched(self, *_: object) -> None:
        raise ZeroDivisionError


def events_of(env: ContextSwitchingEnvironment) -> int:
    """How many events an environment has had."""
    return env._reports.told if isinstance(env, ReportingEnvironment) else 0


@pytest.mark.skipif(not COMPILED, reason="the pure Python path calls Python")
@pytest.mark.parametrize("instruments", [(), (Instrument,), (Faulty,)], ids=["none", "an idle one", "a removed one"])
def test_a_plain_switch_calls_no_python(instruments: tuple[Callable[[], object], ...]) -> None:
    """A plain switch calls no Python of the environment: a profiler sees only the contexts' own code.

    So it is with instruments, too, if none of them is told of switches: such a switch is no event.
    """
    env = ContextSwitchingEnvironment(instruments=[make() for make in instruments])
    calls: list[str] = []

    def other() -> None:
        while True:
            env.switch_context(0)

    def profile(frame: object, event: str, _: object) -> None:
        if event == "call":
            calls.append(str(frame))

    def main() -> None:
        context = env.create_context(other)
        env.switch_context(context)
        events = events_of(env)
        sys.setprofile(profile)
        for _ in range(100):
            env.switch_context(context)
        sys.setprofile(None)
        assert events_of(env) == events
        if instruments:
            assert [info.switches for info in env.contexts()] == [101, 101]

    env.run_main_context(main)
    assert calls == []


def test_a_subclass_may_override_the_switch() -> None:
    """A subclass may override the switch, as in any Python class."""
    seen: list[int] = []

    class Noting(ContextSwitchingEnvironment):
        def switch_context(self, context_id: int) -> None:
            seen.append(context_id)
            super().switch_context(context_id)

    env = Noting()
    env.run_main_context(lambda: env.switch_context(env.create_context(lambda: env.switch_context(0))))
    assert seen == [1, 0]
