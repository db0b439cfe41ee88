"""Attacks on shadow stacks: by what is exported for them, and by malloc."""

from __future__ import annotations

from attacks.writing import (
    ENTRYPOINT,
    FUNC,
    NOMEM,
    OTHER_KINDS,
    REFUSED,
    START,
    TABLE,
    TIMED_OUT,
    TRAPPED,
    attack,
    main,
)

POINTER = '(global (export "__stack_pointer") (mut i32) (i32.const 65536))'
OWN_STACK = ("--shadow-stack", "4KiB")
for kind, what in {
    **OTHER_KINDS,
    "a fraction": "(global (export {}) (mut f32) (f32.const 1))",
    "a vector": "(global (export {}) (mut v128) (v128.const i64x2 0 0))",
    "a reference": "(global (export {}) (mut externref) (ref.null extern))",
    "an exception": "(global (export {}) (mut exnref) (ref.null exn))",
    "a structure": "(global (export {}) (mut structref) (ref.null struct))",
}.items():
    attack(
        f"the stack pointer is {kind}",
        REFUSED,
        what.format('"__stack_pointer"') + ENTRYPOINT + START,
        *OWN_STACK,
        message="__stack_pointer",
    )
attack(
    "a shadow stack without memory", REFUSED, POINTER + ENTRYPOINT + main(""), *OWN_STACK, head=TABLE, message="memory"
)
attack(
    "a shadow stack whose memory is a function",
    REFUSED,
    POINTER + ENTRYPOINT + FUNC.format('"memory"') + main(""),
    *OWN_STACK,
    head=TABLE,
    message="memory",
)
for start in ("0", "1", "-1", "65537", "2147483647", "-2147483648"):
    attack(
        f"the stack pointer starts at {start}",
        13,
        f'(global (export "__stack_pointer") (mut i32) (i32.const {start}))' + ENTRYPOINT + START,
        *OWN_STACK,
    )
    attack(
        f"a context sets its stack pointer to {start}",
        TRAPPED if start in ("0", "1", "65537") else 14,
        f"""(global $sp (export "__stack_pointer") (mut i32) (i32.const 65536)) (elem (i32.const 0) $e)
        (func $e
          (global.set $sp (i32.const {start})) (drop (call $switch (i64.const 0))) (call $exit (i32.const 14)))"""
        + main("(drop (call $try (i32.const 0))) (loop (drop (call $switch (i64.const 1))) (br 0))"),
        *OWN_STACK,
    )
for kind, what in {
    **OTHER_KINDS,
    "a memory": "(memory (export {}) 1)",
    "without an argument": "(func (export {}) (result i32) unreachable)",
    "one of 64 bits": "(func (export {}) (param i64) (result i64) unreachable)",
    "without a result": "(func (export {}) (param i32))",
    "with two results": "(func (export {}) (param i32) (result i32 i32) unreachable)",
    "one of fractions": "(func (export {}) (param f32) (result f32) unreachable)",
    "one of references": "(func (export {}) (param externref) (result externref) unreachable)",
    "one of structures": "(type $s (struct)) (func (export {}) (param (ref $s)) (result (ref $s)) unreachable)",
}.items():
    attack(f"malloc is {kind}", 13, what.format('"malloc"') + POINTER + ENTRYPOINT + START, *OWN_STACK)


def malloc(
    name: str, status: int, body: str, *options: str, message: str = "", entrypoint: str = ENTRYPOINT, go: str = START
) -> None:
    text = POINTER + f'(func $malloc (export "malloc") (param i32) (result i32) {body})' + entrypoint + go
    attack(f"malloc {name}", status, text, *OWN_STACK, *options, message=message)


malloc("has nothing", NOMEM, "(i32.const 0)")
malloc("traps", TRAPPED, "unreachable", message="unreachable")
malloc("throws", TRAPPED, "(throw $t)", entrypoint="(tag $t)" + ENTRYPOINT)
malloc("exits", 15, "(call $exit (i32.const 15)) unreachable")
malloc("never ends", TIMED_OUT, "(loop (br 0)) unreachable")
for garbage in (1, -1, -8, -16, 65536, 65535, 61440, 61456, 2**31 - 1, -(2**31)):
    malloc(f"returns {garbage}", 13 if garbage in (1, 61440) else NOMEM, f"(i32.const {garbage})")
malloc("creates contexts, each of which needs malloc", NOMEM, "(call $exit (call $try (i32.const 0))) unreachable")
malloc("starts the context that it is to make room for", 13, "(drop (call $switch (i64.const 1))) (i32.const 1024)")
malloc(
    "destroys the context that it is to make room for",
    13,
    "(drop (call $destroy (i64.const 1))) (i32.const 1024)",
)
malloc(
    "lets contexts wait, nested in calls, and the others destroy them",
    16,
    "(drop (call $switch (i64.const 0))) (i32.const 1024)",
    entrypoint="(elem (i32.const 0) $e) (func $e (drop (call $try (i32.const 0))) unreachable)",
    go=main("""(drop (call $try (i32.const 0))) (drop (call $switch (i64.const 1)))
      (if (i32.ne (call $try (i32.const 0)) (i32.const 48)) (then unreachable))
      (if (call $destroy (i64.const 1)) (then unreachable))
      (if (call $try (i32.const 0)) (then unreachable))
      (call $exit (i32.const 16))"""),
)
malloc("grows memory", 13, "(drop (memory.grow (i32.const 1))) (i32.const 65536)")
for size in ("1B", "17B", "63MiB", "1GiB", "4GiB", "100GiB", "1000000TiB"):
    fits = size in ("1B", "17B")
    attack(f"a shadow stack of {size}", 13 if fits else NOMEM, POINTER + ENTRYPOINT + START, "--shadow-stack", size)
    malloc(f"for a shadow stack of {size}", 13 if fits else NOMEM, "(i32.const 1024)", "--shadow-stack", size)
