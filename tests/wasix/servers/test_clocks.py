"""Time limits, sleeps and yields go by a clock that no test can stop, and by waits that no library can replace."""

from __future__ import annotations

import pytest
from processes import check_host, need

GUESTS = """
import asyncio
NAP = b'''(module
 (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
 (memory (export "memory") 1)
 (func (export "_start")
  (i32.store (i32.const 16) (i32.const 1)) (i64.store (i32.const 24) (i64.const 100000000))
  (if (call $poll (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)) (then unreachable))))'''
def assert_limited(run):
    try:
        run()
    except TimeLimitExceeded:
        return
    raise AssertionError("it went to the end")
async def cancel_a_guest_that_computes():
    task = asyncio.create_task(Program(SPIN).run_async())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
def run_all():
    assert_limited(Program(SPIN, limits=Limits(seconds=0.2)).run)
    assert Program(NAP).run() == 0
    assert_limited(Program(NAP, limits=Limits(seconds=0.05)).run)
def run_all_async():
    assert_limited(lambda: asyncio.run(Program(SPIN, limits=Limits(seconds=0.2)).run_async()))
    asyncio.run(cancel_a_guest_that_computes())
    assert asyncio.run(Program(NAP).run_async()) == 0
    assert_limited(lambda: asyncio.run(Program(NAP, limits=Limits(seconds=0.05)).run_async()))
"""

FREEZE = {
    "freezegun": "from freezegun import freeze_time; freeze = freeze_time('2026-01-01', real_asyncio=True)",
    "freezegun, event loops, too": "from freezegun import freeze_time; freeze = freeze_time('2026-01-01')",
    "time-machine": "import time_machine; freeze = time_machine.travel(0, tick=False)",
}
PATCH = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "eventlet": "import warnings; warnings.simplefilter('ignore'); import eventlet; eventlet.monkey_patch()",
}


@pytest.mark.parametrize("name", FREEZE)
def test_where_the_time_stands_still(name: str) -> None:
    need(name.split(",")[0].replace("-", "_"))
    check_host(f"{GUESTS}\n{FREEZE[name]}\nwith freeze:\n    run_all()\n    run_all_async()")


@pytest.mark.parametrize("name", FREEZE)
def test_imported_where_the_time_stands_still(name: str) -> None:
    need(name.split(",")[0].replace("-", "_"))
    check_host(f"{GUESTS}\nrun_all()\nrun_all_async()", before=f"{FREEZE[name]}\nfreeze.start()")


@pytest.mark.parametrize("name", PATCH)
def test_where_threads_and_waits_are_replaced(name: str) -> None:
    """gevent and eventlet make greenlets of threads, and let others run in waits."""
    need(name)
    check_host(f"{GUESTS}\nrun_all()", before=PATCH[name])
