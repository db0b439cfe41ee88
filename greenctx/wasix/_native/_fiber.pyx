# cython: language_level=3
"""The native part: everything that happens on a guest's fiber, and the poll that resumes the fiber.

No Python runs on a fiber. When the guest calls a host function, wasmtime calls `on_host_call` on the fiber. It notes
the request in the call that the thread is polling, and leaves a continuation that stays pending until the host
function has returned. wasmtime then suspends the fiber, and `Fiber.poll` returns to the context's greenlet, where
Python runs the function.

A callback in Python was tried and rejected: an exception before its first line (a RecursionError, a signal's
KeyboardInterrupt) left wasmtime without a continuation. Its default continuation panics ("callback must be set",
crates/c-api/src/async.rs, wasmtime 45 to 50), and a panic ends the process.

wasmtime's collector does not see what guests hold on the stacks of suspended fibers, unless the fibers wait on one
another, as nested calls do. So where guests may hold references, suspended calls are made to wait on one another before
a collection: `resume_next` resumes each from within the callback of the one before. The last one resumed is always the
same call, the collector's anchor (see gc_anchor.py). On top of it runs what may collect, the gc_task. Afterwards each
call is pending as before.

The module links to nothing. `configure` gets the functions of the wasmtime library that the Python package has loaded,
by address. capi_values.py has the layout of the structures as that package knows it, and calls.py compares.
"""

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from cpython.object cimport PyObject
from cpython.pythread cimport (
    PyThread_acquire_lock, PyThread_allocate_lock, PyThread_free_lock, PyThread_get_thread_ident, PyThread_release_lock,
    PyThread_type_lock)
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memcmp, memcpy, memset, strlen

from greenctx._core._switching cimport NOT_DONE, Coroutine, Switching

import sys
from _signal import SIGINT, getsignal
from _thread import interrupt_main, start_new_thread
from errno import EAGAIN
from os import getpid
from weakref import ref

from greenctx.errors import CalledWithinGuest, ResourcesExhausted

include "_wasmtime.pxi"
include "_signals.pxi"
include "_callbacks.pxi"
include "_direct_calls.pxi"
include "_stack_pointer.pxi"
include "_store_state.pxi"
include "_epoch_thread.pxi"

YIELDED = object()
"""The result of `Fiber.poll` when the guest has given control back only because an epoch ended."""


