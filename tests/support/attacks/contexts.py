"""Attacks by contexts: how many there are, how they end, and what becomes of tables and memories meanwhile."""

from __future__ import annotations

from attacks.writing import (
    AGAIN,
    INVAL,
    MEMORY,
    MEMVIOLATION,
    NOTSUP,
    REFUSED,
    TABLE,
    TIMED_OUT,
    TRAPPED,
    TRY,
    attack,
    main,
)

# Contexts, the table and the memory.

attack(
    "each context creates and starts the next, up to the limit",
    AGAIN,
    "(elem (i32.const 0) $e)"
    "(func $e (if (call $try (i32.const 0)) (then (call $exit (i32.const 6))))"
    " (drop (call $switch (i64.load (i32.const 0)))))" + main("(call $e)"),
)
attack(
    "5,000 contexts, each started by the one before and destroyed by the next but one",
    3,
    """(elem (i32.const 0) $e) (global $n (mut i64) (i64.const 0))
    (func $e
      (if (i64.gt_u (global.get $n) (i64.const 5000)) (then (call $exit (i32.const 3))))
      (global.set $n (i64.add (global.get $n) (i64.const 1)))
      (drop (call $destroy (i64.sub (global.get $n) (i64.const 3))))
      (if (call $try (i32.const 0)) (then unreachable))
      (drop (call $switch (i64.load (i32.const 0)))))"""
    + main("(call $e)"),
)
attack(
    "the table's element is replaced between create and start",
    11,
    "(elem (i32.const 0) $e $other) (func $e (call $exit (i32.const 11))) (func $other (call $exit (i32.const 12)))"
    + main(
        "(drop (call $try (i32.const 0))) (table.copy (i32.const 0) (i32.const 1) (i32.const 1))"
        "(drop (call $switch (i64.const 1)))"
    ),
)
attack(
    "the table is emptied and grown between create and start",
    11,
    "(elem (i32.const 0) $e) (func $e (call $exit (i32.const 11)))"
    + main(
        "(drop (call $try (i32.const 0))) (table.fill (i32.const 0) (ref.null func) (i32.const 8))"
        "(drop (table.grow (ref.null func) (i32.const 40)))"
        "(drop (call $switch (i64.const 1)))"
    ),
)
attack(
    "imports as entrypoints",
    INVAL,
    "(elem (i32.const 0) $create $switch $exit)"
    + main(
        "(if (i32.ne (call $try (i32.const 0)) (i32.const 28)) (then unreachable))"
        "(if (i32.ne (call $try (i32.const 1)) (i32.const 28)) (then unreachable))"
        "(call $exit (call $try (i32.const 2)))"
    ),
)
attack(
    "_start as an entrypoint, in a context of its own",
    AGAIN,
    "(elem (i32.const 0) $s)"
    '(func $s (export "_start") (if (call $try (i32.const 0)) (then (call $exit (i32.const 6))))'
    " (drop (call $switch (i64.load (i32.const 0)))))",
)
attack(
    "memory that grows to its limit, and ids written to its very end",
    MEMVIOLATION,
    """(elem (i32.const 0) $e) (func $e)"""
    + main("""(local $end i32)
      (loop (br_if 0 (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
      (local.set $end (i32.mul (memory.size) (i32.const 65536)))
      (if (call $create (i32.sub (local.get $end) (i32.const 8)) (i32.const 0)) (then unreachable))
      (if (i64.ne (i64.load (i32.sub (local.get $end) (i32.const 8))) (i64.const 1)) (then unreachable))
      (call $exit (call $create (i32.sub (local.get $end) (i32.const 7)) (i32.const 0)))"""),
)
attack(
    "memory grows in a context between two writes to its end",
    4,
    """(elem (i32.const 0) $e) (global $n (mut i32) (i32.const 0))
    (func $write (if (call $create (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 8)) (i32.const 0))
      (then unreachable)))
    (func $e (loop (drop (memory.grow (i32.const 1))) (call $write) (drop (call $switch (i64.const 0))) (br 0)))"""
    + main("""(call $write) (loop (drop (call $switch (i64.const 1))) (call $write)
      (br_if 0 (i32.lt_u (memory.size) (i32.const 20)))) (call $exit (i32.const 4))"""),
)
attack(
    "a table that grows by all there is",
    0,
    main("(if (i32.ne (table.grow (ref.null func) (i32.const -1)) (i32.const -1)) (then unreachable))"),
    head=MEMORY + '(table (export "__indirect_function_table") 8 funcref)',
)
attack("a memory that starts too large", REFUSED, main(""), head="(memory 65536)", message="limit")
attack("a table that starts too large", REFUSED, main(""), head="(table 10000000 funcref)", message="limit")
attack("a hundred memories", REFUSED, main(""), head="(memory 20)" * 100, message="limit")
attack("data outside of the memory", TRAPPED, '(data (i32.const 65536) "x")' + main(""), message="out of bounds")
attack(
    "elements outside of the table", TRAPPED, "(elem (i32.const 8) $f) (func $f)" + main(""), message="out of bounds"
)

