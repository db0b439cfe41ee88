"""``setjmp`` and ``longjmp`` of programs that Asyncify has changed: WASIX's stack_checkpoint and stack_restore.

Asyncify, a pass of Binaryen, lets a program save its calls to its memory and return from all of them. Called again, the
program makes the same calls and goes on. So at a checkpoint the program returns from ``_start``. The host keeps a copy
of the saved calls, and calls ``_start`` again. A restore does the same with an earlier copy.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from wasmtime import Func, Global, Memory, Trap, WasmtimeError

from greenctx.wasix._fibers.calls import call
from greenctx.wasix._fibers.stores import state_of
from greenctx.wasix._fibers.values import kind_of, type_text
from greenctx.wasix._modules import abi
from greenctx.wasix._syscalls.guest_memory import GuestMemory

if TYPE_CHECKING:
    from wasmtime import GlobalType, Store

    from greenctx.wasix._fibers.stores import Caller
    from greenctx.wasix._syscalls.signals import Signals

PAGES = 16
"""The size of the buffer in the guest's memory for its saved calls, in pages."""

MAX_SAVED = 16 * 2**20
"""The most memory of the host for the checkpoints of one program, in bytes. The oldest are forgotten."""

SNAPSHOT_SIZE = 24
"""stack_snapshot (wasi/api_wasix.h): a number for the guest, and 16 bytes by which the host finds the stack."""

_KEY_SIZE = 16

_TYPES = {
    "asyncify_start_unwind": "i32 ->",
    "asyncify_stop_unwind": "->",
    "asyncify_start_rewind": "i32 ->",
    "asyncify_stop_rewind": "->",
}
_HEAD = 8  # bytes at the beginning of Asyncify's buffer: where the saved calls end, and where the buffer ends


class _Asyncify:
    """The exports of the guest that the host needs. Raises LookupError if one is missing."""

    def __init__(self, caller: Caller) -> None:
        self._functions: dict[str, Func] = {}
        for name, ty in _TYPES.items():
            function = caller.get(name)
            if not isinstance(function, Func) or type_text(function.type(caller)) != ty:
                raise LookupError(f"it exports no {name}")
            self._functions[name] = function
        memory, pointer = caller.get(abi.MEMORY), caller.get(abi.STACK_POINTER)
        if not isinstance(memory, Memory):
            raise LookupError("it has no memory of its own")
        if not isinstance(pointer, Global) or not _is_variable(pointer.type(caller)):
            raise LookupError(f"it exports no {abi.STACK_POINTER}")
        self._memory, self.pointer = memory, pointer
        try:
            self._buffer = memory.grow(caller, PAGES) * 65536
        except WasmtimeError as error:
            raise LookupError("its memory cannot grow") from error

    def call(self, store: Store, name: str) -> None:
        function = self._functions[f"asyncify_{name}"]
        call(store, function, *([self._buffer] if name.startswith("start") else []))

    def put(self, store: Store, saved: bytes) -> None:
        """Write saved calls, or none, to the buffer."""
        begin, end = self._buffer + _HEAD, self._buffer + PAGES * 65536
        head = (begin + len(saved)).to_bytes(4, "little") + end.to_bytes(4, "little")
        self._memory.write(store, head + saved, self._buffer)

    def put_key(self, store: Store, snapshot: int, key: bytes) -> None:
        """Write the host's key into the guest's snapshot."""
        self._memory.write(store, key, snapshot + SNAPSHOT_SIZE - len(key))

    def take(self, store: Store) -> bytes:
        """Read the guest's saved calls."""
        begin = self._buffer + _HEAD
        end = int.from_bytes(self._memory.read(store, self._buffer, self._buffer + 4), "little")
        if not begin <= end <= self._buffer + PAGES * 65536:
            raise Trap("the guest says that it has saved its calls elsewhere than it was told to")
        return bytes(self._memory.read(store, begin, end))


def _is_variable(ty: GlobalType) -> bool:
    return ty.mutable and kind_of(ty.content) == "i32"


