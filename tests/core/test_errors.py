"""The exceptions by themselves: what they derive from, what they carry, what they say, and that they can be copied."""

from __future__ import annotations

import copy
import errno
import os
import pickle
from typing import TYPE_CHECKING

import pytest
from greenlet import GreenletExit

from greenctx import (
    AlreadyAwaiting,
    CancellationSwallowed,
    ContextCanceled,
    ContextEntrypointReturned,
    DestroyNotAllowed,
    EnvironmentAlreadyUsed,
    EnvironmentNotRunning,
    GreenctxError,
    NoEnvironment,
    NotInAsyncRun,
    NotTheActiveContext,
    ResumedWhileAwaiting,
    SwitchTargetMissing,
    TooManyContexts,
    WrongThread,
    errors,
)
from greenctx.errors import (
    CalledWithinGuest,
    Cancellation,
    Deadlock,
    ExitCarrier,
    FiberStacksExhausted,
    GuestException,
    GuestExit,
    InvalidProgram,
    InvalidTrace,
    ProgramClosed,
    ProgramInUse,
    ReferencesTooLate,
    ResourcesExhausted,
    ShadowStackOverflow,
    ShadowStackUnavailable,
    StoreInUse,
    TimeLimitExceeded,
    WasiNotSet,
    WrongStore,
)

if TYPE_CHECKING:
    from collections.abc import Callable

# An error; its other base class; its attributes; words of its message: the context, the state, the remedy.
ERRORS: list[tuple[BaseException, type[BaseException], dict[str, object], list[str]]] = [
    (
        ContextCanceled(3),
        GreenletExit,
        {"context_id": 3, "defused": False},
        ["context 3", "is being destroyed", "let this exception leave its entrypoint"],
    ),
    (
        SwitchTargetMissing(4, "was never created"),
        LookupError,
        {"context_id": 4, "state": "was never created"},
        ["context 4", "it was never created", "switch to an id that create_context returned"],
    ),
    (
        DestroyNotAllowed(0),
        ValueError,
        {"context_id": 0},
        ["context 0", "is the main context", "return from main instead"],
    ),
    (
        DestroyNotAllowed(5),
        ValueError,
        {"context_id": 5},
        ["context 5", "is the active one", "switch to another context and destroy it from there"],
    ),
    (
        ContextEntrypointReturned(6),
        GreenctxError,
        {"context_id": 6, "exit_code": 129},
        ["context 6", "returned", "must switch to another context and be destroyed from there"],
    ),
    (
        CancellationSwallowed(7),
        GreenctxError,
        {"context_id": 7},
        ["context 7", "caught its ContextCanceled and returned", "let the exception out, or call its defuse()"],
    ),
    (
        TooManyContexts(8),
        GreenctxError,
        {"limit": 8},
        ["8 contexts are alive", "which is the limit", "destroy one first or raise max_contexts"],
    ),
    (NoEnvironment(), LookupError, {}, ["no context-switching environment", "within run_main_context"]),
    (
        EnvironmentNotRunning("has ended"),
        GreenctxError,
        {"state": "has ended"},
        ["the environment has ended", "within run_main_context only"],
    ),
    (
        EnvironmentAlreadyUsed("is running"),
        GreenctxError,
        {"state": "is running"},
        ["the environment is running", "runs only once", "make a new ContextSwitchingEnvironment"],
    ),
    (
        WrongThread("one", "two"),
        GreenctxError,
        {"expected": "one", "found": "two"},
        ["runs in thread 'one'", "called from thread 'two'", "give each thread an environment of its own"],
    ),
    (
        NotTheActiveContext(9, "another greenlet"),
        GreenctxError,
        {"context_id": 9, "caller": "another greenlet"},
        ["context 9 is the active one", "came from another greenlet", "only the code of the active context may call"],
    ),
    (
        NotInAsyncRun(),
        GreenctxError,
        {},
        ["outside of any environment that runs in a task", "run it by `await env.run_main_context_async(main)`"],
    ),
    (
        AlreadyAwaiting(),
        GreenctxError,
        {},
        ["another greenlet of this run awaits already", "one thing at a time, or several of them by asyncio.gather"],
    ),
    (
        ResumedWhileAwaiting("was resumed by others"),
        GreenctxError,
        {"what": "was resumed by others"},
        [
            "a greenlet that awaits was resumed by others",
            "leave it to the event loop",
            "cancel its task to end the wait",
        ],
    ),
    (
        CalledWithinGuest("guest code runs on its fiber"),
        GreenctxError,
        {"where": "guest code runs on its fiber"},
        ["guest code runs on its fiber", "call guests only from host functions defined by greenctx.wasix.Linker"],
    ),
    (
        WrongStore("function"),
        ValueError,
        {"what": "function"},
        ["the function and the store do not belong together", "use the store (or engine) that it was made with"],
    ),
    (
        StoreInUse(2),
        GreenctxError,
        {"calls": 2},
        ["2 call(s) into its guests have not ended", "let them return, or destroy the contexts that they were made in"],
    ),
    (
        InvalidTrace("a.json", "it is not text"),
        ValueError,
        {"name": "a.json", "reason": "it is not text"},
        ["a.json: it is not text"],
    ),
    (
        InvalidProgram("a.wasm", "is empty"),
        ValueError,
        {"name": "a.wasm", "reason": "is empty"},
        ["a.wasm: is empty"],
    ),
    (
        TimeLimitExceeded(1.5),
        TimeoutError,
        {"seconds": 1.5},
        ["the program did not end within its limit of 1.5 seconds"],
    ),
    (
        ShadowStackOverflow(9, 65536),
        GreenctxError,
        {"context_id": 9, "size": 65536},
        ["context 9", "has overflowed its 65536 bytes", "give it more"],
    ),
    (
        ShadowStackUnavailable(65536),
        MemoryError,
        {"size": 65536},
        ["no memory for another shadow stack of 65536 bytes", "destroy a context first"],
    ),
    (
        Deadlock(2, "for the lock or condition at 0x1000"),
        GreenctxError,
        {"context_id": 2, "what": "for the lock or condition at 0x1000"},
        ["context 2 was about to wait for the lock", "only another thread could end", "switch to the context that can"],
    ),
    (
        WasiNotSet(),
        GreenctxError,
        {},
        ["the guest uses WASI but its store lacks it", "call the store's set_wasi(WasiConfig()) first"],
    ),
    (
        ResourcesExhausted(errno.EMFILE),
        OSError,
        {"errno": errno.EMFILE, "resource": "file descriptors", "strerror": os.strerror(errno.EMFILE)},
        ["no more file descriptors", os.strerror(errno.EMFILE), "run fewer programs at a time, or raise the system's"],
    ),
    (
        FiberStacksExhausted(31000, 65530),
        MemoryError,
        {"calls": 31000, "max_map_count": 65530},
        ["beside 31000", "vm.max_map_count is 65530", "destroy contexts, limit their number, or raise"],
    ),
    (ProgramClosed(), GreenctxError, {}, ["the program is closed", "load it again"]),
    (ProgramInUse(), GreenctxError, {}, ["cannot be closed while it runs", "wait for the end of run()"]),
    (
        GuestException((7, 8)),
        GreenctxError,
        {"payload": (7, 8), "tag": None, "reference": None},
        ["the guest threw an exception with (7, 8)", "nothing caught it"],
    ),
    (
        ReferencesTooLate(2),
        GreenctxError,
        {"calls": 2},
        ["2 call(s) into the store have begun and not ended", "instantiate the first such module of a store before"],
    ),
    (GuestExit(3), BaseException, {"status": 3}, ["3"]),
]

