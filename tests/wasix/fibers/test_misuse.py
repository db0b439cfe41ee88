"""Calls that would be the end of the process if wasmtime got to see them, or that only it can refuse: each is an error.

Each test runs in a process of its own, which must get to its end.
"""

from __future__ import annotations

from processes import check_embedder as check


def test_function_of_another_store() -> None:
    """WrongStore, to call it; wasmtime's own error, to pass it as an argument."""
    check(
        """
        text = '(module (func (export "f")) (func (export "take") (param funcref)))'
        other = Store(engine)
        guest, foreign = load(text), load(text, other)
        assert "function" in refused(WrongStore, call, store, foreign["f"])
        assert "wrong store" in refused(WasmtimeError, call, store, guest["take"], foreign["f"])
        assert "function" in refused(WrongStore, call, Store(), guest["f"])
        call(store, guest["take"], guest["f"])
        call(other, foreign["take"], None)
        """
    )


def test_parts_of_another_engine() -> None:
    """WrongStore, too: a linker and a store of different engines; wasmtime's own error, a linker and a module."""
    check(
        """
        other = Engine()
        assert "linker" in refused(WrongStore, Linker(other).instantiate, store, Module(other, "(module)"))
        assert "linker" in refused(WrongStore, linker.instantiate, Store(other), Module(engine, "(module)"))
        assert "cross-`Engine`" in refused(WasmtimeError, linker.instantiate, store, Module(other, "(module)"))
        load("(module)")
        """
    )


def test_closed_store() -> None:
    """A ValueError, whether anything was called in it before or not."""
    check(
        """
        for used in (False, True):
            closed = Store(engine)
            function = load('(module (func (export "f")))', closed)["f"]
            if used:
                call(closed, function)
            closed.close()
            assert "closed" in refused(ValueError, call, closed, function)
            assert "closed" in refused(ValueError, linker.instantiate, closed, Module(engine, "(module)"))
        """
    )


def test_closing_a_store_in_use() -> None:
    """StoreInUse, while a guest of the store is suspended: in the host function that it called, or in a context that
    waits. The guest goes on, and when no call is left the store can be closed."""
    check(
        """
        def host(wait):
            assert "1 call" in refused(StoreInUse, store.close)
            if wait:
                env.switch_context(0)

        linker.define_func("host", "host", FuncType([ValType.i32()], []), host)
        guest = load('(module (import "host" "host" (func $host (param i32))) (func (export "run") (param i32) '
                     '(call $host (local.get 0))))')

        def main():
            call(store, guest["run"], 0)
            context_id = env.create_context(lambda: call(store, guest["run"], 1))
            env.switch_context(context_id)
            message = refused(StoreInUse, store.close)
            assert "destroy" in message
            try:
                with store:
                    pass
            except StoreInUse:
                env.destroy_context(context_id)
            call(store, guest["run"], 0)
            store.close()
            store.close()
            assert "closed" in refused(ValueError, call, store, guest["run"], 0)

        env.run_main_context(main)
        """
    )


def test_wrong_arguments() -> None:
    """Too few, too many, or of the wrong type: a TypeError, and nothing was called."""
    check(
        """
        guest = load('(module (func (export "f") (param i32 externref) (result i32) (local.get 0)))')
        f = guest["f"]
        for args in ((), (1,), (1, 2, 3), ("1", 2), (None, 2), (1.5, 2)):
            refused(TypeError, call, store, f, *args)
        refused(TypeError, call, None, f)
        refused(TypeError, call, engine, f, 1, 2)
        assert call(store, f, 1, "anything") == 1
        """
    )


def test_direct_call() -> None:
    """func(store) of a plain wasmtime function raises an error that says to use greenctx.wasix.call."""
    check(
        """
        linker.define_func("host", "f", NOTHING, lambda: None)
        guest = load('(module (import "host" "f" (func $f)) (func (export "run") (call $f)))')
        table = load('(module (import "host" "f" (func $f)) (table (export "t") funcref (elem $f)))')["t"]
        plain = Func._from_raw(guest["run"]._func)
        assert type(plain) is wasmtime.Func
        assert "call the function by greenctx.wasix.call(store, func, *args)" in refused(WasmtimeError, plain, store)
        assert call(store, plain) is call(store, table.get(store, 0)) is guest["run"](store) is None
        """
    )


def test_missing_import() -> None:
    """The linker's error names what is not defined, and what has another type."""
    check(
        """
        assert "`env::missing`" in refused(WasmtimeError, load, '(module (import "env" "missing" (func)))')
        text = '(module (import "wasix_32v1" "context_switch" (func)))'
        assert "`wasix_32v1::context_switch`" in refused(WasmtimeError, load, text)
        assert "defined twice" in refused(WasmtimeError, linker.define_wasix)
        linker.allow_shadowing = True
        linker.define_wasix()
        load("(module)")
        """
    )
