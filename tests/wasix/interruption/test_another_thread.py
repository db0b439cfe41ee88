"""Another thread in the store, while contexts wait in it, end, or are destroyed.

Each test runs in a process of its own, which must get to its end.
"""

from __future__ import annotations

import textwrap

import pytest
from processes import check_embedder as check


def test_call_from_another_thread() -> None:
    """A store in which another thread is running a guest refuses a call, and an instantiation; the guest runs on."""
    check(
        """
        guest = load('''(module (memory (export "memory") 1) (func (export "other"))
          (func (export "run")
            (i32.store8 (i32.const 0) (i32.const 1))
            (loop (br_if 0 (i32.eqz (i32.load8_u (i32.const 1)))))))''')
        flags = guest["memory"].data_ptr(store)
        other, module = guest["other"], Module(engine, "(module)")
        thread = threading.Thread(target=call, args=(store, guest["run"]))
        thread.start()
        while not flags[0]:
            pass
        assert "another thread" in refused(CalledWithinGuest, call, store, other)
        refused(CalledWithinGuest, linker.instantiate, store, module)
        refused(CalledWithinGuest, env.run_main_context, lambda: call(store, other))
        flags[1] = 1
        thread.join()
        call(store, other)
        """
    )


def test_call_from_another_thread_within_a_host_function() -> None:
    """While a host function runs, its guest does not: another thread may call the store, one at a time."""
    check(
        """
        results = []
        def host():
            thread = threading.Thread(target=lambda: results.append(call(store, guest["seven"])))
            thread.start()
            thread.join()
        linker.define_func("host", "host", NOTHING, host)
        guest = load('(module (import "host" "host" (func $host)) (func (export "seven") (result i32) (i32.const 7)) '
                     '(func (export "run") (call $host)))')
        env.run_main_context(lambda: call(store, guest["run"]))
        assert results == [7]
        """
    )


def test_return_from_a_host_function_while_another_thread_runs_a_guest() -> None:
    """The guest cannot go on then: its call is refused, and unwinds when the other one has ended."""
    check(
        """
        def host():
            thread.start()
            while not flags[0]:
                pass
        linker.define_func("host", "host", NOTHING, host)
        guest = load('''(module (import "host" "host" (func $host)) (memory (export "memory") 1)
          (func (export "run") (call $host))
          (func (export "other")
            (i32.store8 (i32.const 0) (i32.const 1))
            (loop (br_if 0 (i32.eqz (i32.load8_u (i32.const 1)))))))''')
        flags = guest["memory"].data_ptr(store)
        thread = threading.Thread(target=call, args=(store, guest["other"]), daemon=True)
        assert "another thread" in refused(CalledWithinGuest, call, store, guest["run"])
        flags[1] = 1
        thread.join()
        call(store, guest["other"])
        store.close()
        """
    )


FORGET = """
from greenctx.wasix._fibers import calls

class Forgotten:
    def __init__(self, *args):
        self.fiber = fiber(*args)
    def __getattr__(self, name):
        return getattr(self.fiber, name)
    def close(self):
        del self.fiber

fiber, calls.Fiber = calls.Fiber, Forgotten
"""
"""Calls are forgotten, as an interruption in the wrong place would have it, not closed."""

CLOSE_TWICE = FORGET.replace("del self.fiber", "self.fiber.close(), self.fiber.close()")


@pytest.mark.parametrize("way", ["", FORGET, CLOSE_TWICE], ids=["closed", "forgotten", "closed twice"])
def test_destroying_contexts_while_another_thread_runs_a_guest(way: str) -> None:
    """The guests of those contexts unwind when that thread is out of the store: until then they keep it open."""
    script = """
        entered = []
        def host(wait):
            if wait:
                env.switch_context(0)
            else:
                entered.append(True)
        linker.define_func("host", "host", FuncType([ValType.i32()], []), host)
        guest = load('''(module (import "host" "host" (func $host (param i32))) (memory (export "memory") 1)
          (func (export "run") (call $host (i32.const 1)))
          (func $dive (param i32) (if (local.get 0) (then (call $dive (i32.sub (local.get 0) (i32.const 1))))))
          (func (export "other")
            (i32.store8 (i32.const 0) (i32.const 1))
            (loop (call $dive (i32.const 100)) (br_if 0 (i32.eqz (i32.load8_u (i32.const 1)))))
            (call $host (i32.const 0))))''')
        flags = guest["memory"].data_ptr(store)

        def main():
            for _ in range(10):
                contexts = [env.create_context(lambda: call(store, guest["run"])) for _ in range(200)]
                for context in contexts:
                    env.switch_context(context)
                thread = threading.Thread(target=call, args=(store, guest["other"]), daemon=True)
                thread.start()
                while not flags[0]:
                    pass
                assert all([env.destroy_context(context) for context in contexts])
                assert "201 call" in refused(StoreInUse, store.close)
                flags[1] = 1
                thread.join()
                flags[0] = flags[1] = 0

        env.run_main_context(main)
        assert len(entered) == 10
        store.close()
        """
    check(way + textwrap.dedent(script))


