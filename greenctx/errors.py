"""Every exception of greenctx. Constructors take the facts; the classes own the messages.

The facts are also the exception's ``args``, so that instances can be copied and pickled. Each class writes its
constructor out, so that type checkers, ``help`` and readers see what it takes. (Dataclasses take longer to import than
the rest of the core. A generated constructor would hide its parameters from ``inspect.signature``.)
"""

from __future__ import annotations

import errno
import os
from typing import Any, NoReturn

from greenlet import GreenletExit


class GreenctxError(Exception):
    """Base of every error that greenctx raises about its own use."""

    def __init__(self, *args: object) -> None:  # written out, because `inspect.signature` finds none in `Exception`
        super().__init__(*args)


def _notes(error: BaseException) -> dict[str, Any]:
    """Return the notes on an error, as the state that gives them to a copy."""
    return {"__notes__": [*notes]} if (notes := getattr(error, "__notes__", None)) else {}


class Cancellation:
    """The destruction of one context. Every `ContextCanceled` delivered for it refers to it.

    Not an exception itself (the first delivery, for example): an exception keeps its frames alive, and they keep the
    context alive, a reference cycle that only the garbage collector could free.
    """

    defused = False


class ContextCanceled(GreenletExit):
    """Raised in a context under destruction, at the call where it waits.

    Derives from `GreenletExit`, so ``except Exception`` does not stop it. Let it leave the entrypoint. Code that has a
    reason to end the context by returning calls `defuse` first.
    """

    def __init__(self, context_id: int, cancellation: Cancellation | None = None) -> None:
        self.args = (context_id,)
        self.context_id = context_id
        self._cancellation = cancellation or Cancellation()

    def defuse(self) -> None:
        """Allow the entrypoint to return: ``destroy_context`` then does not raise `CancellationSwallowed`."""
        self._cancellation.defused = True

    @property
    def defused(self) -> bool:
        """Whether `defuse` was called on any delivery of this cancellation."""
        return self._cancellation.defused

    def belongs_to(self, cancellation: Cancellation | None) -> bool:
        """Whether this was delivered for that cancellation. An instance made by hand belongs to no cancellation."""
        return self._cancellation is cancellation

    def __reduce__(self) -> tuple[type[ContextCanceled], tuple[int], dict[str, Any]]:
        return type(self), (self.context_id,), _notes(self)

    def __str__(self) -> str:
        return f"context {self.context_id} is being destroyed; let this exception leave its entrypoint"


class ExitCarrier(BaseException):
    """Carries a `GreenletExit` to the parent, to which greenlet would hand a bare one as if it were a result."""

    def __init__(self, context_id: int, exit_: GreenletExit) -> None:
        super().__init__(f"context {context_id} ended with {exit_!r}")
        self.exit = exit_

    def unwrap(self) -> NoReturn:
        """Raise the carried exception with its own ``__context__``, while this one is handled.

        The latter, because an interruption that comes instead then has the carried exception in its context.
        """
        exit, context = self.exit, self.exit.__context__
        try:
            raise exit
        finally:
            exit.__context__ = context
            del exit, context, self  # their tracebacks refer to this frame: reference cycles


class SwitchTargetMissing(GreenctxError, LookupError):
    """``switch_context`` to an id under which no context is suspended. Nothing has changed."""

    def __init__(self, context_id: int, state: str = "is not suspended") -> None:
        super().__init__(context_id, state)
        self.context_id = context_id
        self.state = state

    def __str__(self) -> str:
        return (
            f"cannot switch to context {self.context_id}: it {self.state}; "
            "switch to an id that create_context returned and whose context has not ended"
        )


class DestroyNotAllowed(GreenctxError, ValueError):
    """``destroy_context`` of the main context or of oneself. Nothing has changed."""

    def __init__(self, context_id: int) -> None:
        super().__init__(context_id)
        self.context_id = context_id

    def __str__(self) -> str:
        if self.context_id == 0:
            return "context 0 is the main context and cannot be destroyed; return from main instead"
        return (
            f"context {self.context_id} is the active one and cannot destroy itself; "
            "switch to another context and destroy it from there"
        )


class ContextEntrypointReturned(GreenctxError):
    """Raised in main: a context's entrypoint returned, which WASIX does not allow."""

    exit_code = 129
    """The exit status that WASIX gives to a program that ends for this reason."""

    def __init__(self, context_id: int) -> None:
        super().__init__(context_id)
        self.context_id = context_id

    def __str__(self) -> str:
        return (
            f"the entrypoint of context {self.context_id} returned; "
            "it must switch to another context and be destroyed from there"
        )


class CancellationSwallowed(GreenctxError):
    """Raised by ``destroy_context``: the context ended, but by returning, without its `ContextCanceled`."""

    def __init__(self, context_id: int) -> None:
        super().__init__(context_id)
        self.context_id = context_id

    def __str__(self) -> str:
        return (
            f"context {self.context_id} caught its ContextCanceled and returned; "
            "let the exception out, or call its defuse() if returning is meant"
        )


