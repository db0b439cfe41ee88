"""Attacks by exceptions and garbage-collected values."""

from __future__ import annotations

from attacks.writing import START, TIMED_OUT, TRAPPED, attack, main

attack("an exception in main", TRAPPED, "(tag $t)" + main("(throw $t)"))
attack("an exception in the start function", TRAPPED, "(tag $t) (start $s) (func $s (throw $t))" + main(""))
attack("an exception in a context", TRAPPED, "(tag $t) (elem (i32.const 0) $e) (func $e (throw $t))" + START)
attack(
    "an exception with references in a context, thrown on for ever",
    TIMED_OUT,
    """(tag $t (param externref funcref i64)) (elem (i32.const 0) $e)
    (func $e (throw $t (ref.null extern) (ref.func $e) (i64.const 7)))"""
    + main("""(loop $again
      (block $caught (result externref funcref i64 exnref)
        (try_table (catch_ref $t $caught)
          (drop (call $try (i32.const 0)))
          (drop (call $switch (i64.load (i32.const 0)))))
        unreachable)
      (drop) (drop) (drop) (drop)
      (br $again))"""),
)
attack("a null exception", TRAPPED, main("(throw_ref (ref.null exn))"), message="null")
attack(
    "an array of all there is",
    TRAPPED,
    "(type $a (array i8))" + main("(drop (array.new $a (i32.const 0) (i32.const -1)))"),
)
attack(
    "a list of arrays that grows for ever",
    TRAPPED,
    """(type $a (array i8)) (type $l (struct (field (ref null $l)) (field (ref $a))))
    (global $l (mut (ref null $l)) (ref.null $l))"""
    + main("""(loop
      (global.set $l (struct.new $l (global.get $l) (array.new $a (i32.const 0) (i32.const 100000)))) (br 0))"""),
)
