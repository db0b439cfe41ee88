"""Shadow stacks, seen from host functions: whatever they do, guest code finds its pointer and its locals as it left
them."""

from __future__ import annotations

import gc
import random
import signal
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import pytest
from greenlet import greenlet
from guests.embedding import IMPORTS, signature
from wasmtime import Config, Engine, Instance, Module, Store, Trap
from wasmtime import _bindings as ffi

from greenctx import ContextCanceled, ContextSwitchingEnvironment, current_environment
from greenctx.wasix import Limits, Program, ShadowStackOverflow, ShadowStackUnavailable, call
from greenctx.wasix._fibers.stores import state_of
from greenctx.wasix._native import capi
from greenctx.wasix._native._fiber import ShadowStack, StackPointer
from greenctx.wasix._shadow_stacks.stack_pool import CANARY

if TYPE_CHECKING:
    from collections.abc import Callable

    from greenctx.wasix import Caller

SIZE = 4096
TOP = 131072

# Every frame takes 64 bytes of the stack, marks them, and traps if the pointer or the mark is not the same later.
GUEST = f"""(module {IMPORTS}
  (import "host" "act" (func $act (param i32)))
  (memory (export "memory") 2)
  (global $pointer (export "__stack_pointer") (mut i32) (i32.const {TOP}))
  (global $marks (mut i32) (i32.const 0))
  (table (export "__indirect_function_table") funcref (elem $entry))
  (func $frame (export "frame") (param $what i32) (local $own i32) (local $mark i32)
    (global.set $marks (local.tee $mark (i32.add (global.get $marks) (i32.const 1))))
    (global.set $pointer (local.tee $own (i32.sub (global.get $pointer) (i32.const 64))))
    (memory.fill (local.get $own) (local.get $mark) (i32.const 64))
    (i32.store offset=60 (local.get $own) (local.get $mark))
    (call $act (local.get $what))
    (if (i32.ne (global.get $pointer) (local.get $own)) (then unreachable))
    (if (i32.ne (i32.load offset=60 (local.get $own)) (local.get $mark)) (then unreachable))
    (if (i32.ne (i32.load8_u (local.get $own)) (i32.and (local.get $mark) (i32.const 255))) (then unreachable))
    (global.set $pointer (i32.add (local.get $own) (i32.const 64))))
  (func $entry (call $frame (i32.const -1)) (drop (call $switch (i64.const 0))))
  (func (export "create") (result i32) (call $create (i32.const 8) (i32.const 0)))
  (func (export "sink") (param $far i32) (local $own i32)
    (global.set $pointer (i32.sub (local.tee $own (global.get $pointer)) (local.get $far)))
    (call $act (i32.const -2))
    (global.set $pointer (local.get $own)))
  (func (export "fall") (global.set $pointer (i32.sub (global.get $pointer) (i32.const 512))) unreachable)
  (func (export "_start") (call $frame (i32.const 0))))"""


def with_malloc(function: str) -> str:
    return GUEST.replace("(memory (export", f'(func (export "malloc") {function}) (memory (export')


class Host:
    """Runs the guest, whose frames call `act`: 0 is `main`, -1 the entrypoint of a context that the guest created, -2
    nothing, and others are what `nest` was told."""

    def __init__(self, main: Callable[[Host], object], entry: Callable[[Host], object] | None = None) -> None:
        self.main = main
        self.entry = entry
        self.nested: dict[int, Callable[[], object]] = {}
        self.exports: dict[str, Any] = {}
        self.store: Store

    def run(self, size: int = SIZE, text: str = GUEST, **settings: Any) -> None:
        with Program(text.encode(), shadow_stack=size, **settings) as program:
            program.linker.define_func("host", "act", signature("i32 ->"), self.act, access_caller=True)
            assert program.run() == 0

    def act(self, caller: Caller, what: int) -> None:
        if what == 0:
            self.store = caller.store
            for name in ("memory", "__stack_pointer", "frame", "create", "fall", "sink"):
                self.exports[name] = caller.get(name)
            self.main(self)
        elif what == -1:
            assert self.entry
            self.entry(self)
        elif what > 0:
            self.nested.pop(what)()

    @property
    def env(self) -> ContextSwitchingEnvironment:
        return current_environment()

    @property
    def pointer(self) -> int:
        """The top of the stack that guest code has used last."""
        return cast("int", self.exports["__stack_pointer"].value(self.store))

    def call(self, name: str, *args: int) -> Any:
        return call(self.store, self.exports[name], *args)

    def nest(self, within: Callable[[], object] = lambda: None) -> None:
        """Call a guest's function whose host function does that."""
        what = len(self.nested) + 1000 * self.env.active_context_id + 1
        assert what not in self.nested
        self.nested[what] = within
        self.call("frame", what)

    def fall(self) -> None:
        """Call a guest's function that traps, with the pointer moved."""
        with pytest.raises(Trap):
            self.call("fall")

    def create(self) -> int:
        """Let the guest create a context."""
        assert self.call("create") == 0
        return int.from_bytes(self.exports["memory"].read(self.store, 8, 16), "little")


