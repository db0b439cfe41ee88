"""Guests that mean harm, and what becomes of each: its exit status, and words that stderr has to have.

Main is ``_start``. ``$create``, ``$switch``, ``$destroy`` are the context calls; ``$try`` creates a context that will run
an element of the table, and answers the errno.
"""

from __future__ import annotations

from dataclasses import dataclass

from embedding import IMPORTS

TRAPPED, RETURNED, TIMED_OUT, REFUSED = 134, 129, 124, 2
AGAIN, BADF, FAULT, INVAL, NOMEM, NOTSUP, PERM = 6, 8, 21, 28, 48, 58, 63
WHATEVER = None
"""wasmtime's own WASI calls decide, and differ between versions: an errno, or a trap."""

HEAD = f"""{IMPORTS} (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))"""
MEMORY = '(memory (export "memory") 1)'
TABLE = '(table $table (export "__indirect_function_table") 8 64 funcref)'
TRY = "(func $try (param i32) (result i32) (call $create (i32.const 0) (local.get 0)))"

LIMITS = ("--max-contexts", "100", "--max-memory", "64MiB", "--timeout", "2")


@dataclass(frozen=True)
class Attack:
    name: str
    status: int | None
    message: str
    text: str
    options: tuple[str, ...] = ()


ATTACKS: list[Attack] = []


def attack(name: str, status: int | None, body: str, *options: str, message: str = "", head: str = MEMORY + TABLE) -> None:
    text = f"(module {HEAD} {head} {TRY if TABLE in head else ''} {body})"
    ATTACKS.append(Attack(name, status, message, text, (*LIMITS, *options)))


def main(body: str) -> str:
    return f'(func (export "_start") {body})'


