"""What every test module may use."""

from __future__ import annotations

import atexit
import copy
import gc
import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest
from greenlet import GreenletExit
from hypothesis import HealthCheck, settings

from greenctx import ContextCanceled, ContextSwitchingEnvironment

# What is tested is what is installed: processes that the tests start must not find the sources in their working
# directory. They do find the tests' own modules.
os.environ["PYTHONSAFEPATH"] = "1"
SUPPORT = Path(__file__).parent / "support"
os.environ["PYTHONPATH"] = os.pathsep.join(map(str, filter(None, [SUPPORT, os.environ.get("PYTHONPATH")])))

# Nothing is kept in the caches of whoever runs the tests, nor found there; but for what would be downloaded or built.
_caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
os.environ.setdefault("ZIG_GLOBAL_CACHE_DIR", str(_caches / "zig"))
os.environ.setdefault("GREENCTX_TEST_GUESTS", str(_caches / "greenctx-tests"))
os.environ.setdefault("PLAYWRIGHT_BROWSERS_PATH", str(_caches / "ms-playwright"))
_cache = tempfile.mkdtemp(prefix="greenctx-tests-")
atexit.register(shutil.rmtree, _cache, ignore_errors=True)
os.environ["XDG_CACHE_HOME"] = _cache

# A shell's background jobs ignore SIGINT, and their children would, too; what is interrupted here must not.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Time limits would fail a test for the machine's speed.
settings.register_profile(
    "quick", max_examples=300, stateful_step_count=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("long", settings.get_profile("quick"), max_examples=2_000, stateful_step_count=80)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run what takes long, and the long forms of what has one")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: takes long, so it is run with --long only")
    config.addinivalue_line("markers", "both_forms: has a long form, which is run with --long, and a quick one")
    is_long = config.getoption("long")
    settings.load_profile("long" if is_long else "quick")
    if is_long and config.getoption("timeout") is None:
        config.option.timeout = 3600


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep those of the form that is asked for."""
    is_long = config.getoption("long")
    kept: dict[bool, list[pytest.Item]] = {True: [], False: []}
    for item in items:
        only_long = item.get_closest_marker("long") is not None
        in_both = item.get_closest_marker("both_forms") is not None or "long" in getattr(item, "fixturenames", ())
        kept[in_both or only_long == is_long].append(item)
    items[:] = kept[True]
    config.hook.pytest_deselected(items=kept[False])


@pytest.fixture
def long(request: pytest.FixtureRequest) -> bool:
    """Whether it is the long form of a test that is run. (A test that asks has both.)"""
    return bool(request.config.getoption("long"))


def pytest_collection_finish() -> None:
    """What there is by now stays: let no collection, and no search for leaks, go through it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def env() -> ContextSwitchingEnvironment:
    return ContextSwitchingEnvironment()


class Unusual(BaseException):
    """Derives from neither Exception nor GreenletExit."""


ANY_ERROR: list[BaseException] = [
    ValueError("a"),
    Unusual("b"),
    KeyboardInterrupt("c"),
    SystemExit(3),
    GeneratorExit("d"),
    StopIteration("e"),
    ExceptionGroup("f", [ValueError("g")]),
    GreenletExit(),
    GreenletExit("with a value"),
    ContextCanceled(1),
]


@pytest.fixture(params=ANY_ERROR, ids=repr)
def error(request: pytest.FixtureRequest) -> BaseException:
    """Whatever code may raise, a bare GreenletExit and a ContextCanceled made by hand included."""
    made: BaseException = copy.copy(request.param)
    return made
