"""Which stores lack WASI's settings: a guest that calls WASI in one of those would be the end of the process.

wasmtime panics then, and cannot be asked beforehand. So `Store.set_wasi` is made to leave a note, and stores that are
older than that are let through.
"""

from __future__ import annotations

from functools import wraps
from typing import Any
from weakref import WeakSet

from wasmtime import Store

from greenctx.errors import WasiNotSet

_lacking: WeakSet[Store] = WeakSet()
_init, _set_wasi = Store.__init__, Store.set_wasi


@wraps(_init)
def _init_and_note(self: Store, *args: Any, **kwargs: Any) -> None:
    _init(self, *args, **kwargs)
    _lacking.add(self)


@wraps(_set_wasi)
def _set_wasi_and_note(self: Store, *args: Any, **kwargs: Any) -> None:
    _set_wasi(self, *args, **kwargs)
    _lacking.discard(self)


def check_wasi_is_set(store: Store) -> None:
    """Raise `WasiNotSet` if ``set_wasi`` was not called on the store."""
    if store in _lacking:
        raise WasiNotSet


Store.__init__ = _init_and_note  # type: ignore[method-assign]
Store.set_wasi = _set_wasi_and_note  # type: ignore[method-assign]