# How contexts end.

RECURSE = "(func $e (param $unused i32) (call $e (i32.const 1)) (call $e (i32.const 2)))"
attack("main overflows its stack", TRAPPED, RECURSE + main("(call $e (i32.const 0))"), message="stack exhausted")
for where, go in {
    "main": "(call $e)",
    "a context": "(drop (call $try (i32.const 0))) (drop (call $switch (i64.const 1)))",
}.items():
    attack(
        f"stack overflow by way of context calls in {where}",
        TRAPPED,
        "(elem (i32.const 0) $e) (func $e (drop (call $destroy (i64.const 77))) (call $e) (call $e))" + main(go),
        message="stack exhausted",
    )
    attack(
        f"stack overflow by way of WASI calls in {where}",
        TRAPPED,
        """(import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))"""
        + MEMORY
        + TABLE
        + TRY
        + """(elem (i32.const 0) $e)
        (func $e (drop (call $clock (i32.const 0) (i64.const 0) (i32.const 8))) (call $e) (call $e))"""
        + main(go),
        head="",
        message="stack exhausted",
    )
attack(
    "all contexts overflow their stacks at once",
    TRAPPED,
    """(elem (i32.const 0) $e) (global $next (mut i64) (i64.const 0))
    (func $deep (param $levels i32)
      (if (i32.eqz (local.get $levels)) (then
        (global.set $next (i64.add (global.get $next) (i64.const 1)))
        (if (i64.lt_u (global.get $next) (i64.const 101))
          (then (drop (call $switch (global.get $next))))
          (else (call $deep (i32.const -1))))))
      (call $deep (i32.sub (local.get $levels) (i32.const 1)))
      (call $deep (i32.sub (local.get $levels) (i32.const 1))))
    (func $e (call $deep (i32.const 5000)))"""
    + main("(loop (br_if 0 (i32.eqz (call $try (i32.const 0))))) (call $e)"),
    message="stack exhausted",
)
attack(
    "contexts destroy one another in a ring, main with them",
    8,
    """(elem (i32.const 0) $e) (global $n (mut i64) (i64.const 0))
    (func $e (local $me i64) (local.set $me (global.get $n))
      (loop
        (if (i32.ne (call $destroy (local.get $me)) (i32.const 28)) (then unreachable))
        (if (i32.ne (call $destroy (i64.const 0)) (i32.const 28)) (then unreachable))
        (if (call $destroy (i64.sub (local.get $me) (i64.const 1))) (then
          (if (i64.ne (local.get $me) (i64.const 1)) (then unreachable))))
        (if (i64.eq (local.get $me) (i64.const 50)) (then (call $exit (i32.const 8))))
        (global.set $n (i64.add (local.get $me) (i64.const 1)))
        (if (call $try (i32.const 0)) (then unreachable))
        (drop (call $switch (global.get $n)))
        (br 0)))"""
    + main("""(global.set $n (i64.const 1)) (drop (call $try (i32.const 0))) (drop (call $switch (i64.const 1)))"""),
)
attack(
    "no environment",
    NOTSUP,
    "(elem (i32.const 0) $e) (func $e)" + main("(call $exit (call $try (i32.const 0)))"),
    "--no-contexts",
)
attack(
    "no contexts allowed",
    AGAIN,
    "(elem (i32.const 0) $e) (func $e)" + main("(call $exit (call $try (i32.const 0)))"),
    "--max-contexts",
    "0",
)
attack(
    "switches without end",
    TIMED_OUT,
    "(elem (i32.const 0) $e) (func $e (loop (drop (call $switch (i64.const 0))) (br 0)))"
    + main("(drop (call $try (i32.const 0))) (loop (drop (call $switch (i64.const 1))) (br 0))"),
)
attack("switches to itself without end", TIMED_OUT, main("(loop (drop (call $switch (i64.const 0))) (br 0))"))
attack("context calls that fail without end", TIMED_OUT, main("(loop (drop (call $switch (i64.const 5))) (br 0))"))
