"""Small programs of WASIX calls, written in Python's syntax, that print what each call returns.

A probe is a sequence of expressions, separated by semicolons::

    fd_pipe(R, W); write(u32(W), b"abc"); read(u32(R), 10); fd_dup2(99, 0, 0, R)

prints ``success success 3 success abc badf``. A call of WASI or WASIX prints its errno; ``wasix_random_get`` is WASI's
function under WASIX's name. Arguments are

- numbers; bytes, which are passed as an address and a length
- a name in capitals: the address of 16 zero bytes of its own, or of the memory's end, ``END``
- ``u8(address)``, ``u32(address)``, ``u64(address)``: the number at that address
- a name in small letters: one of the probe's other functions, as an index into the table; ``null_entry`` and
  ``not_of_that_type`` are indices of no such function; in a handler, ``signal`` is its parameter

Other expressions are

- ``show(number)``, ``show_text(address, length)``, and ``put(address, number)`` for 32 bits, ``put64`` for 64
- ``read(fd, size)``, ``write(fd, text)``, and ``poll(tag, fd)`` for a subscription to one descriptor
- ``trap()``, ``loop()``, ``recurse()``, ``throw(number)``; ``caught(call)`` makes a call and prints what it throws
- ``name()``: a call of one of the probe's other functions
"""

from __future__ import annotations

import ast
from struct import unpack_from
from typing import TYPE_CHECKING

from wasmtime import wat2wasm

from greenctx.wasix._files.wasmtime_wasi import PARAMETERS
from guests.wasi_guest import WASI, WASIX

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ERRNOS = [
    "success",
    "2big",
    "acces",
    "addrinuse",
    "addrnotavail",
    "afnosupport",
    "again",
    "already",
    "badf",
    "badmsg",
    "busy",
    "canceled",
    "child",
    "connaborted",
    "connrefused",
    "connreset",
    "deadlk",
    "destaddrreq",
    "dom",
    "dquot",
    "exist",
    "fault",
    "fbig",
    "hostunreach",
    "idrm",
    "ilseq",
    "inprogress",
    "intr",
    "inval",
    "io",
    "isconn",
    "isdir",
    "loop",
    "mfile",
    "mlink",
    "msgsize",
    "multihop",
    "nametoolong",
    "netdown",
    "netreset",
    "netunreach",
    "nfile",
    "nobufs",
    "nodev",
    "noent",
    "noexec",
    "nolck",
    "nolink",
    "nomem",
    "nomsg",
    "noprotoopt",
    "nospc",
    "nosys",
    "notconn",
    "notdir",
    "notempty",
    "notrecoverable",
    "notsock",
    "notsup",
    "notty",
    "nxio",
    "overflow",
    "ownerdead",
    "perm",
    "pipe",
    "proto",
    "protonosupport",
    "prototype",
    "range",
    "rofs",
    "spipe",
    "srch",
    "stale",
    "timedout",
    "txtbsy",
    "xdev",
    "notcapable",
    "shutdown",
    "memviolation",
    "unknown",
]

WITHOUT_RESULT = {
    "callback_signal": "i32 i32",
    "proc_exec": "i32 i32 i32 i32",
    "proc_exit2": "i32",
    "stack_restore": "i32 i64",
    "thread_exit": "i32",
}
NOT_PROVIDED = {"proc_fork": "i32 i32", "proc_join": "i32 i32 i32", "sock_open": "i32 i32 i32 i32"}
PAGES = 2
_SIGNATURES = {name: (module, types) for module, these in (WASI, WASIX) for name, types in these.items()}
_SIGNATURES |= {name: (WASIX[0], types) for name, types in WITHOUT_RESULT.items()}
_SIGNATURES["thread-spawn"] = ("wasi", "i32")
_SIGNATURES |= {"context_create": (WASIX[0], "i32 i32"), "context_switch": (WASIX[0], "i64")}
_SIGNATURES["context_destroy"] = (WASIX[0], "i64")

_SIGNATURES |= {f"wasix_{name}": (WASIX[0], types) for name, types in PARAMETERS.items()}
_SIGNATURES |= {name: (WASIX[0], types) for name, types in NOT_PROVIDED.items()}

# The layout of the guest's memory.
_SHOWN, _SHOWN_IOVEC, _SHOWN_RESULT, _IOVEC, _RESULT, _SUBSCRIPTION, _EVENT = 0, 16, 24, 64, 80, 128, 192
_NAMES, _TEXTS, _BUFFER = 1024, 8192, 65536
_ERRNO, _NUMBER, _TEXT, _CAUGHT = range(4)

