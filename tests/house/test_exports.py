"""The public names: each is there however it is asked for, those that are imported when they are used among them."""

from __future__ import annotations

import sys
from typing import Any

import pytest

import greenctx

LATER = ("ContextInfo", "Instrument", "Statistics", "Trace")


@pytest.fixture(autouse=True)
def unused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As before the first use."""
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


def test_without_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody has imported it, nobody has enabled it: an environment does not either."""
    monkeypatch.delitem(sys.modules, "logging")
    assert type(greenctx.ContextSwitchingEnvironment()) is greenctx.ContextSwitchingEnvironment
    assert "logging" not in sys.modules
