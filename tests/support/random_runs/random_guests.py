"""Writes guests at random: valid modules that call what WASI and WASIX have, in many contexts, with odd arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attacks.writing import HEAD, MEMORY

from greenctx.wasix._files.wasmtime_wasi import PARAMETERS
from greenctx.wasix._modules.abi import WASI_MODULE, WASIX_MODULE
from greenctx.wasix._syscalls.of_wasix.types import wasix_types

if TYPE_CHECKING:
    from random import Random

FUNCTIONS = 6
SHARED_MEMORY = '(import "env" "memory" (memory 1 200 shared))'
DATA = """(data (i32.const 0) "\\00\\01\\00\\00\\08\\00\\00\\00\\00\\02\\00\\00\\ff\\ff\\ff\\ff")
    (data (i32.const 256) "a/../../b/c\\00__wasm_signal")"""

SMALL = [*range(10)]
POINTERS = [0, 8, 16, 64, 256, 512, 1024, 65528, 65532, 65535, 65536, 2**31 - 4, 2**31, 2**32 - 8, 2**32 - 1]
WIDE = [0, 1, 2, 3, 4, 5, 6, 2**31, 2**32, 2**32 + 1, 2**63 - 1, 2**63, 2**64 - 1]


def random_guest(random: Random) -> str:
    """Return the text of a module. It may run for ever."""
    return _Writer(random).module()


class _Writer:
    def __init__(self, random: Random) -> None:
        self._random = random
        of_wasi = {(WASI_MODULE, name): f"{ty} -> i32" for name, ty in PARAMETERS.items()}
        of_wasix = {
            (WASIX_MODULE, name): random.choice(sorted(types)).replace("!", "")
            for name, types in wasix_types(WASIX_MODULE).items()
            if not name.startswith("context_")
        }
        calls = random.choice([of_wasi, of_wasix, of_wasi | of_wasix])
        self._imports = {key: calls[key] for key in random.sample(sorted(calls), random.randrange(12))}

    def module(self) -> str:
        """Return all of it: imports first, then one memory, a table, and functions that call one another."""
        imports = "".join(
            f'(import "{module}" "{name}" (func ${module}.{name} (param {params}) (result {results})))\n'
            for (module, name), ty in self._imports.items()
            for params, results in [ty.split("->")]
        )
        functions = "".join(f"(func $f{number} {self._body(3)})\n" for number in range(FUNCTIONS))
        names = " ".join(f"$f{number}" for number in range(FUNCTIONS))
        start = "(start $f0)" if not self._random.randrange(20) else ""
        memory = self._random.choice([f"{{}} {MEMORY}"] * 2 + [f"{SHARED_MEMORY} {{}}"]).format("")
        return f"""(module {HEAD} {imports} {memory}
            (tag $tag (export "tag") (param i32)) (global $steps (mut i32) (i32.const 0))
            (table $table (export "__indirect_function_table") 8 64 funcref) (elem (i32.const 0) {names}) {DATA}
            (func (export "__wasm_signal") (param i32) {self._body(1)})
            {functions} {start} (func (export "_start") {self._body(3)} {self._body(2)}))"""

    def _body(self, depth: int) -> str:
        return " ".join(self._statement(depth) for _ in range(self._random.randrange(1, 6)))

    def _statement(self, depth: int) -> str:
        choice = self._random.choice
        number, wide, pointer = choice(SMALL), choice(WIDE), choice(POINTERS)
        kinds = ["import"] * 8 + ["create", "switch", "switch to the last"] * 3
        kinds += ["destroy", "call", "call by table", "grow", "store", "replace", "exit"]
        kinds += ["loop", "throw", "catch", "if"] if depth else []
        match choice(kinds):
            case "import" if self._imports:
                (module, name), ty = choice(sorted(self._imports.items()))
                params, results = ty.split("->")
                call = f"(call ${module}.{name} {' '.join(map(self._argument, params.split()))})"
                return f"(drop {call})" if results.split() else call
            case "create":
                return f"(drop (call $create (i32.const {choice([64, 72, pointer])}) (i32.const {number})))"
            case "switch":
                return f"(drop (call $switch (i64.const {wide})))"
            case "switch to the last":
                return "(drop (call $switch (i64.load (i32.const 64))))"
            case "destroy":
                return f"(drop (call $destroy (i64.const {wide})))"
            case "call" if not self._random.randrange(3):
                return f"(call $f{number % FUNCTIONS})"
            case "call by table" if not self._random.randrange(3):
                return f"(call_indirect $table (i32.const {number}))"
            case "grow":
                return choice(
                    [
                        f"(drop (memory.grow (i32.const {number})))",
                        f"(drop (table.grow (ref.null func) (i32.const {number})))",
                    ]
                )
            case "store":
                return f"(i64.store (i32.const {number * 8}) (i64.const {wide}))"
            case "replace":
                return f"(table.set (i32.const {number}) (table.get (i32.const {number // 2})))"
            case "exit" if not self._random.randrange(6):
                return choice([f"(call $exit (i32.const {number}))", "unreachable", "return"])
            case "loop":
                more = "(i32.lt_u (global.get $steps) (i32.const 2000))"
                step = "(global.set $steps (i32.add (global.get $steps) (i32.const 1)))"
                return f"(loop {self._body(depth - 1)} {step} (br_if 0 {more}))"
            case "throw" if not self._random.randrange(4):
                return f"(throw $tag (i32.const {number}))"
            case "catch":
                catch = choice(["(catch_all 0)", "(catch_all_ref 0)", "(catch $tag 0)", "(catch_ref $tag 0)"])
                block = {"(catch_all 0)": "", "(catch_all_ref 0)": "exnref", "(catch $tag 0)": "i32"}
                results = block.get(catch, "i32 exnref")
                default = {"": "", "exnref": "(ref.null exn)", "i32": "(i32.const 0)"}.get(
                    results, "(i32.const 0) (ref.null exn)"
                )
                waits = self._statement(0)
                after = choice(["drop", f"{waits} drop"] + ["throw_ref"] * (results == "exnref"))
                ends = {"": waits, "i32": after, "exnref": after}.get(results, f"{after} drop")
                return f"(block (result {results}) (try_table {catch} {self._body(depth - 1)}) {default}) {ends}"
            case "if":
                condition = "(i32.and (global.get $steps) (i32.const 1))"
                return f"(if {condition} (then {self._body(depth - 1)}) (else {self._body(depth - 1)}))"
        return "(nop)"

    def _argument(self, ty: str) -> str:
        if ty == "i64":
            return f"(i64.const {self._random.choice(WIDE)})"
        return f"(i32.const {self._random.choice([*SMALL, *SMALL, *POINTERS])})"