def where(host: Host) -> int:
    """The address of a frame of the calling context."""
    found: list[int] = []
    host.nest(lambda: found.append(host.pointer))
    return found[0]


def test_nested_calls() -> None:
    """Nested calls use the stack below the frames of the calls around them, and leave nothing, even when they trap."""

    def main(host: Host) -> None:
        def deeper() -> None:
            assert where(host) == TOP - 3 * 64

        assert where(host) == TOP - 2 * 64
        host.nest(deeper)
        for _ in range(100):
            host.fall()
        assert where(host) == TOP - 2 * 64

    Host(main).run()


def test_host_function_that_switches() -> None:
    """A host function that has been away goes on calling the guest on its own context's stack."""
    seen: dict[int, list[int]] = {0: [], 1: []}

    def entry(host: Host) -> None:
        while True:
            seen[1].append(where(host))
            host.env.switch_context(0)

    def main(host: Host) -> None:
        host.create()
        for _ in range(3):
            seen[0].append(where(host))
            host.env.switch_context(1)
            seen[0].append(where(host))
            host.nest(lambda: host.env.switch_context(1))

    Host(main, entry).run()
    assert seen[0] == [TOP - 2 * 64] * 6
    assert len(seen[1]) == 6
    assert len({*seen[1]}) == 1
    assert seen[1][0] >= TOP


def test_traps_that_are_caught() -> None:
    """A trap in a context, or in a call, leaves nothing on the stack of who catches it in Python."""

    def main(host: Host) -> None:
        for _ in range(20):
            context = host.create()
            with pytest.raises(Trap):
                host.env.switch_context(context)
            assert where(host) == TOP - 2 * 64

    Host(main, lambda host: host.call("fall")).run()


def test_destroyed_context_that_calls_the_guest() -> None:
    """While a context unwinds, what it calls runs on its own stack; its destroyer goes on with its own."""
    seen = []

    def entry(host: Host) -> None:
        seen.append(where(host))
        try:
            host.nest(lambda: host.env.switch_context(0))
        finally:
            seen.append(where(host))
            host.fall()

    def main(host: Host) -> None:
        for _ in range(3):
            context = host.create()
            host.env.switch_context(context)
            assert host.env.destroy_context(context)
            assert where(host) == TOP - 2 * 64

    Host(main, entry).run()
    assert len({*seen}) == 1, "the region was used again each time, and each time from its beginning"
    assert seen[0] >= TOP


