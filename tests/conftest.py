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
os.environ.setdefault("PLAYWRIGHT_BROWSERS_PATH", str(_caches / "ms-playwright"))
_cache = tempfile.mkdtemp(prefix="greenctx-tests-")
atexit.register(shutil.rmtree, _cache, ignore_errors=True)
os.environ["XDG_CACHE_HOME"] = _cache

# A shell's background jobs ignore SIGINT, and their children would, too; what is interrupted here must not.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Time limits would fail a test for the machine's speed.
settings.register_profile(
    "quick", max_examples=1_500, stateful_step_count=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("long", settings.get_profile("quick"), max_examples=10_000, stateful_step_count=80)
settings.load_profile("quick")


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
