"""Programs with many contexts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from guests.embedding import IMPORTS, signature
from leakcheck import own_memory
from processes import run_greenctx

from greenctx.wasix import Program

if TYPE_CHECKING:
    from pathlib import Path


def test_contexts_alive_at_once(long: bool) -> None:
    """Five thousand of them (thirty, in the long form), every one suspended in the guest; each resumes where it was."""
    count = 30_000 if long else 5_000
    program = Program(
        f"""(module {IMPORTS} (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
          (memory (export "memory") 1) (table (export "__indirect_function_table") 1 funcref)
          (elem (i32.const 0) $entry) (global $sum (mut i64) (i64.const 0)) (global $now (mut i64) (i64.const 0))
          (func $entry (local $own i64)
            (local.set $own (global.get $now))
            (drop (call $switch (i64.const 0)))
            (global.set $sum (i64.add (global.get $sum) (local.get $own)))
            (loop (drop (call $switch (i64.const 0))) (br 0)))
          (func $round (loop
            (global.set $now (i64.add (global.get $now) (i64.const 1)))
            (if (call $switch (global.get $now)) (then unreachable))
            (br_if 0 (i64.lt_u (global.get $now) (i64.const {count})))))
          (func (export "_start") (local $left i32)
            (local.set $left (i32.const {count}))
            (loop
              (if (call $create (i32.const 0) (i32.const 0)) (then unreachable))
              (br_if 0 (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
            (call $round) (global.set $now (i64.const 0)) (call $round)
            (if (i64.ne (global.get $sum) (i64.const {count * (count + 1) // 2})) (then unreachable))
            (call $exit (i32.const 77))))""".encode()
    )
    assert program.run() == 77


def test_contexts_one_after_the_other(long: bool) -> None:
    """Five thousand contexts (50,000 in the long form) that one guest creates, starts and destroys leave the
    process as large as it was; nor do those that it never starts grow it."""
    lives = 50_000 if long else 5_000
    sizes: list[int] = []
    program = Program(
        f"""(module {IMPORTS} (import "host" "measure" (func $measure))
          (memory (export "memory") 1) (table (export "__indirect_function_table") 1 funcref)
          (elem (i32.const 0) $entry)
          (func $entry (loop (drop (call $switch (i64.const 0))) (br 0)))
          (func $life (local $id i64)
            (if (call $create (i32.const 8) (i32.const 0)) (then unreachable))
            (local.set $id (i64.load (i32.const 8)))
            (if (i64.ne (i64.and (local.get $id) (i64.const 7)) (i64.const 0)) ;; one in eight is never started
              (then (if (call $switch (local.get $id)) (then unreachable))))
            (if (call $destroy (local.get $id)) (then unreachable))
            (if (i32.ne (call $switch (local.get $id)) (i32.const 28)) (then unreachable)))
          (func $lives (param $left i32)
            (loop
              (call $life)
              (br_if 0 (local.tee $left (i32.sub (local.get $left) (i32.const 1))))))
          (func (export "_start")
            (call $lives (i32.const 3000)) (call $measure) (call $lives (i32.const {lives})) (call $measure)
            (call $life)
            (if (i64.ne (i64.load (i32.const 8)) (i64.const {lives + 3001})) (then unreachable))))""".encode()
    )
    program.linker.define_func("host", "measure", signature("->"), lambda: sizes.append(own_memory()))
    assert program.run() == 0
    before, after = sizes
    assert after - before < 4 * 2**20


def test_chain_of_a_thousand_contexts(tmp_path: Path) -> None:
    """Each context creates the next and switches to it; the last one switches to main, which sees them all."""
    path = tmp_path / "chain.wat"
    path.write_text(
        f"""(module {IMPORTS} (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
          (memory (export "memory") 1) (table (export "__indirect_function_table") 1 funcref)
          (elem (i32.const 0) $entry) (global $count (mut i64) (i64.const 0))
          (func $next
            (if (call $create (i32.const 0) (i32.const 0)) (then unreachable))
            (global.set $count (i64.add (global.get $count) (i64.const 1)))
            (if (call $switch (i64.load (i32.const 0))) (then unreachable)))
          (func $entry
            (if (i64.lt_u (global.get $count) (i64.const 1000)) (then (call $next)))
            (loop (drop (call $switch (i64.const 0))) (br 0)))
          (func (export "_start")
            (call $next)
            (call $exit (i32.ne (i32.const 1000) (i32.wrap_i64 (global.get $count))))))"""
    )
    ran = run_greenctx("run", path)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"", b"")
