"""Which switch is in use. (All other tests hold on both paths: ``GREENCTX_PURE=1 pytest`` runs them on Python's.)"""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from inspect import isfunction, isgetsetdescriptor, isroutine

import pytest
from processes import TIMEOUT

from greenctx import ContextSwitchingEnvironment
from greenctx._core import switching
from greenctx._core.admission import Admission
from greenctx._core.context import Context, Registry
from greenctx._core.switching import COMPILED, Coroutine, Switching, Tables

if COMPILED:
    from greenctx._core import _switching  # type: ignore[attr-defined]


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


@pytest.mark.skipif(not COMPILED, reason="there is one specification, and here no twin")
def test_the_twins_have_the_same_names_in_the_same_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiled twin has the same classes, methods, parameters, docstrings and attributes as the Python code."""
    monkeypatch.setenv("GREENCTX_PURE", "1")
    spec = spec_from_file_location("in_python", switching.__file__)
    assert spec is not None
    assert spec.loader is not None
    in_python = module_from_spec(spec)
    spec.loader.exec_module(in_python)
    assert in_python.COMPILED is False

    names = [name for name, value in vars(in_python).items() if getattr(value, "__module__", None) == "in_python"]
    assert names == ["Tables", "Coroutine", "Switching"]
    assert names == [name for name, value in vars(_switching).items() if isinstance(value, type) and name in names]
    for name in names:
        ours, theirs = vars(in_python)[name], vars(_switching)[name]
        assert inspect.getdoc(theirs) == inspect.getdoc(ours)
        assert {*ours.__slots__} == {each for each, value in vars(theirs).items() if isgetsetdescriptor(value)}
        compiled = [each for each, value in vars(theirs).items() if isroutine(value) and not each.startswith("__")]
        methods = [each for each, value in vars(ours).items() if isfunction(value) and not each.startswith("__")]
        # The rest is called in C only.
        assert compiled == [each for each in methods if each in compiled]
        assert compiled == {"Tables": [], "Coroutine": ["run"], "Switching": ["switch_context", "_cancel"]}[name]
        for method in compiled:
            one, other = getattr(ours, method), getattr(theirs, method)
            assert [*inspect.signature(one).parameters] == [*inspect.signature(other).parameters]
            assert inspect.getdoc(one) == inspect.getdoc(other)


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


@pytest.mark.skipif(not COMPILED, reason="the pure Python path calls Python")
def test_a_plain_switch_calls_no_python() -> None:
    """A plain switch calls no Python of the environment: a profiler sees only the contexts' own code."""
    env = ContextSwitchingEnvironment()
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
        sys.setprofile(profile)
        for _ in range(100):
            env.switch_context(context)
        sys.setprofile(None)

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