@cython.final
cdef class Fiber:
    """One call into a guest, on a fiber of its own. Owns the future; ``keep_alive`` is what the future points to."""

    cdef request_t request
    cdef StoreState state
    cdef object keep_alive, environment
    # Borrowed, not owned: the greenlet's frame refers to this object, and the cycle would keep a greenlet that others
    # have forgotten alive, suspended for ever.
    cdef PyObject *greenlet
    cdef Switching switching  # `environment`, if its switch is the compiled one
    cdef Coroutine context  # the one that has made the call, if `switching` is there
    cdef uint64_t context_id
    cdef int switch_errno  # what context_switch is to return
    cdef StackPointer stack_pointer
    cdef ShadowStack stack  # where the guest's locals go, if not on the stack that all share
    cdef bint overflowed  # that stack, when the guest called the host function
    cdef bint is_due  # another greenlet ran the guest, which needs Python: see _deferred.pxi
    cdef void **polled  # the address of that thread's variable: finding a thread-local one costs a call at each poll
    cdef bint holds_gil  # see StoreState.holds_gil
    cdef bint is_abandoned  # in `StoreState.abandoned`
    cdef Fiber next  # in the store's list `abandoned`, or `closed`
    cdef ThrownException delivering  # keeps `request.exception` alive until the guest has it
    cdef readonly ThrownException thrown
    """The exception that has ended the call, because the guest did not catch it; or None."""
    cdef public object delivered
    """The GuestException that was thrown into the guest last, instead of a host function's result; or None."""

    def __init__(self, uintptr_t future, uintptr_t context, StoreState state not None, keep_alive, environment=None,
                 greenlet=None, holds_gil=False):
        """``future`` and ``context`` are the addresses of a wasmtime_call_future_t and the store's context.

        Poll it on ``greenlet`` only, which is not checked. While the guest runs, calls of ``environment`` are refused,
        and calls of those that it is nested in. ``holds_gil``: run the guest with the GIL held, which takes a guest
        that gives control back at the end of each epoch, and calls nothing that may wait.
        """
        self.request.future, self.request.context = <void *>future, <void *>context
        self.request.suspensions, self.request.direct = &state.suspensions, &state.direct
        self.request.before_anchor = state.gc_anchor is None
        self.keep_alive, self.environment, self.greenlet = keep_alive, environment, <PyObject *>greenlet
        self.switching, self.polled = compiled(environment), &polled
        if self.switching is not None:
            self.context = self.switching._active
            self.context_id = self.context.context_id
        self.state, self.holds_gil = state, holds_gil
        state.calls += 1

    def __del__(self):
        self.close()

    def poll(self):
        """Let the guest run. Return the host function that it calls, None when it has ended, or `YIELDED`.

        Raises as `StoreState.check` does.

        Switches to contexts that have started are done here, to save the way through Python. Signal handlers, and other
        threads that wait for the GIL, would starve, so after 65,535 switches, and at an epoch's end, Python has its turn.
        An exception that arrives in such a switch is raised.
        """
        cdef Fiber asking
        self.is_due = False
        while True:
            asking = run_guests(self)
            if asking is not self:
                hand_over(self, asking)
            elif not self.switch_context():
                break
            if self.is_due:
                break
            self.answer_switch()
        self.state.switches = 1
        if self.request.future == NULL:
            return None
        if self.request.epoch_ended:
            return YIELDED
        return self.stack.on_overflow if self.overflowed else <object>self.request.function

    def use_stack(self, StackPointer stack_pointer not None, ShadowStack stack not None):
        """Let the guest's locals go on that stack. When it has overflowed, `poll` returns its ``on_overflow`` instead of
        the host function."""
        self.stack_pointer, self.stack = stack_pointer, stack

    cdef inline bint switch_context(self) except -1:
        """Do what WASIX's context_switch does, in the plain case; return whether it was plain."""
        if not self.wants_switch() or self.switching is None:
            return False
        if self.switching._is_plain:
            self.state.switches += 1
            return self.switching.switch_if_plain(<object>self.greenlet, self.switch_target(), <void *>self)
        if self.switching.told_switch == NULL:
            return False
        self.state.switches += 1
        cdef int told = self.switching.told_switch(
            self.switching, <object>self.greenlet, self.switch_target(), (<object>self.request.function).reported)
        if told == NOT_DONE:
            return False
        self.switch_errno = told
        return True

    cdef inline bint wants_switch(self) noexcept:
        """Whether the guest is in WASIX's context_switch, and Python need not have its turn."""
        # Exceptions on their way take Python, and so do overflows.
        return self.request.is_switch and self.state.switches != 0 and self.delivered is None and not self.overflowed

    cdef inline uint64_t switch_target(self) noexcept:
        return <uint64_t>self.request.arguments[0].of.i64

    cdef inline void answer_switch(self) noexcept:
        """Let context_switch return to the guest."""
        self.request.results[0].kind, self.request.results[0].of.i32 = 0, self.switch_errno  # WASMTIME_I32
        self.switch_errno = 0
        self.request.answered = True

    cdef void end(self) noexcept:
        """The call has ended: take what it has ended with, and close it."""
        try:
            if wasmtime.context_has_exception(self.request.context):
                # The next call that ends would find it otherwise.
                self.thrown = ThrownException.take(self.request.context)
        except MemoryError:
            pass  # the call ends with wasmtime's error instead
        self.close()

    cdef inline bint go_on(self) noexcept nogil:
        """Poll the future until the guest needs the host; return whether the call has ended."""
        cdef gc_task_t gc_task
        gc_task.run, gc_task.future, gc_task.done = run_future, self.request.future, False
        # A guest in the middle of a collection is pending, too, and has asked for nothing. It is polled again at once,
        # because no code may use the store before the collection is over.
        while not gc_task.done and self.request.function == NULL and not self.request.epoch_ended:
            # A failing call resumes no others: it only unwinds, and its backtrace then has no frames but its own.
            if self.request.failing or self.state.suspensions.anchor == NULL:
                gc_task.done = wasmtime.call_future_poll(gc_task.future)
            elif not self.state.run(&gc_task):
                break
        return gc_task.done

    cdef void note_suspension(self) noexcept:
        """Put the call into the ring of `suspensions_t` if it is suspended in a host function.

        Not one that yields to switch: there was no anchor then, so its stack has no references to collected objects.
        """
        cdef request_t *request = &self.request
        cdef request_t *previous = &request.suspensions.ring
        if request.function != NULL and not request.yields:
            # A call that began before the anchor does not stand on it, so its notes of what was below it do not go
            # stale. It stays first in the ring, the lowest on the stack. There is one at most (see gc_anchor.py).
            if previous.next.before_anchor:
                previous = previous.next
            request.previous, request.next = previous, previous.next
            request.next.previous = previous.next = request
        elif request.epoch_ended:
            self.state.interrupted += 1

    cdef void forget_suspension(self) noexcept:
        """Undo `note_suspension`."""
        cdef request_t *request = &self.request
        if request.function != NULL and not request.yields:
            request.previous.next, request.next.previous = request.next, request.previous
            request.previous = request.next = request
        elif request.epoch_ended:
            self.state.interrupted -= 1

    cpdef void close(self) noexcept:
        """Delete the future. A guest that is still suspended unwinds, without running any more of its code.

        While another thread is within guest code of the store, the deletion is left to that thread.
        """
        # wasmtime unwinds on the fiber and changes the store meanwhile, and a store is not for two threads at a time.
        if self.is_abandoned or self.request.future == NULL:
            return
        if self.state.busy and self.state.polled != &polled:
            self.is_abandoned = True
            self.next, self.state.abandoned = self.state.abandoned, self
        else:
            self.delete_future()

    cdef void delete_future(self) noexcept:
        global polled
        cdef void *future = self.request.future
        cdef void *outer = polled  # may be set: a plain wasmtime.Func, on another call's fiber, may close this one
        self.forget_suspension()
        self.request.future = self.request.function = NULL
        self.request.epoch_ended = self.request.yields = False
        polled = &self.state.suspensions.ring  # the guest unwinds on its fiber: `check` is to refuse calls from there
        wasmtime.call_future_delete(future)
        polled = outer
        if self.state.found[<uint8_t>self.context_id] == <void *>self:
            self.state.found[<uint8_t>self.context_id] = NULL
        self.state.end_call()

    @property
    def caller(self):
        """The address of the host call's wasmtime_caller_t; valid until the guest goes on."""
        return <uintptr_t>self.request.caller

    @property
    def arguments(self):
        """The arguments of the host call: a copy of an array of wasmtime_val_t."""
        return (<const char *>self.request.arguments)[:self.request.argument_count * sizeof(value_t)]

    @property
    def is_waiting(self):
        """Whether the guest is suspended in a host call that has no answer yet."""
        return self.request.function != NULL and not self.request.answered

    def answer(self, bytes results not None):
        """Let the host call return these results, an array of wasmtime_val_t. The guest owns the references in them."""
        if <size_t>len(results) != self.request.result_count * sizeof(value_t):
            raise ValueError("not the host function's results")
        memcpy(self.request.results, <const char *>results, len(results))
        self.request.answered = True

    def fail(self):
        """End the host call with a trap, which no guest can catch."""
        self.request.answered = self.request.failing = True

    def throw(self, delivered, ThrownException exception not None):
        """End the host call with an exception, which the guest may catch. It must be of the same store."""
        self.delivered, self.delivering = delivered, exception
        self.request.exception = &exception.reference
        self.request.answered = True


include "_deferred.pxi"