# The start function.

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
attack("the start function never ends", TIMED_OUT, "(start $s) (func $s (loop (br 0)))" + main(""), message="2")
attack(
    "contexts of the start function go on after it",
    9,
    "(elem (i32.const 0) $e) (start $s)"
    "(func $e (loop (drop (call $switch (i64.const 0))) (call $exit (i32.const 9)) (br 0)))"
    "(func $s (drop (call $try (i32.const 0))) (drop (call $switch (i64.const 1))))"
    + main("(drop (call $switch (i64.const 1)))"),
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
    "100,000 contexts, each started by the one before and destroyed by the next but one",
    3,
    """(elem (i32.const 0) $e) (global $n (mut i64) (i64.const 0))
    (func $e
      (if (i64.gt_u (global.get $n) (i64.const 100000)) (then (call $exit (i32.const 3))))
      (global.set $n (i64.add (global.get $n) (i64.const 1)))
      (drop (call $destroy (i64.sub (global.get $n) (i64.const 3))))
      (if (call $try (i32.const 0)) (then unreachable))
      (drop (call $switch (i64.load (i32.const 0)))))"""
    + main("(call $e)"),
    "--timeout",
    "60",
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
    FAULT,
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
attack("elements outside of the table", TRAPPED, "(elem (i32.const 8) $f) (func $f)" + main(""), message="out of bounds")

# How contexts end.

RECURSE = "(func $e (param $unused i32) (call $e (i32.const 1)) (call $e (i32.const 2)))"
attack("main overflows its stack", TRAPPED, RECURSE + main("(call $e (i32.const 0))"), message="stack exhausted")
for where, go in {"main": "(call $e)", "a context": "(drop (call $try (i32.const 0))) (drop (call $switch (i64.const 1)))"}.items():
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
attack("no environment", NOTSUP, "(elem (i32.const 0) $e) (func $e)" + main("(call $exit (call $try (i32.const 0)))"), "--no-contexts")
attack("no contexts allowed", AGAIN, "(elem (i32.const 0) $e) (func $e)" + main("(call $exit (call $try (i32.const 0)))"), "--max-contexts", "0")
attack(
    "switches without end",
    TIMED_OUT,
    "(elem (i32.const 0) $e) (func $e (loop (drop (call $switch (i64.const 0))) (br 0)))"
    + main("(drop (call $try (i32.const 0))) (loop (drop (call $switch (i64.const 1))) (br 0))"),
)
attack("switches to itself without end", TIMED_OUT, main("(loop (drop (call $switch (i64.const 0))) (br 0))"))
attack("context calls that fail without end", TIMED_OUT, main("(loop (drop (call $switch (i64.const 5))) (br 0))"))

# Exports of the wrong kind, under names that mean something.

FUNC, GLOBAL, TAG = "(func (export {}))", "(global (export {}) i32 (i32.const 0))", "(tag (export {}))"
OTHER_KINDS = {"a function": FUNC, "a global": GLOBAL, "a tag": TAG}
for kind, what in {
    "a global": GLOBAL,
    "a tag": TAG,
    "a memory": "(memory (export {}) 1)",
    "a table": "(table (export {}) 1 funcref)",
    "a function with an argument": "(func (export {}) (param i32))",
    "a function with a result": "(func (export {}) (result i32) (i32.const 0))",
    "a function of references": "(func (export {}) (param externref funcref exnref v128))",
    "a global reference": "(global (export {}) externref (ref.null extern))",
    "a global exception": "(global (export {}) exnref (ref.null exn))",
    "a global of garbage collection": "(global (export {}) anyref (ref.null any))",
}.items():
    attack(f"_start is {kind}", REFUSED, what.format('"_start"'), head="", message="_start" if "garbage" not in kind else "")
CREATE_0 = main("(call $exit (call $create (i32.const 0) (i32.const 0)))") + "(func $e) (elem declare func $e)"
for kind, what in {
    **OTHER_KINDS,
    "a table": "(table (export {}) 1 funcref)",
    "a memory of 64 bits": "(memory (export {}) i64 0)",
    "an empty memory": "(memory (export {}) 0)",
}.items():
    attack(f"memory is {kind}", FAULT, CREATE_0 + "(elem (i32.const 0) $e)", head=TABLE + what.format('"memory"'))
for kind, what in {
    **OTHER_KINDS,
    "a memory": "(memory (export {}) 1)",
    "an empty table": "(table (export {}) 0 funcref)",
    "a table of nulls": "(table (export {}) 1 funcref)",
    "a table of host references": "(table (export {}) 1 externref)",
    "a table of exceptions": "(table (export {}) 1 exnref)",
    "a table of nothing": "(table (export {}) 1 nullfuncref)",
    "a table of anything": "(table (export {}) 1 anyref)",
    "a table of numbers": "(table (export {}) 1 i31ref (ref.i31 (i32.const 1)))",
    "a table of structures": "(type $s (struct)) (table (export {}) 1 (ref $s) (struct.new $s))",
    "a table of functions of another type": "(type $f (func (param i32))) (table (export {}) 1 (ref null $f))",
    "a table of functions that take structures": "(type $s (struct)) (type $f (func (param (ref $s))))"
    "(func $g (type $f)) (elem declare func $g) (table (export {}) 1 (ref $f) (ref.func $g))",
}.items():
    attack(f"the table is {kind}", INVAL, CREATE_0, head=MEMORY + what.format('"__indirect_function_table"'))
attack(
    "the table is one of 64 bits",
    0,
    CREATE_0 + "(elem (table 0) (i64.const 0) func $e)",
    head=MEMORY + '(table (export "__indirect_function_table") i64 1 funcref)',
)
attack(
    "the table is one of functions of the right type, that are not null",
    0,
    CREATE_0,
    head=MEMORY + '(type $f (func)) (table (export "__indirect_function_table") 1 (ref $f) (ref.func $e))',
)
attack("there is neither memory nor table", INVAL, main("(call $exit (call $create (i32.const 0) (i32.const 0)))"), head="")

# Shadow stacks.

POINTER = '(global (export "__stack_pointer") (mut i32) (i32.const 65536))'
OWN_STACK = ("--shadow-stack", "4KiB")
E_EXITS = "(elem (i32.const 0) $e) (func $e (call $exit (i32.const 13)))"
GO = main("(local $e i32) (local.set $e (call $try (i32.const 0))) (if (local.get $e) (then (call $exit (local.get $e)))) (drop (call $switch (i64.const 1)))")
for kind, what in {
    **OTHER_KINDS,
    "a fraction": "(global (export {}) (mut f32) (f32.const 1))",
    "a vector": "(global (export {}) (mut v128) (v128.const i64x2 0 0))",
    "a reference": "(global (export {}) (mut externref) (ref.null extern))",
    "an exception": "(global (export {}) (mut exnref) (ref.null exn))",
    "a structure": "(global (export {}) (mut structref) (ref.null struct))",
}.items():
    attack(f"the stack pointer is {kind}", REFUSED, what.format('"__stack_pointer"') + E_EXITS + GO, *OWN_STACK, message="__stack_pointer")
attack("a shadow stack without memory", REFUSED, POINTER + E_EXITS + main(""), *OWN_STACK, head=TABLE, message="memory")
attack("a shadow stack whose memory is a function", REFUSED, POINTER + E_EXITS + FUNC.format('"memory"') + main(""), *OWN_STACK, head=TABLE, message="memory")
for start in ("0", "1", "-1", "65537", "2147483647", "-2147483648"):
    attack(
        f"the stack pointer starts at {start}",
        13,
        f'(global (export "__stack_pointer") (mut i32) (i32.const {start}))' + E_EXITS + GO,
        *OWN_STACK,
    )
    attack(
        f"a context sets its stack pointer to {start}",
        14 if start == "-1" else TRAPPED,
        f"""(global $sp (export "__stack_pointer") (mut i32) (i32.const 65536)) (elem (i32.const 0) $e)
        (func $e (global.set $sp (i32.const {start})) (drop (call $switch (i64.const 0))) (call $exit (i32.const 14)))"""
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
    "one of structures": "(type $s (struct)) (func (export {}) (param (ref null $s)) (result (ref null $s)) unreachable)",
}.items():
    attack(f"malloc is {kind}", 13, what.format('"malloc"') + POINTER + E_EXITS + GO, *OWN_STACK)


def malloc(name: str, status: int, body: str, *options: str, message: str = "", entrypoint: str = E_EXITS, go: str = GO) -> None:
    text = POINTER + f'(func $malloc (export "malloc") (param i32) (result i32) {body})' + entrypoint + go
    attack(f"malloc {name}", status, text, *OWN_STACK, *options, message=message)


malloc("has nothing", NOMEM, "(i32.const 0)")
malloc("traps", TRAPPED, "unreachable", message="unreachable")
malloc("exits", 15, "(call $exit (i32.const 15)) unreachable")
malloc("never ends", TIMED_OUT, "(loop (br 0)) unreachable")
for garbage in (1, -1, -8, -16, 65536, 65535, 61440, 61456, 2**31 - 1, -(2**31)):
    malloc(f"returns {garbage}", 13 if garbage in (1, 61440) else NOMEM, f"(i32.const {garbage})")
malloc("creates contexts, each of which needs malloc", TRAPPED, "(call $try (i32.const 0))", message="nested")
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
      (if (call $destroy (i64.const 1)) (then unreachable))
      (drop (call $try (i32.const 0))) (drop (call $switch (i64.const 3))) (drop (call $try (i32.const 0)))
      (call $exit (i32.const 16))"""),
)
malloc("grows memory", 13, "(drop (memory.grow (i32.const 1))) (i32.const 65536)")
for size in ("1B", "17B", "63MiB", "1GiB", "4GiB", "100GiB", "1000000TiB"):
    fits = size in ("1B", "17B")
    attack(f"a shadow stack of {size}", 13 if fits else NOMEM, POINTER + E_EXITS + GO, "--shadow-stack", size)
    malloc(f"for a shadow stack of {size}", 13 if fits else NOMEM, "(i32.const 1024)", "--shadow-stack", size)

# WASI calls.


def wasi(name: str, status: int | None, call: str, params: str, args: str, *options: str, before: str = "", message: str = "", pages: int = 1) -> None:
    text = f"""(import "wasi_snapshot_preview1" "{call}" (func $call (param {params}) (result i32)))
    (memory (export "memory") {pages}) (data (i32.const 0) "\\00\\04\\00\\00\\ff\\ff\\ff\\ff")
    (data (i32.const 256) "../../../../etc/passwd/etc/passwdlink/../../etc")"""
    attack(name, status, text + main(f"{before} (call $exit (call $call {args}))"), *options, head="", message=message)


def numbers(*values: int, wide: tuple[int, ...] = ()) -> str:
    return " ".join(f"({'i64' if index in wide else 'i32'}.const {value})" for index, value in enumerate(values))


for fd, call in ((0, "fd_read"), (1, "fd_write")):
    four = "i32 i32 i32 i32"
    status = FAULT if call == "fd_read" else WHATEVER
    wasi(f"{call}: 2**32-1 buffers", status, call, four, numbers(fd, 0, -1, 64))
    wasi(f"{call}: 2**29 buffers, as many bytes as fit in 32 bits", status, call, four, numbers(fd, 0, 2**29, 64))
    wasi(f"{call}: buffers at the end of the address space", status, call, four, numbers(fd, -8, 1, 64))
    wasi(f"{call}: a buffer of 2**32-1 bytes", status, call, four, numbers(fd, 0, 1, 64))
    wasi(f"{call}: the result beyond the address space", status, call, four, numbers(fd, 64, 1, -3))
    wasi(f"{call}: a negative descriptor", BADF, call, four, numbers(-1, 64, 1, 32))
    wasi(
        f"{call}: eight million buffers",
        WHATEVER if fd else 0,
        call,
        four,
        numbers(fd, 64, 8_000_000, 32),
        pages=1000,
    )
    wasi(
        f"{call}: eight million buffers, each of nearly all the memory",
        WHATEVER if fd else 0,
        call,
        four,
        numbers(fd, 64, 8_000_000, 0),
        before="""(local $at i32) (loop
          (i32.store offset=68 (local.get $at) (i32.const 60000000))
          (br_if 0 (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 8))) (i32.const 64000000))))""",
        pages=1000,
    )
poll = "i32 i32 i32 i32"
wasi("poll_oneoff: none", INVAL, "poll_oneoff", poll, numbers(0, 1024, 0, 64))
wasi("poll_oneoff: 2**32-1 subscriptions", FAULT, "poll_oneoff", poll, numbers(0, 1024, -1, 64))
wasi("poll_oneoff: as many bytes as fit in 32 bits", FAULT, "poll_oneoff", poll, numbers(0, 1024, 2**28, 64))
wasi("poll_oneoff: a million clocks", TIMED_OUT, "poll_oneoff", poll, numbers(64, 64, 1_300_000, 0), pages=1000)
for clock, flags, timeout, status in (
    (0, 0, -1, TIMED_OUT),
    (1, 1, -1, TIMED_OUT),
    (1, 0, 2**63 - 1, TIMED_OUT),
    (-1, 0, 0, WHATEVER),
    (-1, 1, -1, WHATEVER),
    (7, 0, 0, WHATEVER),
    (1, -1, 0, 0),
):
    wasi(
        f"poll_oneoff: clock {clock}, flags {flags}, timeout {timeout}",
        status,
        "poll_oneoff",
        poll,
        numbers(512, 1024, 1, 64),
        before=f"""(i32.store (i32.const 528) (i32.const {clock})) (i64.store (i32.const 536) (i64.const {timeout}))
        (i32.store16 (i32.const 552) (i32.const {flags}))""",
    )
for tag in (1, 2, 3, 255):
    for fd in (-1, 2**31 - 1, -(2**31), 99):
        wasi(
            f"poll_oneoff: tag {tag}, descriptor {fd}",
            0,
            "poll_oneoff",
            poll,
            numbers(512, 1024, 1, 64),
            before=f"(i32.store8 (i32.const 520) (i32.const {tag})) (i32.store (i32.const 528) (i32.const {fd}))",
        )
for length in (-1, 2**31 - 1, -(2**31)):
    wasi(f"random_get: {length} bytes", WHATEVER, "random_get", "i32 i32", numbers(64, length))
wasi("args_get: outside of the memory", WHATEVER, "args_get", "i32 i32", numbers(-4, -4))
wasi("environ_get: outside of the memory", WHATEVER, "environ_get", "i32 i32", numbers(65536, 65536), "--env", "K=V")
wasi("fd_renumber: to 2**31-1", BADF, "fd_renumber", "i32 i32", numbers(0, 2**31 - 1))
wasi("fd_renumber: negative", BADF, "fd_renumber", "i32 i32", numbers(-1, -1))
wasi("fd_close: negative", BADF, "fd_close", "i32", numbers(-1))
wasi("sock_accept: a file", WHATEVER, "sock_accept", "i32 i32 i32", numbers(1, 0, 64))

path_open = "i32 i32 i32 i32 i32 i64 i64 i32 i32"
DIRECTORY = ("--dir", "DIRECTORY::/")
for what, start, length, status in (
    ("up and up to /etc/passwd", 256, 22, PERM),
    ("/etc/passwd", 256 + 22, 11, PERM),
    ("the parent", 256, 2, PERM),
    ("a name without end", 256, -1, WHATEVER),
    ("a name at the end of the address space", -8, 8, WHATEVER),
):
    wasi(f"path_open: {what}", status, "path_open", path_open, numbers(3, 0, start, length, 0, 2, 0, 0, 64, wide=(5, 6)), *DIRECTORY)
attack(
    "path_symlink: out of the directory, and through it",
    PERM,
    f"""(import "wasi_snapshot_preview1" "path_symlink" (func $link (param i32 i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_open" (func $open (param {path_open}) (result i32)))
    {MEMORY} (data (i32.const 0) "../../../../../../../../../../etcX/passwd")"""
    + main(f"""(drop (call $link {numbers(0, 33, 3, 33, 1)}))
      (call $exit (call $open {numbers(3, 1, 33, 8, 0, 2, 0, 0, 64, wide=(5, 6))}))"""),
    *DIRECTORY,
    head="",
)
for call in ("path_rename", "path_link"):
    flags = "i32 " if call == "path_link" else ""
    wasi(
        f"{call}: from outside of the directory",
        PERM,
        call,
        f"i32 {flags}i32 i32 i32 i32 i32",
        numbers(3, *((0,) if flags else ()), 256, 22, 3, 278 + 11, 4),
        *DIRECTORY,
    )

# Exceptions and garbage.

attack("an exception in main", TRAPPED, "(tag $t)" + main("(throw $t)"))
attack("an exception in the start function", TRAPPED, "(tag $t) (start $s) (func $s (throw $t))" + main(""))
attack("an exception in a context", TRAPPED, "(tag $t) (elem (i32.const 0) $e) (func $e (throw $t))" + GO)
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
malloc("throws", TRAPPED, "(throw $t)", entrypoint="(tag $t)" + E_EXITS)
attack("an array of all there is", TRAPPED, "(type $a (array i8))" + main("(drop (array.new $a (i32.const 0) (i32.const -1)))"))
attack(
    "a list of arrays that grows for ever",
    TRAPPED,
    "(type $a (array i8)) (type $l (struct (field (ref null $l)) (field (ref $a)))) (global $l (mut (ref null $l)) (ref.null $l))"
    + main("""(loop (global.set $l (struct.new $l (global.get $l) (array.new $a (i32.const 0) (i32.const 100000)))) (br 0))"""),
)

# What is said of them.

attack(
    "names that would paint on a terminal",
    TRAPPED,
    '(func $"\\1b[31m\\07\\u{202e}" unreachable)' + main('(call $"\\1b[31m\\07\\u{202e}")'),
    message="unreachable",
)
attack("an import that would paint on a terminal", REFUSED, main(""), head='(import "\\1b[2J" "\\00" (func))', message="\\x1b[2J.\\x00")
attack("a name without end", TRAPPED, f"(func ${'x' * 5_000} unreachable)" + main(f"(call ${'x' * 5_000})"), message="unreachable")
attack("an import that nobody has", REFUSED, main(""), head='(import "env" "x" (memory 1))', message="env.x")
attack("a context call of another type", REFUSED, '(import "wasix_32v1" "context_create" (func (param i64 i32) (result i32)))' + main(""), head="", message="incompatible import type")
attack("a context call that is a memory", REFUSED, '(import "wasix_32v1" "context_create" (memory 1))' + main(""), head="", message="incompatible import type")
attack("a shared memory", REFUSED, main(""), head='(memory (export "memory") 1 1 shared)', message="shared")
ATTACKS += [
    Attack("text that is nested a million times", REFUSED, "does not compile", "(" * 1_000_000),
    Attack("text that is nested, and closed", REFUSED, "", "(module " + "(func " * 1000 + ")" * 1001),
    Attack("a module that is empty", REFUSED, "_start", "(module)"),
    Attack("expressions that are nested", REFUSED, "", "(module (func " + "(drop " * 5000 + "(i32.const 0)" + ")" * 5002),
]
