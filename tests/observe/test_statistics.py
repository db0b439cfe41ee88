"""Statistics: what is counted, and the table."""

from __future__ import annotations

from time import sleep, thread_time_ns

import pytest
from contexts import MAIN, go_to_main, raises, start, then_main

from greenctx import ContextSwitchingEnvironment, Statistics
from greenctx.wasix._linking.call_reports import reporting


def test_what_is_counted() -> None:
    """Contexts that were created, live, at most at a time and destroyed; switches and times, of each and of all."""

    def worker() -> None:
        while True:
            env.switch_context(MAIN)

    def main() -> None:
        context = start(env, worker)
        env.switch_context(context)
        assert (statistics.created, statistics.live, statistics.peak) == (1, 1, 1)
        env.create_context(worker)
        env.destroy_context(context)
        assert (statistics.created, statistics.live, statistics.peak, statistics.destroyed) == (2, 1, 2, 1)
        with pytest.raises(KeyError):
            start(env, raises(KeyError()))

    statistics = Statistics()
    env = ContextSwitchingEnvironment(instruments=[statistics])
    env.run_main_context(main)
    assert (statistics.created, statistics.live, statistics.peak, statistics.destroyed) == (3, 0, 2, 2)
    assert statistics.switches == 8
    assert {one.id: (one.name, one.switches) for one in statistics.contexts.values()} == {
        0: ("main", 4),
        1: ("worker", 3),
        2: ("worker", 0),
        3: ("entrypoint", 1),
    }
    assert statistics.host_calls == 0  # of which test_host_calls_are_counted has some
    assert 0 < statistics.contexts[1].seconds < statistics.seconds
    assert statistics.contexts[2].seconds == 0


def test_processor_time() -> None:
    """A context that sleeps is active all the while, and uses next to no processor time; one that computes uses it."""

    def computing() -> None:
        while thread_time_ns() - began < 20e6:
            pass
        env.switch_context(MAIN)

    def main() -> None:
        start(env, then_main(env, lambda: sleep(0.05)))
        start(env, computing)

    statistics, began = Statistics(), thread_time_ns()
    env = ContextSwitchingEnvironment(instruments=[statistics])
    env.run_main_context(main)
    _, sleeping, busy = statistics.contexts.values()
    assert sleeping.seconds >= 0.05
    assert sleeping.processor_seconds < 0.04
    assert 0.01 < busy.processor_seconds <= busy.seconds + 0.001
    assert statistics.processor_seconds < statistics.seconds


def test_the_table() -> None:
    """The table has a row for each context; of many those that were active longest, and one for all others."""

    def main(count: int) -> None:
        for _ in range(count):
            start(env, go_to_main(env))

    for count, rows in ((3, 4), (30, 21)):
        statistics = Statistics()
        env = ContextSwitchingEnvironment(instruments=[statistics])
        env.run_main_context(main, count)
        head, switches, calls, title, *table = str(statistics).splitlines()
        assert head == f"contexts: {count} created, {count} at most at a time, {count} destroyed"
        assert switches == f"switches: {4 * count}"
        assert calls == "host calls: 0"
        assert " ".join(title.split()) == "context switches host calls active ms processor ms entrypoint"
        assert len(table) == rows
        assert len({line.rindex("  ") for line in (title, *table)}) == 1
        if count == 30:
            assert table[-1].endswith("  (11 others)")
        switched = [int(line.split()[1 if line.split()[-1] != "others)" else 0]) for line in table]
        assert sum(switched) == statistics.switches


def test_host_calls_are_counted() -> None:
    """Calls of host functions that report are counted for the context that makes them."""
    call = reporting("host.call", lambda: None)
    statistics = Statistics()
    env = ContextSwitchingEnvironment(instruments=[statistics])
    env.run_main_context(lambda: [call(), start(env, then_main(env, lambda: [call(), call()]))])
    assert statistics.host_calls == 3
    assert [one.host_calls for one in statistics.contexts.values()] == [1, 2]
