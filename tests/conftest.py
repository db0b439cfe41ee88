"""Fixtures and settings for every test module."""

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

# The installed package is tested: processes that the tests start must not find the sources in their working directory.
# They do find the tests' own modules.
os.environ["PYTHONSAFEPATH"] = "1"
SUPPORT = Path(__file__).parent / "support"
os.environ["PYTHONPATH"] = os.pathsep.join(map(str, filter(None, [SUPPORT, os.environ.get("PYTHONPATH")])))

# The tests neither use nor fill the user's caches, except the caches of downloads and builds.
_caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
os.environ.setdefault("ZIG_GLOBAL_CACHE_DIR", str(_caches / "zig"))
os.environ.setdefault("GREENCTX_TEST_GUESTS", str(_caches / "greenctx-tests"))
os.environ.setdefault("PLAYWRIGHT_BROWSERS_PATH", str(_caches / "ms-playwright"))
if "PYTEST_XDIST_WORKER" not in os.environ:  # the workers share what their parent has made
    _cache = tempfile.mkdtemp(prefix="greenctx-tests-")
    atexit.register(shutil.rmtree, _cache, ignore_errors=True)
    os.environ["XDG_CACHE_HOME"] = _cache

# A shell's background jobs ignore SIGINT, and so would their children. Processes that the tests interrupt must not.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Time limits would fail a test for the machine's speed.
settings.register_profile(
    "quick", max_examples=100, stateful_step_count=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("long", settings.get_profile("quick"), max_examples=300, stateful_step_count=80)


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
    """Keep the tests of the chosen form."""
    is_long = config.getoption("long")
    kept: dict[bool, list[pytest.Item]] = {True: [], False: []}
    for item in items:
        only_long = item.get_closest_marker("long") is not None
        in_both = item.get_closest_marker("both_forms") is not None or "long" in getattr(item, "fixturenames", ())
        kept[is_long if only_long else in_both or not is_long].append(item)
    items[:] = kept[True]
    config.hook.pytest_deselected(items=kept[False])


@pytest.fixture
def long(request: pytest.FixtureRequest) -> bool:
    """Whether the long form of the test runs. A test that uses this fixture has both forms."""
    return bool(request.config.getoption("long"))


def pytest_collection_finish() -> None:
    """Objects that exist by now stay: freeze them, so that collections and searches for leaks skip them."""
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
