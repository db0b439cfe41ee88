"""Attacks by the function that runs while the module is instantiated."""

from __future__ import annotations

from attacks.writing import AGAIN, RETURNED, SHORT, TIMED_OUT, TRAPPED, attack, main

attack(
    "contexts created in the start function, up to the limit",
    AGAIN,
    "(elem (i32.const 0) $s) (start $s)"
    "(func $s (local $e i32) (loop (local.set $e (call $try (i32.const 0))) (br_if 0 (i32.eqz (local.get $e))))"
    " (call $exit (local.get $e)))" + main(""),
)
attack(
    "the start function is an entrypoint that starts itself",
    AGAIN,
    "(elem (i32.const 0) $s) (start $s)"
    "(func $s (if (call $try (i32.const 0)) (then (call $exit (i32.const 6))))"
    " (drop (call $switch (i64.load (i32.const 0)))))" + main(""),
)
attack(
    "a context exits in the start function",
    7,
    "(elem (i32.const 0) $e) (func $e (call $exit (i32.const 7))) (start $s)"
    "(func $s (drop (call $try (i32.const 0))) (drop (call $switch (i64.const 1))))" + main("unreachable"),
)
attack(
    "an entrypoint returns in the start function",
    RETURNED,
    "(elem (i32.const 0) $e) (func $e) (start $s)"
    "(func $s (drop (call $try (i32.const 0))) (drop (call $switch (i64.const 1))))" + main("unreachable"),
    message="context 1 returned",
)
attack(
    "a context traps in the start function",
    TRAPPED,
    "(elem (i32.const 0) $e) (func $e unreachable) (start $s)"
    "(func $s (drop (call $try (i32.const 0))) (drop (call $switch (i64.const 1))))" + main(""),
    message="unreachable",
)
attack("the start function traps", TRAPPED, "(start $s) (func $s unreachable)" + main(""), message="unreachable")
attack("the start function exits", 5, "(start $s) (func $s (call $exit (i32.const 5)))" + main("unreachable"))
attack(
    "the start function never ends",
    TIMED_OUT,
    "(start $s) (func $s (loop (br 0)))" + main(""),
    message=f"limit of {SHORT[1]} seconds",
)
attack(
    "contexts of the start function go on after it",
    9,
    "(elem (i32.const 0) $e) (start $s)"
    "(func $e (loop (drop (call $switch (i64.const 0))) (call $exit (i32.const 9)) (br 0)))"
    "(func $s (drop (call $try (i32.const 0))) (drop (call $switch (i64.const 1))))"
    + main("(drop (call $switch (i64.const 1)))"),
)
