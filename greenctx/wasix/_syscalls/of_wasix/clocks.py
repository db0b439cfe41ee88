"""The clocks of a WASIX program: wasmtime's, and the processor time, which wasmtime does not tell."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from greenctx.wasix._modules import abi
from greenctx.wasix._syscalls.guest_memory import GuestMemory
from greenctx.wasix._syscalls.process import call_wasmtime, process_of

if TYPE_CHECKING:
    from greenctx.wasix._fibers.stores import Caller

_PROCESSOR_TIME = (2, 3)  # of the process and of the thread (wasi/api.h), which are the same here
_LAST_CLOCK = 3  # in wasmtime, an unknown clock ends the program


class ClockCalls:
    """Host functions for any linker."""

    def clock_res_get(self, caller: Caller, clock: int, result_pointer: int) -> int:
        """Store the resolution of a clock in nanoseconds."""
        if clock not in _PROCESSOR_TIME:
            return self._as_wasmtime(caller, "clock_res_get", clock, result_pointer)
        resolution = max(1, round(time.get_clock_info("thread_time").resolution * 1e9))
        GuestMemory(caller).write_u64(result_pointer, resolution)
        return abi.SUCCESS

    def clock_time_get(self, caller: Caller, clock: int, precision: int, result_pointer: int) -> int:
        """Store the time of a clock in nanoseconds. The processor time is that of the thread since the first call."""
        if clock not in _PROCESSOR_TIME:
            return self._as_wasmtime(caller, "clock_time_get", clock, precision, result_pointer)
        GuestMemory(caller).write_u64(result_pointer, process_of(caller.store).processor_time())
        return abi.SUCCESS

    def clock_time_set(self, _: Caller, clock: int, __: int) -> int:
        """Refuse to set a clock: guests do not set those of the host."""
        return abi.PERM if clock <= _LAST_CLOCK else abi.INVAL

    def _as_wasmtime(self, caller: Caller, name: str, clock: int, *args: int) -> int:
        if clock > _LAST_CLOCK:
            return abi.INVAL
        return call_wasmtime(name, caller, clock, *args)
