"""Exports of the wrong kind, under the names that mean something."""

from __future__ import annotations

from attacks.writing import GLOBAL, INVAL, MEMORY, MEMVIOLATION, OTHER_KINDS, REFUSED, TABLE, TAG, attack, main

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
    attack(
        f"_start is {kind}",
        REFUSED,
        what.format('"_start"'),
        head="",
        message="_start" if "garbage" not in kind else "",
    )
CREATE_0 = main("(call $exit (call $create (i32.const 0) (i32.const 0)))") + "(func $e) (elem declare func $e)"
for kind, what in {
    **OTHER_KINDS,
    "a table": "(table (export {}) 1 funcref)",
    "a memory of 64 bits": "(memory (export {}) i64 0)",
    "an empty memory": "(memory (export {}) 0)",
}.items():
    attack(
        f"memory is {kind}", MEMVIOLATION, CREATE_0 + "(elem (i32.const 0) $e)", head=TABLE + what.format('"memory"')
    )
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
attack(
    "there is neither memory nor table", INVAL, main("(call $exit (call $create (i32.const 0) (i32.const 0)))"), head=""
)