class _Saved(NamedTuple):
    calls: bytes
    pointer: int
    """The stack pointer."""


class Checkpoints:
    """The checkpoints of one program."""

    def __init__(self, signals: Signals) -> None:
        self.can_restart = False
        """Whether the caller of ``_start`` calls it again while `goes_on`."""
        self._signals = signals
        self._asyncify: _Asyncify | None = None
        self._saved: dict[bytes, _Saved] = {}
        """By a hash of both, because programs pass the same point again and again. The oldest comes first."""
        self._snapshot: tuple[int, int] | None = None
        """The checkpoint for which the guest returns from ``_start``: its snapshot's address, and the stack pointer."""
        self._target: tuple[_Saved, int] | None = None
        """The calls to restore once the guest has returned, and the value that the checkpoint then returns."""
        self._value: int | None = None
        """That value, from then on until the program has come to the checkpoint."""

    def checkpoint(self, caller: Caller, snapshot: int, result_pointer: int) -> int:
        """Return 0 to the guest, and keep the state for another return. If that is not possible, restores will trap."""
        memory, value = GuestMemory(caller), self._value
        memory.check(snapshot, SNAPSHOT_SIZE)
        memory.write_u64(result_pointer, value or 0)
        if value is not None and self._asyncify is not None:
            self._value = None
            self._asyncify.call(caller.store, "stop_rewind")
            self._signals.is_blocked = False
            self._signals.deliver(caller.store)
        elif (asyncify := self._find_asyncify(caller)) is not None:
            self._snapshot = snapshot, asyncify.pointer.value(caller.store)
            self._unwind(caller.store)
        return abi.SUCCESS

    def restore(self, caller: Caller, snapshot: int, value: int) -> None:
        """Return from the checkpoint once more, with that value. Raises Trap if that is not possible."""
        key = GuestMemory(caller).read(snapshot, SNAPSHOT_SIZE)[-_KEY_SIZE:]
        saved = self._saved.get(key)
        if saved is None or self._find_asyncify(caller) is None:
            raise Trap("the guest called stack_restore (longjmp) for a checkpoint that greenctx cannot return to")
        self._target = saved, value
        self._unwind(caller.store)

    def goes_on(self, store: Store) -> bool:
        """Whether ``_start`` has returned only for a checkpoint or a restore, and must be called again."""
        asyncify, target, snapshot = self._asyncify, self._target, self._snapshot
        if asyncify is None or (target is None and snapshot is None):
            return False
        self._target = self._snapshot = None
        asyncify.call(store, "stop_unwind")
        if target is None:
            assert snapshot is not None
            address, pointer = snapshot
            target = _Saved(asyncify.take(store), pointer), 0
            asyncify.put_key(store, address, self._keep(target[0]))
        saved, self._value = target
        asyncify.put(store, saved.calls)
        asyncify.pointer.set_value(store, saved.pointer)
        asyncify.call(store, "start_rewind")
        return True

    def _unwind(self, store: Store) -> None:
        assert self._asyncify is not None
        self._signals.is_blocked = True  # a handler is code that Asyncify has changed, too
        self._asyncify.put(store, b"")
        self._asyncify.call(store, "start_unwind")

    def _find_asyncify(self, caller: Caller) -> _Asyncify | None:
        """Return it if the guest can return from all of its calls now: from ``_start`` and those that it has made."""
        state = state_of(caller.store)
        if not self.can_restart or state.calls != 1 or state.shadow_stacks is not None:
            return None
        if self._asyncify is None:
            with suppress(LookupError):
                self._asyncify = _Asyncify(caller)
        return self._asyncify

    def _keep(self, saved: _Saved) -> bytes:
        from hashlib import blake2b  # needed by few programs

        key = blake2b(saved.calls + saved.pointer.to_bytes(4, "little", signed=True), digest_size=_KEY_SIZE).digest()
        self._saved.pop(key, None)
        self._saved[key] = saved
        while sum(len(one.calls) for one in self._saved.values()) > MAX_SAVED:
            del self._saved[next(iter(self._saved))]
        return key
