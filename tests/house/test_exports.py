"""The public names: each can be imported in every way, also those imported on first use, and `help` explains it."""

from __future__ import annotations

import inspect
import sys
from typing import TYPE_CHECKING, Any

import pytest

import greenctx
import greenctx.wasix

if TYPE_CHECKING:
    from types import ModuleType

LATER = ("ContextInfo", "Instrument", "Statistics", "Trace")


@pytest.fixture(autouse=True)
def unused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the names imported on first use."""
    for name in LATER:
        monkeypatch.delitem(vars(greenctx), name, raising=False)


def test_star() -> None:
    names: dict[str, Any] = {}
    exec("from greenctx import *", names)
    assert {*names} - {"__builtins__"} == {*greenctx.__all__}
    for name in greenctx.__all__:
        assert names[name].__name__ == name


def test_each() -> None:
    from greenctx._instruments.statistics import Statistics
    from greenctx._reports.snapshot import ContextInfo

    assert greenctx.ContextInfo is ContextInfo
    assert greenctx.Statistics is Statistics
    assert "Statistics" in vars(greenctx)  # and is found there from now on


def test_dir() -> None:
    assert {*greenctx.__all__, "__version__"} <= {*dir(greenctx)}
    assert dir(greenctx) == sorted({*dir(greenctx)})


def test_others() -> None:
    with pytest.raises(AttributeError, match="module 'greenctx' has no attribute 'Nothing'"):
        greenctx.Nothing  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'Nothing' from 'greenctx'"):
        exec("from greenctx import Nothing")


@pytest.mark.parametrize("module", [greenctx, greenctx.wasix], ids=lambda module: module.__name__)
def test_help(module: ModuleType) -> None:
    """Each public name, and each public method, has a docstring of its own words, and a signature."""
    for name in module.__all__:
        public = getattr(module, name)
        assert inspect.signature(public)
        assert (inspect.getdoc(public) or "").partition("\n")[0].endswith("."), name
        for each in filter(inspect.isclass, [public]):
            for method, defined in vars(each).items():
                if inspect.isfunction(defined) and not method.startswith("_"):
                    assert inspect.getdoc(getattr(each, method)), f"{name}.{method}"


def test_without_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment does not import logging: until other code does, no logger is enabled."""
    monkeypatch.delitem(sys.modules, "logging")
    assert type(greenctx.ContextSwitchingEnvironment()) is greenctx.ContextSwitchingEnvironment
    assert "logging" not in sys.modules
