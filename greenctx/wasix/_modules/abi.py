"""The WASIX ABI: facts only. Sources: wasix-libc's ``wasix/context.h`` and ``wasi/api_wasix.h``, and WASI preview 1."""

from __future__ import annotations

import re
from typing import Final

WASIX_MODULE: Final = "wasix_32v1"
"""Import module of WASIX's calls, for guests with 32-bit pointers."""

WASIX_MODULE_64: Final = "wasix_64v1"
"""Import module of WASIX's calls, for guests with 64-bit pointers (memory64)."""

WASIX_MODULES: Final = (WASIX_MODULE, WASIX_MODULE_64)

WASI_MODULE: Final = "wasi_snapshot_preview1"

WASI_UNSTABLE_MODULE: Final = "wasi_unstable"
"""Import module of WASI preview 0."""

WAITING_CALLS: Final = re.compile("path_|sock_|fd_(pread|pwrite|readdir|sync|datasync|allocate|filestat_|fdstat_set)")
"""Matches the WASI calls that wasmtime serves and that may wait for a file."""

THREADS_MODULE: Final = "wasi"
"""Import module of the ``thread-spawn`` of WASI's threads."""

FUNCTION_TABLE: Final = "__indirect_function_table"
"""The exported table. An entrypoint is an index into it."""

MEMORY: Final = "memory"
"""The exported memory that pointers point into."""

STACK_POINTER: Final = "__stack_pointer"
"""The global that holds the top of LLVM's stack in linear memory, if the guest exports it."""

MALLOC: Final = "malloc"

START: Final = "_start"
"""The exported function that runs a WASI command."""

MAIN_CONTEXT: Final = 0


# Errno values. Plain integers, because members of an IntEnum cost as much as the rest of a call.
SUCCESS: Final = 0
ACCES: Final = 2
AGAIN: Final = 6
BADF: Final = 8
CHILD: Final = 12
CONNRESET: Final = 15
EXIST: Final = 20
FAULT: Final = 21
FBIG: Final = 22
INTR: Final = 27
INVAL: Final = 28
IO: Final = 29
ISDIR: Final = 31
MFILE: Final = 33
NAMETOOLONG: Final = 37
NOENT: Final = 44
NOMEM: Final = 48
NOSPC: Final = 51
NOTDIR: Final = 54
NOTSOCK: Final = 57
NOTSUP: Final = 58
PERM: Final = 63
PIPE: Final = 64
RANGE: Final = 68
SPIPE: Final = 70
SRCH: Final = 71
MEMVIOLATION: Final = 78