class TooManyContexts(GreenctxError):
    """``create_context`` at the environment's ``max_contexts``. Nothing was created."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit

    def __str__(self) -> str:
        return f"{self.limit} contexts are alive, which is the limit; destroy one first or raise max_contexts"


class NoEnvironment(GreenctxError, LookupError):
    """``current_environment()`` outside of any ``run_main_context``."""

    def __str__(self) -> str:
        return "no context-switching environment is running here; call this from within run_main_context"


class EnvironmentNotRunning(GreenctxError):
    """A call before or after ``run_main_context``; or ``create_context`` while the environment is torn down."""

    def __init__(self, state: str = "is not running") -> None:
        super().__init__(state)
        self.state = state

    def __str__(self) -> str:
        return f"the environment {self.state}; its contexts live within run_main_context only"


class EnvironmentAlreadyUsed(GreenctxError):
    """``run_main_context`` while it is running, or a second time. Nothing has changed."""

    def __init__(self, state: str = "was used") -> None:
        super().__init__(state)
        self.state = state

    def __str__(self) -> str:
        return f"the environment {self.state} and runs only once; make a new ContextSwitchingEnvironment"


class WrongThread(GreenctxError):
    """A call from a thread other than the environment's. Nothing has changed."""

    def __init__(self, expected: str, found: str) -> None:
        super().__init__(expected, found)
        self.expected = expected
        self.found = found

    def __str__(self) -> str:
        return (
            f"the environment runs in thread {self.expected!r} but was called from thread {self.found!r}; "
            "give each thread an environment of its own"
        )


ON_FIBER = "guest code on its fiber"
"""The ``caller`` of a `NotTheActiveContext` raised in Python that a plain `wasmtime.Func` runs."""


class NotTheActiveContext(GreenctxError):
    """A call from another greenlet than the active context's, or from guest code on its fiber. Nothing has changed."""

    def __init__(self, context_id: int, caller: str = "another greenlet") -> None:
        super().__init__(context_id, caller)
        self.context_id = context_id
        self.caller = caller

    def __str__(self) -> str:
        remedy = "only the code of the active context may call its environment"
        if self.caller == ON_FIBER:
            remedy = (
                "a plain wasmtime.Func runs its Python there: define the host function by greenctx.wasix's "
                "Linker.define_func, or as its Func"
            )
        return f"context {self.context_id} is the active one, but the call came from {self.caller}; {remedy}"


class NotInAsyncRun(GreenctxError):
    """`greenctx.await_` outside of any run in a task. Nothing was awaited."""

    def __str__(self) -> str:
        return (
            "await_ was called outside of any environment that runs in a task; run it by "
            "`await env.run_main_context_async(main)`, or a program by `await program.run_async()`; "
            "in a coroutine, write `await`"
        )


class AlreadyAwaiting(GreenctxError):
    """`greenctx.await_` while another greenlet of the same run awaits. Nothing was awaited."""

    def __str__(self) -> str:
        return (
            "another greenlet of this run awaits already, and the run waits as a whole; "
            "await one thing at a time, or several of them by asyncio.gather or a TaskGroup"
        )


class ResumedWhileAwaiting(GreenctxError):
    """Other code than the event loop resumed a greenlet that awaits. The awaitable was abandoned."""

    def __init__(self, what: str = "was resumed by other code than the event loop") -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return (
            f"a greenlet that awaits {self.what}; leave it to the event loop, in the same thread, to resume it, "
            "and cancel its task to end the wait"
        )


class CalledWithinGuest(GreenctxError):
    """A guest was called by code that may not call it now: it runs on a fiber, or another thread is in the store."""

    def __init__(self, where: str) -> None:
        super().__init__(where)
        self.where = where

    def __str__(self) -> str:
        return (
            f"{self.where}; call guests only from host functions defined by greenctx.wasix.Linker.define_func, "
            "and from one thread at a time"
        )


class WrongStore(GreenctxError, ValueError):
    """A function, module or linker was used with a store that it does not belong to. Nothing has changed."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return f"the {self.what} and the store do not belong together; use the store (or engine) that it was made with"


class ReferencesTooLate(GreenctxError):
    """A module that holds references to collected objects met a store with suspended guests. Nothing has changed."""

    def __init__(self, calls: int) -> None:
        super().__init__(calls)
        self.calls = calls

    def __str__(self) -> str:
        return (
            f"a module that holds references to collected objects comes too late: {self.calls} call(s) into the store "
            "have begun and not ended; instantiate the first such module of a store before that"
        )


class StoreInUse(GreenctxError):
    """``close`` of a store while guests are suspended in it. Nothing has changed."""

    def __init__(self, calls: int) -> None:
        super().__init__(calls)
        self.calls = calls

    def __str__(self) -> str:
        return (
            f"the store cannot be closed: {self.calls} call(s) into its guests have not ended; "
            "let them return, or destroy the contexts that they were made in"
        )


class WasiNotSet(GreenctxError):
    """A guest that uses WASI met a store without WASI's settings when it was instantiated. Nothing has changed."""

    def __str__(self) -> str:
        return "the guest uses WASI but its store lacks it; call the store's set_wasi(WasiConfig()) first"