_RUNTIME = f"""
  (func $show (param $kind i32) (param $value i64)
    (i32.store (i32.const {_SHOWN}) (local.get $kind))
    (i64.store (i32.const {_SHOWN + 4}) (local.get $value))
    (call $output (i32.const {_SHOWN}) (i32.const 12)))
  (func $output (param $start i32) (param $length i32)
    (i32.store (i32.const {_SHOWN_IOVEC}) (local.get $start))
    (i32.store (i32.const {_SHOWN_IOVEC + 4}) (local.get $length))
    (drop (call $fd_write (i32.const 1) (i32.const {_SHOWN_IOVEC}) (i32.const 1) (i32.const {_SHOWN_RESULT}))))
  (func $show_text (param $start i32) (param $length i32)
    (call $show (i32.const {_TEXT}) (i64.extend_i32_u (local.get $length)))
    (call $output (local.get $start) (local.get $length)))
  (func $read (param $fd i32) (param $size i32) (local $error i32)
    (i32.store (i32.const {_IOVEC}) (i32.const {_BUFFER}))
    (i32.store (i32.const {_IOVEC + 4}) (local.get $size))
    (call $show (i32.const {_ERRNO}) (i64.extend_i32_u (local.tee $error
      (call $fd_read (local.get $fd) (i32.const {_IOVEC}) (i32.const 1) (i32.const {_RESULT})))))
    (if (i32.eqz (local.get $error)) (then (call $show_text (i32.const {_BUFFER}) (i32.load (i32.const {_RESULT}))))))
  (func $write (param $fd i32) (param $start i32) (param $length i32) (local $error i32)
    (i32.store (i32.const {_IOVEC}) (local.get $start))
    (i32.store (i32.const {_IOVEC + 4}) (local.get $length))
    (call $show (i32.const {_ERRNO}) (i64.extend_i32_u (local.tee $error
      (call $fd_write (local.get $fd) (i32.const {_IOVEC}) (i32.const 1) (i32.const {_RESULT})))))
    (if (i32.eqz (local.get $error)) (then
      (call $show (i32.const {_NUMBER}) (i64.load32_u (i32.const {_RESULT}))))))
  (func $poll (param $tag i32) (param $fd i32) (local $error i32)
    (i32.store8 (i32.const {_SUBSCRIPTION + 8}) (local.get $tag))
    (i32.store (i32.const {_SUBSCRIPTION + 16}) (local.get $fd))
    (call $show (i32.const {_ERRNO}) (i64.extend_i32_u (local.tee $error
      (call $poll_oneoff (i32.const {_SUBSCRIPTION}) (i32.const {_EVENT}) (i32.const 1) (i32.const {_RESULT})))))
    (if (i32.eqz (local.get $error)) (then
      (call $show (i32.const {_ERRNO}) (i64.load16_u (i32.const {_EVENT + 8})))
      (call $show (i32.const {_NUMBER}) (i64.load (i32.const {_EVENT + 16})))
      (call $show (i32.const {_NUMBER}) (i64.load16_u (i32.const {_EVENT + 24}))))))
  (func $recurse (call $recurse) (call $recurse))
"""
_HELPERS = {
    "read": "i32 i32",
    "write": "i32 i32 i32",
    "poll": "i32 i32",
    "show_text": "i32 i32",
    "recurse": "",
}
_LOADS = {"u8": "i32.load8_u", "u32": "i32.load", "u64": "i64.load"}
_STORES = {"put": "i32", "put64": "i64"}


def build_probe(steps: str, functions: Mapping[str, str]) -> bytes:
    """Return the module, a WASI command, that runs these steps."""
    return bytes(wat2wasm(_Builder(functions).module(steps)))


