# cython: language_level=3
"""The native part: everything that happens on a guest's fiber, and the poll that gets there.

No Python runs on a fiber. When the guest calls a host function, `on_host_call` notes the request in the call that is
being polled and leaves a continuation that is pending until the answer is there; wasmtime then suspends the fiber and
`Fiber.poll` returns to the context's greenlet, where Python runs the function. (With the callback in Python, any
exception before its first line, such as a RecursionError or a signal's KeyboardInterrupt, left wasmtime without a
continuation, and it aborted the process.)

Nor does wasmtime's collector see what guests hold on the stacks of fibers that are suspended, unless they wait on one
another, as in nested calls. So where guests may hold references, the suspended ones are made to: each is resumed within
the callback of the one before, and lets the next one run instead of going on; what may collect runs on top of all.
Afterwards each is pending as before. The last one below it is always the same, the floor (see floor.py).

This links to nothing. The functions of the wasmtime library that the Python package has loaded are passed to
`configure` by address, with the layout of its structures as that package knows it.
"""

cimport cython
from cpython.object cimport PyObject
from cpython.pythread cimport (
    PyThread_acquire_lock, PyThread_allocate_lock, PyThread_free_lock, PyThread_release_lock, PyThread_type_lock)
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memcpy

from greenctx._core._switching cimport Switching

from os import getpid

from greenctx.errors import CalledWithinGuest

include "_wasmtime.pxi"
include "_callbacks.pxi"
include "_store_state.pxi"
include "_epoch_thread.pxi"

YIELDED = object()