SPINNING = """
config = wasmtime.Config()
config.wasm_exceptions = True
store = Store(Engine(config))
engine, linker = store.engine, Linker(store.engine)
def load(text):
    return linker.instantiate(store, Module(engine, text)).exports(store)
other = load('''(module (memory (export "memory") 1) (tag $thrown (param i32))
  (func $spin (export "spin")
    (i32.store8 (i32.const 0) (i32.const 1))
    (loop (br_if 0 (i32.eqz (i32.load8_u (i32.const 1))))))
  (func (export "throw") (call $spin) (throw $thrown (i32.const 42)))
  (func (export "seven") (result i32) (i32.const 7)))''')
flags = other["memory"].data_ptr(store)

def wait():
    current_environment().switch_context(0)
linker.define_func("host", "wait", NOTHING, wait)
waiting = load('(module (import "host" "wait" (func $wait)) (func (export "run") (call $wait)))')["run"]

def begin(thread):
    thread.start()
    while not flags[0]:
        pass

class Leaving:
    def __init__(self, what):
        self.what = what
    def __del__(self):
        self.what()

def leave_waiting(what, then):
    env = ContextSwitchingEnvironment()
    env.something = Leaving(what)
    def main():
        env.switch_context(env.create_context(lambda: call(store, waiting)))
        then()
    env.run_main_context(main)
"""
"""A guest that goes on until it is told to end (by the second flag), and throws; `begin` lets a thread get into it.

`leave_waiting` ends an environment while a guest waits in one of its contexts: ``then`` is done before, and ``what``
when nothing refers to the environment any more.
"""


def test_what_is_done_when_an_abandoned_call_is_gone() -> None:
    """A ``__del__`` may then call guests of the store, and does not replace the outcome of another call."""
    script = """
        said = []
        def throw():
            try:
                call(store, other["throw"])
            except GuestException as error:
                said.append(error.payload)
        thread = threading.Thread(target=throw)
        leave_waiting(lambda: said.append(call(store, other["seven"])), lambda: begin(thread))
        assert said == []
        flags[1] = 1
        thread.join()
        assert said == [7, (42,)], said
        store.close()
        """
    check(SPINNING + textwrap.dedent(script))


def test_another_thread_gets_into_the_store_when_an_abandoned_call_is_gone() -> None:
    """Another one that was abandoned is not in its way."""
    script = """
        nothing = lambda: None
        def use_it():
            flags[0] = flags[1] = 0
            begin(second)
        first, second = (threading.Thread(target=call, args=(store, other["spin"])) for _ in range(2))
        leave_waiting(nothing, lambda: leave_waiting(use_it, lambda: leave_waiting(nothing, lambda: begin(first))))
        for thread in (first, second):
            flags[1] = 1
            thread.join()
        store.close()
        """
    check(SPINNING + textwrap.dedent(script))


def test_a_call_is_abandoned_without_memory() -> None:
    """Nothing is allocated for that: where there is no memory left, the guest unwinds all the same."""
    pytest.importorskip("_testcapi", reason="this Python has no _testcapi to make allocations fail")
    script = """
        import _testcapi
        kept = []
        def keep(forgotten):
            kept.append(forgotten.fiber)
            del forgotten.fiber
        Forgotten.close = keep
        def main():
            contexts = [env.create_context(lambda: call(store, waiting)) for _ in range(20)]
            for context in contexts:
                env.switch_context(context)
            calls.Fiber = fiber
            thread = threading.Thread(target=call, args=(store, other["spin"]), daemon=True)
            begin(thread)
            for context in contexts:
                assert env.destroy_context(context)
            _testcapi.set_nomemory(0, 0)
            kept.clear()
            _testcapi.remove_mem_hooks()
            assert "21 call" in refused(StoreInUse, store.close)
            flags[1] = 1
            thread.join()
        env.run_main_context(main)
        store.close()
        """
    check(SPINNING + FORGET + textwrap.dedent(script))


@pytest.mark.parametrize("error", ["ValueError", "KeyboardInterrupt", "SystemExit", "asyncio.CancelledError"])
def test_a_host_function_raises_while_another_thread_runs_a_guest(error: str) -> None:
    """Its error propagates unchanged, without CalledWithinGuest; the guest unwinds when the other one has ended."""
    script = f"""
        import asyncio
        def host():
            begin(thread)
            raise {error}("of the host function")
        linker.define_func("host", "host", NOTHING, host)
        run = load('(module (import "host" "host" (func $host)) (func (export "run") (call $host)))')["run"]
        thread = threading.Thread(target=call, args=(store, other["spin"]), daemon=True)
        assert refused({error}, call, store, run) == "of the host function"
        assert "2 call" in refused(StoreInUse, store.close)
        flags[1] = 1
        thread.join()
        store.close()
        """
    check(SPINNING + textwrap.dedent(script))