class _Builder:
    def __init__(self, functions: Mapping[str, str]) -> None:
        self._functions = functions
        self._imports = dict.fromkeys(["fd_write", "fd_read", "poll_oneoff"])
        self._addresses: dict[str, int] = {}
        self._texts = b""
        self._throws = False

    def module(self, steps: str) -> str:
        bodies = {name: self._body(text) for name, text in self._functions.items()}
        start = self._body(steps)
        imports = "\n".join(map(_import, self._imports))
        elements = " ".join(f"${name}" for name in bodies)
        functions = "\n".join(
            f'(func ${name} (export "{name}") {_parameters(name)} {body})' for name, body in bodies.items()
        )
        data = "".join(f"\\{byte:02x}" for byte in self._texts)
        return f"""(module {imports}
          (memory (export "memory") {PAGES})
          (table (export "__indirect_function_table") {len(bodies) + 3} funcref)
          (elem (i32.const 1) {elements})
          (elem (i32.const {len(bodies) + 1}) $write)
          {"(tag $tag (param i32))" if self._throws else ""}
          (data (i32.const {_TEXTS}) "{data}")
          {_RUNTIME}
          {functions}
          (func (export "_start") {start}))"""

    def _body(self, steps: str) -> str:
        tree = ast.parse(steps.replace("\n", " ").strip().rstrip(";"))
        return "\n".join(self._step(node.value) for node in tree.body if isinstance(node, ast.Expr))

    def _step(self, node: ast.expr) -> str:
        assert isinstance(node, ast.Call), ast.unparse(node)
        name, arguments = ast.unparse(node.func).replace("_spawn", "-spawn"), node.args
        match name:
            case "trap":
                return "unreachable"
            case "loop":
                return "(loop $for_ever (br $for_ever))"
            case "throw":
                self._throws = True
                return f"(throw $tag {self._value(arguments[0], 'i32')})"
            case "caught":
                self._throws = True
                return f"""(block $after
                  (call $show (i32.const {_CAUGHT}) (i64.extend_i32_u (block $handler (result i32)
                    (try_table (catch $tag $handler) {self._step(arguments[0])})
                    (br $after)))))"""
            case "show":
                return f"(call $show (i32.const {_NUMBER}) {self._value(arguments[0], 'i64')})"
            case "put" | "put64":
                ty = _STORES[name]
                return f"({ty}.store {self._value(arguments[0], 'i32')} {self._value(arguments[1], ty)})"
        if name in self._functions:
            return f"(call ${name} {self._values(arguments, ['i32'] * len(arguments))})"
        if name in _HELPERS:
            return f"(call ${name} {self._values(arguments, _HELPERS[name].split())})"
        _, types = _SIGNATURES[name]
        self._imports[name] = None
        call = f"(call ${name} {self._values(arguments, types.split())})"
        if name in WITHOUT_RESULT:
            return call
        return f"(call $show (i32.const {_ERRNO}) (i64.extend_i32_u {call}))"

    def _values(self, arguments: list[ast.expr], types: list[str]) -> str:
        left, values = iter(types), []
        for argument in arguments:
            if isinstance(argument, ast.Constant) and isinstance(argument.value, bytes):
                values.append(f"(i32.const {_TEXTS + len(self._texts)}) (i32.const {len(argument.value)})")
                self._texts += argument.value
                next(left)
                next(left)
            else:
                values.append(self._value(argument, next(left)))
        assert next(left, None) is None, (types, arguments)
        return " ".join(values)

    def _value(self, node: ast.expr, ty: str) -> str:
        match node:
            case ast.Name(id="signal"):
                return "(local.get 0)" if ty == "i32" else "(i64.extend_i32_u (local.get 0))"
            case ast.Name(id=name) if name in self._functions:
                return f"({ty}.const {[*self._functions].index(name) + 1})"
            case ast.Name(id="not_of_that_type"):
                return f"({ty}.const {len(self._functions) + 1})"
            case ast.Name(id="null_entry"):
                return f"({ty}.const {len(self._functions) + 2})"
            case ast.Call(func=ast.Name(id=name), args=[address]):
                load = f"({_LOADS[name]} {self._value(address, 'i32')})"
                wide = _LOADS[name].startswith("i64")
                return load if wide == (ty == "i64") else f"(i64.extend_i32_u {load})"
        names = {name.id: self._address(name.id) for name in ast.walk(node) if isinstance(name, ast.Name)}
        value = eval(compile(ast.Expression(node), "probe", "eval"), {}, names)
        return f"({ty}.const {value % 2 ** (64 if ty == 'i64' else 32)})"

    def _address(self, name: str) -> int:
        assert name.isupper(), name
        if name == "END":
            return PAGES * 65536
        return self._addresses.setdefault(name, _NAMES + 16 * len(self._addresses))


def _import(name: str) -> str:
    module, types = _SIGNATURES[name]
    result = "" if name in WITHOUT_RESULT else "(result i32)"
    return f'(import "{module}" "{name.removeprefix("wasix_")}" (func ${name} (param {types}) {result}))'


def _parameters(function: str) -> str:
    return "(param i32)" if function.startswith("on_") or function == "__wasm_signal" else ""


def printed(output: bytes) -> Iterator[str]:
    """Return the output of a probe, in words."""
    at = 0
    while at < len(output):
        kind, value = unpack_from("<Iq", output, at)
        at += 12
        if kind == _TEXT:
            yield output[at : at + value].decode("latin-1").replace("\0", "\\0") or "''"
            at += value
        elif kind == _ERRNO:
            yield ERRNOS[value] if value < len(ERRNOS) else str(value - 2**32)
        else:
            yield f"caught-{value}" if kind == _CAUGHT else str(value)