@cython.final
cdef class Fiber:
    """One call into a guest, on a fiber of its own. Owns the future; ``keep_alive`` is what the future points to."""

    cdef request_t request
    cdef StoreState state
    cdef object keep_alive, environment
    cdef PyObject *greenlet  # not a reference: that one's frame refers to this
    cdef Switching switching
    cdef void **polled  # that greenlet's thread's; to find one's own takes a call
    cdef bint holds_gil, failing, is_abandoned
    cdef Fiber next  # in the store's `abandoned`, or `closed`
    cdef ThrownException delivering  # what the guest is to get
    cdef readonly ThrownException thrown
    """What the guest has thrown and not caught, which ended the call; or None."""
    cdef public object delivered
    """The GuestException that the guest was given last, instead of a host function's result; or None."""

    def __init__(self, uintptr_t future, uintptr_t context, StoreState state not None, keep_alive, environment=None,
                 greenlet=None, holds_gil=False):
        """``future`` and ``context`` are the addresses of a wasmtime_call_future_t and the store's context.

        It must be polled on that greenlet only, which is not checked. While the guest runs nobody may call
        ``environment``, nor one that it is nested in. ``holds_gil``: the guest gives control back at the end of each
        epoch, and calls nothing that may wait, so that it may run with the GIL held.
        """
        self.request.future, self.request.context = <void *>future, <void *>context
        self.request.suspensions = &state.suspensions
        self.request.before_anchor = state.gc_anchor is None
        self.keep_alive, self.environment, self.greenlet = keep_alive, environment, <PyObject *>greenlet
        self.switching, self.polled = compiled(environment), &polled
        self.state, self.holds_gil = state, holds_gil
        state.calls += 1

    def __del__(self):
        self.close()

    def poll(self):
        """Let the guest run until it calls a host function, which is returned, or has ended: None.

        `YIELDED` when it did neither, for an epoch has ended. Raises what `StoreState.check` does.

        A switch to a context that has started is done right here, unless there is reason to come back to Python: signal
        handlers, and other threads that wait for the GIL, get their turn after 255 of these, and at an epoch's end.
        What comes out of one, in the place of a host function, is raised.
        """
        while True:
            function = poll_once(self)
            if not self.request.is_switch or self.state.switches == 0:
                self.state.switches = 1
                return function
            self.state.switches += 1  # comes to 0 after 255
            if not self.switch_context():
                return function

    cdef inline bint switch_context(self) except -1:
        cdef request_t *request = &self.request
        if self.state.shadow_stacks is not None or self.delivered is not None or self.switching is None:
            return False
        if not (self.switching._is_plain and self.switching.switch_if_plain(
                <object>self.greenlet, <uint64_t>request.arguments[0].of.i64)):
            return False
        request.results[0].kind = request.results[0].of.i32 = 0  # WASMTIME_I32; no error
        request.answered = True
        return True

    cdef inline bint go_on(self) noexcept nogil:
        """Let it run; return whether it has ended."""
        cdef gc_task_t gc_task
        gc_task.run, gc_task.future, gc_task.done = run_future, self.request.future, False
        # More than once if it is in the middle of a collection: until that is done the store is not to be used.
        while not gc_task.done and self.request.function == NULL and not self.request.epoch_ended:
            # One that fails needs no others: it only unwinds, and its backtrace then shows no frames but its own.
            if self.failing or self.state.suspensions.anchor == NULL:
                gc_task.done = wasmtime.call_future_poll(gc_task.future)
            elif not self.state.run(&gc_task):
                break
        return gc_task.done

    cdef void note_suspension(self) noexcept:
        """Let `StoreState.run` find the call if it is suspended in a host function."""
        cdef request_t *request = &self.request
        cdef request_t *previous = &request.suspensions.ring
        if request.function != NULL:
            if previous.next.before_anchor:  # it stays first, where it does no harm
                previous = previous.next
            request.previous, request.next = previous, previous.next
            request.next.previous = previous.next = request
        elif request.epoch_ended:
            self.state.interrupted += 1

    cdef void forget_suspension(self) noexcept:
        cdef request_t *request = &self.request
        if request.function != NULL:
            request.previous.next, request.next.previous = request.next, request.previous
            request.previous = request.next = request
        elif request.epoch_ended:
            self.state.interrupted -= 1

    cpdef void close(self) noexcept:
        """Delete the future. A guest that is still suspended unwinds, without running any more of its code.

        While another thread is within guest code of the store, that is left to it: for when it comes back.
        """
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
        cdef void *outer = polled
        self.forget_suspension()
        self.request.future = self.request.function = NULL
        self.request.epoch_ended = False
        polled = &self.state.suspensions.ring  # it unwinds on its fiber
        wasmtime.call_future_delete(future)
        polled = outer
        self.state.calls -= 1

    @property
    def caller(self):
        """The address of the host call's wasmtime_caller_t; valid until the guest goes on."""
        return <uintptr_t>self.request.caller

    @property
    def arguments(self):
        """The arguments of the host call: so many wasmtime_val_t."""
        return (<const char *>self.request.arguments)[:self.request.argument_count * sizeof(value_t)]

    @property
    def is_waiting(self):
        """Whether the guest is suspended in a host call that has no answer yet."""
        return self.request.function != NULL and not self.request.answered

    def answer(self, bytes results not None):
        """Let the host call return these: so many wasmtime_val_t."""
        if <size_t>len(results) != self.request.result_count * sizeof(value_t):
            raise ValueError("not the host function's results")
        memcpy(self.request.results, <const char *>results, len(results))
        self.request.answered = True

    def fail(self, bytes message not None):
        """Answer the host call with a trap, which no guest can catch."""
        self.request.trap[0] = wasmtime.trap_new(message, len(message))
        self.request.answered = self.failing = True

    def throw(self, delivered, ThrownException exception not None):
        """Answer the host call with an exception, which the guest may catch. It must be of the same store."""
        self.delivered, self.delivering = delivered, exception
        self.request.exception = &exception.reference
        self.request.answered = True


cdef object poll_once(Fiber self):
    # No method: what is called in one place only becomes a part of its caller, and on the way back from another stack
    # each frame costs, since the processor expects the returns of the one that it left.
    cdef request_t *request = &self.request
    cdef StoreState state = self.state
    cdef bint hold = self.holds_gil and not request.epoch_ended  # else it is in a long one
    cdef bint done
    if request.future == NULL:
        raise RuntimeError("this call has ended")
    state.enter(request, self.polled, self.environment, self.switching)
    self.forget_suspension()
    request.function = NULL
    request.is_switch = request.epoch_ended = False
    if hold:
        done = self.go_on()
    else:
        with nogil:
            done = self.go_on()
    if not done:
        self.note_suspension()
    state.leave(self.environment, self.switching)
    if state.suspensions.gc_task != NULL:
        state.suspensions.gc_task = NULL
        raise RuntimeError("a call that is suspended in a host function has not come back to it")
    if done:
        if wasmtime.context_has_exception(request.context):
            self.thrown = ThrownException.take(request.context)
        self.close()
        return None
    return YIELDED if request.epoch_ended else <object>request.function