_RESOURCES = {
    errno.ENOMEM: "memory",
    errno.EMFILE: "file descriptors",
    errno.ENFILE: "file descriptors",
    errno.EAGAIN: "threads",
}


class ResourcesExhausted(GreenctxError, OSError):
    """The system has no more memory, file descriptors or threads for a program. It is not the program's fault.

    ``resource`` says which, ``errno`` is the system's number of the error.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.errno = number
        self.strerror = os.strerror(number)
        self.resource = _RESOURCES.get(number, "resources")

    def __str__(self) -> str:
        return (
            f"the system has no more {self.resource} for the program ({self.strerror}); "
            "run fewer programs at a time, or raise the system's limit"
        )


class FiberStacksExhausted(GreenctxError, MemoryError):
    """There is no room for the stack of another call into a guest. Every context that has started has such a stack.

    ``max_map_count`` is the kernel's limit on mappings, or None on systems without it.
    """

    def __init__(self, calls: int, max_map_count: int | None) -> None:
        super().__init__(calls, max_map_count)
        self.calls = calls
        self.max_map_count = max_map_count

    def __str__(self) -> str:
        limit = "" if self.max_map_count is None else f" (vm.max_map_count is {self.max_map_count}; each takes two)"
        return (
            f"the system has no room for the stack of another context beside {self.calls}{limit}; "
            "destroy contexts, limit their number, or raise the system's limit"
        )


class InvalidProgram(GreenctxError, ValueError):
    """A file that cannot be run as a WASI command; ``reason`` says why."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


class InvalidTrace(GreenctxError, ValueError):
    """A trace file from which no timeline can be drawn; ``reason`` says why."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


class ProgramClosed(GreenctxError):
    """``run`` of a program after its ``close``."""

    def __str__(self) -> str:
        return "the program is closed; load it again to run it again"


class ProgramInUse(GreenctxError):
    """``close`` of a program while it runs. Nothing has changed."""

    def __str__(self) -> str:
        return "the program cannot be closed while it runs; wait for the end of run()"


class Deadlock(GreenctxError):
    """A guest was about to wait for another thread. It would wait for ever, because it has one thread."""

    def __init__(self, context_id: int, what: str) -> None:
        super().__init__(context_id, what)
        self.context_id = context_id
        self.what = what

    def __str__(self) -> str:
        return (
            f"context {self.context_id} was about to wait {self.what}, which only another thread could end, "
            "and there is none; switch to the context that can end it instead"
        )


class GuestExit(BaseException):
    """The guest called WASI's ``proc_exit``. Unwinds every guest and host function up to `Program.run`.

    Like `SystemExit` it is not an `Exception`, so ``except Exception`` does not stop it.
    """

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status

    @property
    def code(self) -> int:
        """The status, by the name that it has in `wasmtime.ExitTrap`."""
        return self.status


class GuestException(GreenctxError):
    """A guest threw a WebAssembly exception, and did not catch it.

    If it leaves a host function of the same store, the guest that called the host function may catch it as the
    WebAssembly exception. So it travels from a context to main's ``context_switch``, and from a guest through Python to
    the guest that called it. A copy of it is an ordinary Python exception.
    """

    def __init__(self, payload: tuple[Any, ...], tag: Any = None, reference: Any = None) -> None:
        super().__init__(payload)
        self.payload = payload
        """The exception's values. `NotImplemented` stands for a value that Python cannot represent."""
        self.tag = tag
        """The `wasmtime.Tag` of the exception: the kind of exception, as the guest declares it."""
        self.reference = reference
        """Keeps the exception alive in its store."""

    def __reduce__(self) -> tuple[type[GuestException], tuple[tuple[Any, ...]], dict[str, Any]]:
        # The notes go along; the tag and the reference belong to the store, and stay.
        return type(self), (self.payload,), {k: v for k, v in vars(self).items() if k not in ("tag", "reference")}

    def __str__(self) -> str:
        values = f" with {self.payload!r}" if self.payload else ""
        return f"the guest threw an exception{values}, and nothing caught it"


class TimeLimitExceeded(GreenctxError, TimeoutError):
    """A program exceeded its time limit. All its contexts were unwound."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds

    def __str__(self) -> str:
        return f"the program did not end within its limit of {self.seconds:g} seconds"


class ShadowStackOverflow(GreenctxError):
    """The address-taken locals of a context have overflowed its shadow stack. The program cannot go on."""

    def __init__(self, context_id: int, size: int) -> None:
        super().__init__(context_id, size)
        self.context_id = context_id
        self.size = size

    def __str__(self) -> str:
        return f"the shadow stack of context {self.context_id} has overflowed its {self.size} bytes; give it more"


class ShadowStackUnavailable(GreenctxError, MemoryError):
    """The guest has no memory for another shadow stack. Nothing has changed; ``context_create`` returns ENOMEM."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size

    def __str__(self) -> str:
        return f"the guest has no memory for another shadow stack of {self.size} bytes; destroy a context first"