each_error = pytest.mark.parametrize(
    ("error", "base", "attributes", "said"), ERRORS, ids=[f"{error!r}" for error, *_ in ERRORS]
)


def test_the_table_is_complete() -> None:
    """Every exception of greenctx that users see is in the table above."""
    ours = {one for one in vars(errors).values() if isinstance(one, type) and one.__module__ == errors.__name__}

    assert ours - {GreenctxError, Cancellation, ExitCarrier} == {type(error) for error, *_ in ERRORS}


@each_error
def test_base_classes(
    error: BaseException, base: type[BaseException], attributes: dict[str, object], said: list[str]
) -> None:
    """Errors derive from GreenctxError, itself an Exception, and some from a builtin error, too. ContextCanceled and
    GuestExit are no errors, so that ``except Exception`` does not stop them."""
    del attributes, said
    assert isinstance(error, base)
    assert isinstance(error, GreenctxError) is (type(error) not in (ContextCanceled, GuestExit))
    assert isinstance(error, Exception) is (type(error) not in (ContextCanceled, GuestExit))


@each_error
def test_facts_and_message(
    error: BaseException, base: type[BaseException], attributes: dict[str, object], said: list[str]
) -> None:
    """An error carries its facts as attributes, and its message names the context, its state and the remedy."""
    del base
    for name, value in attributes.items():
        assert getattr(error, name) == value
    for part in said:
        assert part in str(error)


@each_error
@pytest.mark.parametrize(
    "duplicate",
    [copy.copy, copy.deepcopy, *(lambda one, n=n: pickle.loads(pickle.dumps(one, n)) for n in range(6))],
    ids=["copy", "deepcopy", *(f"pickle {n}" for n in range(6))],
)
def test_copies(
    error: BaseException,
    base: type[BaseException],
    attributes: dict[str, object],
    said: list[str],
    duplicate: Callable[[BaseException], BaseException],
) -> None:
    """A copied or pickled error has the same class, facts, message, repr and notes."""
    del base, said
    error = copy.copy(error)
    error.add_note("a note")
    other = duplicate(error)

    assert other.__notes__ == ["a note"]
    assert type(other) is type(error)
    assert other.args == error.args
    assert str(other) == str(error)
    assert repr(other) == repr(error)
    for name, value in attributes.items():
        assert getattr(other, name) == value


@each_error
def test_repr(error: BaseException, base: type[BaseException], attributes: dict[str, object], said: list[str]) -> None:
    """The repr of an error is the call that makes it."""
    del base, attributes, said
    assert repr(error) == f"{type(error).__name__}({', '.join(map(repr, error.args))})"


def test_defaults_of_the_states() -> None:
    """The errors that name a state can be made without one."""
    assert "it is not suspended" in str(SwitchTargetMissing(1))
    assert "is not running" in str(EnvironmentNotRunning())
    assert "was used" in str(EnvironmentAlreadyUsed())
    assert "another greenlet" in str(NotTheActiveContext(1))


def test_defuse_is_shared_by_the_deliveries_of_one_cancellation() -> None:
    """Defusing any delivery of a cancellation defuses all of them, and no other cancellation."""
    cancellation = Cancellation()
    first, second, other = ContextCanceled(1, cancellation), ContextCanceled(1, cancellation), ContextCanceled(1)

    second.defuse()

    assert first.defused
    assert second.defused
    assert not other.defused


def test_a_delivery_belongs_to_its_cancellation() -> None:
    """A delivery belongs to the cancellation that it was made for; one made by hand, or a copy, belongs to none."""
    cancellation = Cancellation()
    delivery = ContextCanceled(1, cancellation)

    assert delivery.belongs_to(cancellation)
    assert not delivery.belongs_to(Cancellation())
    assert not delivery.belongs_to(None)
    assert not ContextCanceled(1).belongs_to(cancellation)
    assert not copy.copy(delivery).belongs_to(cancellation)