def test_a_program_ends_while_another_thread_runs_its_guest() -> None:
    """Its store cannot be closed then. The run still raises the error that ended it; the store is freed later."""
    check(
        """
        import asyncio, gc, weakref
        ended = []
        def host(caller):
            global left
            left = weakref.ref(caller.store)
            flags = caller["memory"].data_ptr(caller)
            loop = asyncio.get_running_loop()
            future = loop.run_in_executor(None, spin, caller.store, caller["spin"], flags)
            while not flags[0]:
                pass
            loop.call_soon(task.cancel)
            await_(asyncio.shield(future))
        def spin(store, function, flags):
            ending = threading.Thread(target=end, args=(flags,))
            ending.start()
            call(store, function)
            ending.join()
            ended.append(True)
        def end(flags):
            task_ended.wait()
            flags[1] = 1
        task_ended = threading.Event()
        program = Program(b'''(module (import "host" "host" (func $host)) (memory (export "memory") 1)
          (func (export "spin")
            (i32.store8 (i32.const 0) (i32.const 1))
            (loop (br_if 0 (i32.eqz (i32.load8_u (i32.const 1))))))
          (func (export "_start") (call $host)))''')
        program.linker.define_func("host", "host", NOTHING, host, access_caller=True)
        async def main():
            global task
            task = asyncio.ensure_future(program.run_async())
            try:
                await task
            except asyncio.CancelledError:
                task_ended.set()
            task = None  # with the error, whose traceback refers to the store
        asyncio.run(main())  # which waits for the executor
        assert task_ended.is_set() and ended
        gc.collect()
        assert left() is None
        """
    )


INHERITED = """
import contextvars
own = Store(engine)
spin = load('''(module (memory (export "memory") 1)
  (func (export "spin")
    (i32.store8 (i32.const 0) (i32.const 1))
    (loop (br_if 0 (i32.eqz (i32.load8_u (i32.const 1)))))))''', own)
flags = spin["memory"].data_ptr(own)

def begin(function, *args):
    thread = threading.Thread(target=contextvars.copy_context().run, args=(function, *args))
    thread.start()
    return thread
"""
"""A store for a thread that has inherited the context variables, as `asyncio.to_thread` has it; and such a thread."""


def test_guests_of_a_thread_that_has_inherited_the_environment() -> None:
    """The environment can be used where it runs, whatever guests that thread runs."""
    script = """
        program = Program(b'(module (import "host" "host" (func $host)) (func (export "_start") (call $host)))',
                          contexts=False)
        def host():
            threads.append(begin(call, own, spin["spin"]))
            while not flags[0]:
                pass
        program.linker.define_func("host", "host", NOTHING, host)
        threads = []
        def main():
            try:
                context = env.create_context(lambda: env.switch_context(0))
                env.switch_context(context)
                assert program.run() == 0
                assert env.active_context_id == 0
                assert env.destroy_context(context)
            finally:
                flags[1] = 1
                threads[0].join()
        env.run_main_context(main)
        """
    check(INHERITED + textwrap.dedent(script))


def test_collections_in_a_thread_that_has_inherited_the_environment() -> None:
    """Or whatever it collects."""
    script = """
        from greenctx._core.scope import current, of_this_thread
        found = []
        def collect():
            found.append((current.get(), of_this_thread()))
            while not flags[0]:
                own.gc()
        def main():
            assert of_this_thread() is env
            context = env.create_context(lambda: [env.switch_context(0) for _ in iter(int, 1)])
            thread = begin(collect)
            try:
                for _ in range(50_000):
                    env.switch_context(context)
            finally:
                flags[0] = 1
                thread.join()
        env.run_main_context(main)
        assert found == [(env, None)], found
        """
    check(INHERITED + textwrap.dedent(script))


def test_the_shadow_stack_of_another_thread() -> None:
    """A guest that cannot go on, since another thread is in the store, leaves that one's stack pointer alone."""
    check(
        """
        import struct
        program = Program(b'''(module (import "host" "host" (func $host)) (memory (export "memory") 2)
          (global $pointer (export "__stack_pointer") (mut i32) (i32.const 65536))
          (func (export "spin")
            (i32.store (i32.const 8) (global.get $pointer))
            (i32.store8 (i32.const 0) (i32.const 1))
            (loop (br_if 0 (i32.eqz (i32.load8_u (i32.const 1)))))
            (i32.store (i32.const 12) (global.get $pointer)))
          (func (export "_start") (call $host)))''', shadow_stack=4096)
        def host(caller):
            global memory, kept
            memory, kept = caller["memory"].data_ptr(caller), caller.store
            threads.append(threading.Thread(target=call, args=(caller.store, caller["spin"])))
            threads[0].start()
            while not memory[0]:
                pass
        threads = []
        program.linker.define_func("host", "host", NOTHING, host, access_caller=True)
        assert "another thread" in refused(CalledWithinGuest, program.run)
        memory[1] = 1
        threads[0].join()
        before, after = struct.unpack("<II", bytes(memory[8:16]))
        assert before == after != 65536
        """
    )
