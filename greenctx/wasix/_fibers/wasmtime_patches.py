"""Every patch of the wasmtime package. Importing `greenctx.wasix` makes them.

Three patches apply to the whole process, so code that uses wasmtime without greenctx meets them, too:

- ``Store.__init__`` and ``Store.set_wasi`` leave a mark on each store. When a guest calls WASI in a store without
  WASI's settings, wasmtime panics, which ends the process, and offers no way to ask beforehand. Stores older than the
  patch have no mark, and are let through.
- ``wasmtime_externref_new``, which the package calls for each reference to a Python object. Making a reference may take
  a collection. For stores that greenctx does not know, the patch only calls wasmtime's function.
- ``WasmtimeError._from_ptr``, which makes the library's errors. One of them advises users of the C API to call
  "`*_async` functions", which the package lacks. The patch appends what to write instead.

Two patches apply to a store from its first use with greenctx on:

- ``store.gc`` runs the collector so that it finds the references of suspended guests.
- ``store._delete`` refuses to delete the store while a guest is suspended in it.

wasmtime's collector finds the references of guests by walking their stacks, but not the stacks of suspended fibers. It
would free or move an object that only such a guest refers to. At best the guest then found one exception's payload in
another; at worst the process ended. So `StoreState` runs every collection with all suspended calls on the stack below
it. `gc_anchor` decides which guests need that.
"""

from __future__ import annotations

from functools import partial, wraps
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary, ref

from wasmtime import Store

from greenctx._core.scope import of_this_thread
from greenctx.errors import StoreInUse
from greenctx.wasix._native import capi
from greenctx.wasix._native.capi_values import add_advice

if TYPE_CHECKING:
    from greenctx.wasix._native._fiber import StoreState

_LACKS_WASI = "greenctx.lacks_wasi"
"""The mark: a key in the store's ``__dict__``, and not a name that an attribute can have."""

_by_context: WeakValueDictionary[int, StoreState] = WeakValueDictionary()
"""The states of known stores, by the address of the store's context, which wasmtime_externref_new gets."""

_init, _set_wasi = Store.__init__, Store.set_wasi


@wraps(_init)
def _init_and_mark(self: Store, *args: Any, **kwargs: Any) -> None:
    _init(self, *args, **kwargs)
    self.__dict__[_LACKS_WASI] = True


@wraps(_set_wasi)
def _set_wasi_and_unmark(self: Store, *args: Any, **kwargs: Any) -> None:
    _set_wasi(self, *args, **kwargs)
    self.__dict__.pop(_LACKS_WASI, None)


def _new_externref(context: int, handle: int, result: int) -> bool | None:
    state = _by_context.get(context)
    return None if state is None else state.new_externref(context, handle, result, of_this_thread())


# The package has no hook for any of these, and a subclass of Store would miss the stores that other code makes.
Store.__init__ = _init_and_mark  # type: ignore[method-assign]
Store.set_wasi = _set_wasi_and_unmark  # type: ignore[method-assign]
capi.intercept_externref_new(_new_externref)
add_advice(
    "`*_async`",
    "call the function by greenctx.wasix.call(store, func, *args), or make the instance by greenctx.wasix's Linker or "
    "Instance, whose functions are called as usual",
)


def lacks_wasi(store: Store) -> bool:
    """Return whether ``set_wasi`` was not called on the store."""
    return _LACKS_WASI in store.__dict__


def patch_store(store: Store, state: StoreState) -> None:
    """Patch a store at its first use with greenctx."""
    _guard_deletion(store, state)
    # A weak reference: the store refers to this function, and the cycle would delay the end of stores.
    reference, context = ref(store), capi.context_address(store)

    def gc() -> None:
        caller = reference()
        assert caller is not None
        state.collect(capi.context_address(caller), of_this_thread())

    store.gc = gc  # type: ignore[method-assign]
    _by_context[context] = state


def _guard_deletion(store: Store, state: StoreState) -> None:
    # The fiber of a suspended guest refers to the store, so wasmtime would use the store after freeing it.
    # With a callback, because from 3.15 on the collector clears other references only after the finalizers.
    reference = ref(store, lambda _: None)
    deleted = False

    def delete(pointer: Any) -> None:
        nonlocal deleted
        alive = reference()
        if state.calls:
            if alive is not None:
                raise StoreInUse(state.calls)
            # The calls are being collected with the store. Each of them ends in its own finalizer. (A weak reference to
            # the state would be too late: from 3.14 on, the collector clears those that finalizers have made.)
            state.remove_anchor()
            state.on_last_end = partial(capi.delete_store, pointer)
            return
        if alive is not None:  # it is not being collected
            capi.forget_context(alive)
        # `deleted` is set before, not after: wasmtime's own close(), interrupted here, calls this again later.
        if not deleted:
            deleted = True
            state.remove_anchor()
            capi.delete_store(pointer)

    capi.delete_store_by(store, delete)