def test_destroyer_keeps_its_region() -> None:
    """A context that waits in destroy_context for another one's cleanup keeps its region, although no switch can resume
    it: contexts that the cleanup creates get others."""
    pointers: dict[str, int] = {}
    created: list[int] = []

    def victim(host: Host) -> None:
        try:
            host.env.switch_context(0)
        finally:
            for _ in range(50):  # more than a look for unused regions waits for
                created.append(host.create())
            for context in created[:-1]:
                host.env.destroy_context(context)
            created.append(host.create())
            pointers["victim"] = where(host)

    def destroyer(host: Host) -> None:
        pointers["destroyer"] = where(host)
        host.env.destroy_context(1)
        assert where(host) == pointers["destroyer"]
        host.env.switch_context(0)

    def entry(host: Host) -> None:
        {1: victim, 2: destroyer}.get(host.env.active_context_id, lone)(host)

    def lone(host: Host) -> None:
        pointers[f"lone {host.env.active_context_id}"] = where(host)
        host.env.switch_context(0)

    def main(host: Host) -> None:
        assert [host.create(), host.create()] == [1, 2]
        host.env.switch_context(1)
        host.env.switch_context(2)
        for context in created[-2:]:
            host.env.switch_context(context)

    Host(main, entry).run()
    assert len(pointers) == 4
    assert len({pointer // SIZE for pointer in pointers.values() if pointer != pointers["victim"]}) == 3


def test_contexts_created_by_python() -> None:
    """Contexts that Python created have a region while they call the guest; so do plain greenlets."""
    seen: list[int] = []

    def note(host: Host) -> None:
        seen.append(host.pointer)
        host.env.switch_context(0)

    def python(host: Host) -> None:
        for _ in range(3):
            host.nest(lambda: note(host))
        host.env.switch_context(0)

    def plainly(host: Host) -> None:
        found: list[int] = []
        host.nested[77] = lambda: found.append(host.pointer)
        host.call("frame", 77)
        assert found[0] > TOP

    def main(host: Host) -> None:
        contexts = [host.env.create_context(lambda: python(host)) for _ in range(3)]
        for _ in range(3):
            for context in contexts:
                host.env.switch_context(context)
                assert where(host) == TOP - 2 * 64
        plain = greenlet(plainly)
        plain.switch(host)
        assert plain.dead
        assert where(host) == TOP - 2 * 64
        stacks: Any = state_of(host.store).shadow_stacks
        assert stacks
        assert len(stacks._stacks) == 4

    Host(main).run()
    assert seen == [*seen[:3]] * 3
    assert len({pointer // SIZE for pointer in seen}) == 3
    assert min(seen) >= TOP


def test_nested_environment() -> None:
    """Contexts of an environment that a host function runs have regions of their own, whatever their ids are."""
    seen: list[int] = []

    def entry(host: Host) -> None:
        seen.append(where(host))
        host.env.switch_context(0)

    def main(host: Host) -> None:
        def inner() -> None:
            assert host.create() == 1
            host.env.switch_context(1)
            assert where(host) == TOP - 2 * 64

        context = host.create()
        host.env.switch_context(context)
        ContextSwitchingEnvironment().run_main_context(inner)
        unstarted = [host.create() for _ in range(20)]
        ContextSwitchingEnvironment().run_main_context(inner)
        for context in unstarted:
            host.env.switch_context(context)

    Host(main, entry).run()
    assert len(seen) == 23
    assert len({pointer // SIZE for pointer in [seen[0], *seen[3:]]}) == 21


def test_no_memory_for_contexts_created_by_python() -> None:
    """Without memory, their first call of the guest raises ShadowStackUnavailable; the next succeeds once there is
    room."""

    def main(host: Host) -> None:
        def python() -> None:
            host.nest(lambda: host.env.switch_context(0))

        last = [host.create() for _ in range(2 * 65536 // SIZE)][-1]
        assert host.call("create") == 48
        context = host.env.create_context(python)
        assert context == last + 1  # the one that was not created has used up no id
        with pytest.raises(ShadowStackUnavailable, match="4096 bytes"):
            host.env.switch_context(context)
        assert where(host) == TOP - 2 * 64
        host.env.destroy_context(last)
        context = host.env.create_context(python)
        host.env.switch_context(context)
        assert host.call("create") == 48
        host.env.destroy_context(context)
        assert host.create() == context + 1

    Host(main).run(limits=Limits(memory=5 * 65536))


def test_contexts_that_never_begin() -> None:
    """Regions of contexts that never begin are used again, before the guest is asked for more memory."""

    def main(host: Host) -> None:
        for _ in range(1000):
            host.env.destroy_context(host.create())
        assert host.exports["memory"].data_len(host.store) == TOP + 65536

    Host(main).run()


def test_overflow_by_a_frame_that_writes_nothing() -> None:
    """A pointer beyond the end of the region is noticed, though nothing is written there; up to the end it may go (all
    but what is kept to notice). Main's stack is the linker's, which can be of any size."""
    seen: list[int] = []

    def entry(host: Host) -> None:
        host.call("sink", SIZE - 64 - len(CANARY))
        seen.append(host.env.active_context_id)
        host.call("sink", SIZE - 64 - len(CANARY) + 1)

    def main(host: Host) -> None:
        host.call("sink", 2 * SIZE)
        host.create()
        with pytest.raises(ShadowStackOverflow, match="shadow stack of context 1 has overflowed its 4096 bytes"):
            host.env.switch_context(1)
        assert where(host) == TOP - 2 * 64
        host.create()  # in the same region, whose end is whole again
        with pytest.raises(ShadowStackOverflow, match="shadow stack of context 2"):
            host.env.switch_context(2)

    Host(main, entry).run()
    assert seen == [1, 2]


@pytest.mark.parametrize("kind", ["i32", "i64"])
def test_memory_that_moves(kind: str) -> None:
    """The end of a region is watched where the memory is now, though growing may have moved it."""
    config = Config()
    ffi.wasmtime_config_memory_reservation_set(config.ptr(), 0)
    ffi.wasmtime_config_memory_reservation_for_growth_set(config.ptr(), 0)
    store = Store(Engine(config))
    text = f"""(module (memory (export "memory") 1) (global (export "pointer") (mut {kind}) ({kind}.const {SIZE})))"""
    exports: Any = Instance(store, Module(store.engine, text), []).exports(store)
    memory, pointer = exports["memory"], exports["pointer"]
    addresses = capi.context_address(store), capi.item_address(pointer), capi.item_address(memory)
    stack_pointer = StackPointer(*addresses, keep_alive=(memory, pointer))
    assert (stack_pointer.bits, stack_pointer.get()) == (int(kind[1:]), SIZE)
    stack = ShadowStack(SIZE, 16, CANARY)
    memory.write(store, CANARY, 16)
    for _ in range(3):
        former = stack_pointer.memory_address()
        while stack_pointer.memory_address() == former:
            memory.grow(store, 1)
        assert not stack_pointer.overflowed(stack)
        memory.write(store, b"x", 16 + len(CANARY) - 1)
        assert stack_pointer.overflowed(stack)
        memory.write(store, CANARY, 16)
    pointer.set_value(store, 16 + len(CANARY))
    assert not stack_pointer.overflowed(stack)
    pointer.set_value(store, 16 + len(CANARY) - 1)
    assert stack_pointer.overflowed(stack)
    assert not stack_pointer.overflowed(ShadowStack(SIZE))


def test_stacks_by_turns() -> None:
    """Each finds its pointer again, as the guest or anybody else has left it."""
    store = Store()
    text = """(module (memory (export "memory") 1) (global (export "pointer") (mut i64) (i64.const -5)))"""
    exports: Any = Instance(store, Module(store.engine, text), []).exports(store)
    memory, pointer = exports["memory"], exports["pointer"]
    addresses = capi.context_address(store), capi.item_address(pointer), capi.item_address(memory)
    stack_pointer = StackPointer(*addresses, keep_alive=(memory, pointer))
    assert stack_pointer.get() == 2**64 - 5
    first, second = ShadowStack(100), ShadowStack(200)
    stack_pointer.use(first)
    assert pointer.value(store) == 100
    pointer.set_value(store, 90)
    stack_pointer.use(first)
    assert pointer.value(store) == 90
    stack_pointer.use(second)
    assert (pointer.value(store), first.pointer) == (200, 90)
    stack_pointer.in_use = None
    pointer.set_value(store, 1)
    stack_pointer.use(first)
    assert (pointer.value(store), second.pointer) == (90, 200)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it may come in a `__del__`
def test_interruption() -> None:
    """An interruption at any moment leaves all stacks as they were."""
    armed = False
    interruptions = 0

    def interrupt(*_: object) -> None:
        nonlocal armed
        if armed:
            armed = False
            raise KeyboardInterrupt

    def entry(host: Host) -> None:
        while True:
            host.nest(lambda: host.env.switch_context(0))

    def switch_often(host: Host, context: int) -> None:
        for _ in range(20):
            host.nest(partial(host.env.switch_context, context))

    def main(host: Host) -> None:
        nonlocal armed, interruptions
        context = host.create()
        host.env.switch_context(context)
        for _ in range(100):
            signal.setitimer(signal.ITIMER_REAL, random.uniform(0.00001, 0.002))
            try:
                armed = True
                switch_often(host, context)
                armed = False
            except KeyboardInterrupt:
                interruptions += 1
            if not host.env.can_switch_to(context):  # it was the one that was interrupted
                context = host.create()
            host.env.switch_context(context)
            assert where(host) == TOP - 2 * 64

    # SIGINT: an interruption that is lost in a `__del__` is delivered again, by this one.
    former = {number: signal.signal(number, interrupt) for number in (signal.SIGALRM, signal.SIGINT)}
    try:
        Host(main, entry).run()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in former.items():
            signal.signal(number, handler)
    assert interruptions > 10


def test_closed_store() -> None:
    """When the program has ended its functions raise an error as without shadow stacks."""
    kept: list[Host] = []
    Host(kept.append).run()
    with pytest.raises(ValueError, match="already closed"):
        kept[0].call("frame", -2)


def test_limit_of_contexts() -> None:
    """At the limit of contexts the answer is again (6), and no region is lost."""

    def main(host: Host) -> None:
        last = host.create()
        for _ in range(1000):
            assert host.call("create") == 6
        host.env.destroy_context(last)
        assert host.create() == 2
        assert host.exports["memory"].data_len(host.store) == TOP + 65536

    Host(main).run(limits=Limits(contexts=1))


@pytest.mark.parametrize(
    ("malloc", "errno"),
    [
        ("(param i32) (result i32) (i32.const 0)", 48),
        ("(param i32) (result i32) (i32.const -16)", 48),
        ("(param i32) (result i32) (i32.const 131071)", 48),
        ("(param i32) (result i32) (i32.const 65537)", 0),
        ("(param i64) (result i64) (i64.const 0)", 0),  # not malloc, so memory.grow it is
        ("(param i32)", 0),
    ],
)
def test_odd_malloc(malloc: str, errno: int) -> None:
    """A malloc that returns null or an address outside of memory has no memory; one of another type is not used."""

    def main(host: Host) -> None:
        assert host.call("create") == errno

    Host(main).run(text=with_malloc(malloc))


def test_malloc_that_does_not_align() -> None:
    """Stacks begin at multiples of 16, as compilers rely on."""
    found: list[int] = []

    def main(host: Host) -> None:
        host.create()
        host.env.switch_context(1)

    def entry(host: Host) -> None:
        found.append(host.pointer)
        host.env.switch_context(0)

    Host(main, entry).run(text=with_malloc("(param i32) (result i32) (i32.const 65537)"))
    assert found == [65536 + 16 + SIZE - 64]


def test_malloc_that_traps() -> None:
    """malloc's trap is raised in the caller; nothing was created."""

    def main(host: Host) -> None:
        with pytest.raises(Trap):
            host.call("create")
        assert host.env.create_context(lambda: None) == 1

    Host(main).run(text=with_malloc("(param i32) (result i32) unreachable"))


def test_malloc_that_creates_contexts() -> None:
    """There it is answered nomem, and not by calling malloc for ever."""
    create = "(if (i32.ne (call $create (i32.const 8) (i32.const 0)) (i32.const 48)) (then unreachable))"

    def main(host: Host) -> None:
        assert host.create() == 1

    Host(main).run(text=with_malloc(f"(param i32) (result i32) {create} (i32.const 1024)"))


@pytest.mark.parametrize("size", [2**31, 2**32 - 1, 2**32, 2**64, 2**70, 2**80])
def test_size_beyond_memory(size: int) -> None:
    """A size that no memory can hold is no memory."""

    def main(host: Host) -> None:
        assert host.call("create") == 48

    Host(main).run(size, limits=Limits(memory=10 * 65536))
    Host(main).run(size, with_malloc("(param i32) (result i32) (i32.const 16)"))


def test_guest_of_64_bits() -> None:
    """The pointer of a memory64 guest is an i64, and so is what its malloc takes."""
    text = """(module
      (import "wasix_64v1" "context_create" (func $create (param i64 i32) (result i32)))
      (import "wasix_64v1" "context_switch" (func $switch (param i64) (result i32)))
      (import "host" "act" (func $act (param i32)))
      (memory (export "memory") i64 2) MALLOC
      (global $pointer (export "__stack_pointer") (mut i64) (i64.const 131072))
      (table (export "__indirect_function_table") funcref (elem $entry))
      (func $entry (local $own i64)
        (global.set $pointer (local.tee $own (i64.sub (global.get $pointer) (i64.const 64))))
        (if (i64.ne (local.get $own) (i64.const ENTRY)) (then unreachable))
        (loop
          (drop (call $switch (i64.const 0)))
          (if (i64.ne (local.get $own) (global.get $pointer)) (then unreachable))
          (br 0)))
      (func (export "_start")
        (if (call $create (i64.const 8) (i32.const 0)) (then unreachable))
        (drop (call $switch (i64.const 1)))
        (if (i64.ne (i64.const 131072) (global.get $pointer)) (then unreachable))
        (drop (call $switch (i64.const 1))) (call $act (i32.const 0))))"""
    done: list[int] = []
    host = Host(lambda host: done.append(host.pointer))
    host.run(text=text.replace("MALLOC", "").replace("ENTRY", str(TOP + SIZE - 64)))
    malloc = '(func (export "malloc") (param i64) (result i64) (i64.const 1024))'
    host.run(text=text.replace("MALLOC", malloc).replace("ENTRY", str(1024 + SIZE - 64)))
    assert done == [TOP, TOP]


def test_small_regions_share_a_page() -> None:
    """Memory is asked for by pages, each of which holds several small regions."""

    def main(host: Host) -> None:
        for _ in range(64):
            host.create()
        assert host.exports["memory"].data_len(host.store) == TOP + 65536

    Host(main).run(size=1)  # what is less than 1 KiB is 1 KiB


def test_nothing_is_left() -> None:
    """When a program has ended, so have its store and everything about its stacks."""
    found: list[weakref.ref[Any]] = []

    def main(host: Host) -> None:
        store = host.store
        found.extend([weakref.ref(store), weakref.ref(state_of(store).shadow_stacks)])
        host.create()
        host.env.switch_context(host.create())

    Host(main, lambda host: host.env.switch_context(0)).run()
    gc.collect()
    assert [one() for one in found] == [None, None]


@pytest.mark.parametrize("seed", range(30))
def test_at_random(seed: int) -> None:
    """Contexts of the guest and of Python switch, nest, trap, create and destroy at random: no frame of the guest finds
    its pointer or its mark changed."""
    rng = random.Random(seed)
    left = 400
    alive: set[int] = set()
    ended: list[str] = []

    def act(host: Host, depth: int = 0) -> None:
        nonlocal left
        while left > 0:
            left -= 1
            me = host.env.active_context_id
            others = sorted(alive - {me})
            what = rng.choice(
                ["switch"] * 4 + ["nest"] * 3 + ["create", "python", "destroy", "fall", "return", "where"]
            )
            if what == "switch" and others:
                host.env.switch_context(rng.choice(others))
            elif what == "nest" and depth < 6:
                host.nest(lambda: act(host, depth + 1))
            elif what == "create" and len(alive) < 12:
                alive.add(host.create())
            elif what == "python" and len(alive) < 12:
                alive.add(host.env.create_context(lambda: python(host)))
            elif what == "destroy" and len(others) > 1:
                victim = rng.choice(others[1:])
                alive.discard(victim)
                host.env.destroy_context(victim)
            elif what == "fall":
                host.fall()
            elif what == "where":
                where(host)
            elif what == "return" and depth:
                return

    def entry(host: Host) -> None:
        try:
            act(host)
            while True:
                host.env.switch_context(0)
        except ContextCanceled:
            where(host)
            ended.append("canceled")
            raise

    def python(host: Host) -> None:
        host.nest(lambda: entry(host))

    def main(host: Host) -> None:
        alive.add(0)
        act(host)

    Host(main, entry).run()
    assert left == 0
    assert ended or not alive
