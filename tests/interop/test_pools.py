"""Pools of processes: results and errors of programs arrive unchanged, and programs can be sent to workers."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from guests.pool_jobs import EXITING, FAILING, TRAPPING, run
from wasmtime import FuncType, TrapCode

from greenctx import Statistics
from greenctx.errors import GuestException, TimeLimitExceeded
from greenctx.wasix import GuestTrap, Limits, Program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Submit = Callable[..., Callable[[], Any]]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of compiled modules, which the workers use too."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture(params=["spawn", "forkserver", "joblib", "dask"])
def submit(request: pytest.FixtureRequest) -> Iterator[Submit]:
    """A function that submits a call to a pool of two processes, and returns a function that waits for the result."""
    if request.param == "joblib":
        joblib = pytest.importorskip("joblib")

        def in_joblib(function: Callable[..., Any], *args: Any) -> Callable[[], Any]:
            return lambda: joblib.Parallel(n_jobs=2)([joblib.delayed(function)(*args)] * 2)[0]

        yield in_joblib
        return
    if request.param == "dask":
        distributed = pytest.importorskip("distributed")
        with (
            distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
            distributed.Client(cluster) as client,
        ):
            yield lambda function, *args: client.submit(function, *args, pure=False).result
        return
    context = multiprocessing.get_context(request.param)
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        yield lambda function, *args: pool.submit(function, *args).result


@pytest.mark.filterwarnings("default")  # the pools' own
def test_pools(submit: Submit) -> None:
    """A worker raises a guest's trap, exception and time limit as a program in this process does.

    A program can be sent to workers, which run it.
    """
    waiting = {name: submit(function) for name, function in FAILING.items()}
    program = Program(EXITING, limits=Limits(seconds=60))
    statuses = [submit(run, program) for _ in range(2)]
    with pytest.raises(GuestTrap, match="unreachable") as trap:
        waiting["trap"]()
    assert trap.value.code is TrapCode.UNREACHABLE
    assert [frame.func_name for frame in trap.value.frames][:1] == ["inner"]
    assert trap.value.context_name == "main"
    with pytest.raises(TimeLimitExceeded) as limit:
        waiting["limit"]()
    assert limit.value.seconds == 0.05
    with pytest.raises(GuestException) as exception:
        waiting["exception"]()
    assert exception.value.payload == (7,)
    for status in statuses:
        assert status()[0] == 3
        assert status()[1] != os.getpid()


def test_a_program_keeps_its_settings(cache: Path) -> None:
    """Programs arrive, and the module is compiled only the first time."""
    program = Program(
        EXITING,
        name="name",
        argv=["a", "b"],
        env={"K": "V"},
        preopens={"/": str(cache)},
        limits=Limits(contexts=3, memory=2**20, seconds=5),
        contexts=False,
        stdin=b"input",
    )
    assert not list(cache.rglob("*.*"))
    other = pickle.loads(pickle.dumps(program))
    assert vars(other.settings) == vars(program.settings)
    assert (other.name, other.limits, other.contexts) == (program.name, program.limits, program.contexts)
    assert other.run() == 3
    kept = [file for file in cache.rglob("*") if file.is_file()]
    assert len(kept) == 1
    assert pickle.loads(pickle.dumps(other)).run() == 3
    assert [file for file in cache.rglob("*") if file.is_file()] == kept


def test_instruments_go_along() -> None:
    """Instruments arrive as copies: their counts stay in the worker."""
    with Program(TRAPPING, instruments=[Statistics()]) as program:
        [instrument] = pickle.loads(pickle.dumps(program)).instruments
    assert isinstance(instrument, Statistics)


def test_host_functions_do_not_go_along() -> None:
    """A program with host functions is refused, so that it does not arrive without them."""
    program = Program(TRAPPING)
    pickle.dumps(program)
    program.linker.define_func("a", "b", FuncType([], []), lambda: None)
    with pytest.raises(TypeError, match="host functions of its own cannot be pickled"):
        pickle.dumps(program)
