"""Programs with many contexts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedding import IMPORTS
from processes import run_greenctx

from greenctx.wasix import Program

if TYPE_CHECKING:
    from pathlib import Path


def test_ten_thousand_contexts() -> None:
    """So many may be alive at once, every one of them suspended in the guest; each resumes where it was."""
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
            (br_if 0 (i64.lt_u (global.get $now) (i64.const 10000)))))
          (func (export "_start") (local $left i32)
            (local.set $left (i32.const 10000))
            (loop
              (if (call $create (i32.const 0) (i32.const 0)) (then unreachable))
              (br_if 0 (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
            (call $round) (global.set $now (i64.const 0)) (call $round)
            (if (i64.ne (global.get $sum) (i64.const 50005000)) (then unreachable))
            (call $exit (i32.const 77))))""".encode()
    )
    assert program.run() == 77


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
