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
from cpython.number cimport PyNumber_Index
from cpython.pythread cimport (
    PyThread_acquire_lock, PyThread_allocate_lock, PyThread_free_lock, PyThread_release_lock, PyThread_type_lock)
from cpython.ref cimport Py_DECREF, Py_INCREF
from cpython.tuple cimport PyTuple_New, PyTuple_SET_ITEM
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t, uintptr_t

from greenctx._switching cimport Switching

from os import getpid

from greenctx.errors import CalledWithinGuest

cdef extern from *:
    """
    #include <stdbool.h>
    #include <stddef.h>
    #include <stdint.h>

    /* wasmtime_val_t of wasmtime/val.h; `references` only gives the union its size */
    typedef struct {
        uint8_t kind;
        union { int32_t i32; int64_t i64; float f32; double f64; uint64_t references[3]; } of;
    } value_t;

    #if defined(_MSC_VER)
    #define THREAD_LOCAL __declspec(thread)
    #else
    #define THREAD_LOCAL _Thread_local
    #endif
    static THREAD_LOCAL void *polled;  /* the request_t of the call that this thread is polling, if any */
    """
    ctypedef bint c_bool "bool"
    ctypedef union value_union_t:  # has no name in C: only its members may be used
        int32_t i32
        int64_t i64
        float f32
        double f64
    ctypedef struct value_t:
        uint8_t kind
        value_union_t of
    size_t VALUE_OFFSET "offsetof(value_t, of)"
    void *polled

cdef extern from "pythread.h":
    bint PyThread_acquire_lock_timed(PyThread_type_lock, long long microseconds, int interruptibly) nogil
    unsigned long PyThread_start_new_thread(void (*)(void *) noexcept nogil, void *)

cdef enum:  # wasmtime_valkind_t of wasmtime/val.h
    I32 = 0
    I64 = 1
    F32 = 2
    F64 = 3

# wasmtime_async_continuation_t of wasmtime/async.h
cdef struct continuation_t:
    c_bool (*callback)(void *) noexcept nogil
    void *env
    void (*finalizer)(void *) noexcept nogil

# wasmtime_exnref_t and wasmtime_externref_t of wasmtime/val.h
cdef struct reference_t:
    uint64_t store_id
    uint32_t private1, private2
    void *private3

# What a guest asks of its host: the arguments of wasmtime_func_async_callback_t; and where it is meanwhile.
cdef struct request_t:
    void *function
    void *caller
    const value_t *arguments
    size_t argument_count
    value_t *results
    size_t result_count
    void **trap
    c_bool is_switch  # the function is WASIX's context_switch
    c_bool answered
    const reference_t *exception  # what to throw in the guest instead of going on, if anything
    c_bool exception_needs_another  # reference, which will be lost
    c_bool epoch_ended  # it is for this that the guest is suspended
    c_bool before_floor  # the call began when there was no floor yet
    void *context
    void *future
    stacks_t *stacks
    request_t *previous  # the other suspended ones of the store
    request_t *next

# What runs on top of all suspended calls.
cdef struct summit_t:
    void (*run)(summit_t *) noexcept nogil
    void *context
    void *future
    void *handle
    reference_t *reference
    c_bool done

cdef struct ticking_t:
    void *engine
    long microseconds
    PyThread_type_lock stop  # locked until the thread is to end
    PyThread_type_lock ended

# The calls into one store that are suspended in host functions, and what they are being resumed for, if anything.
cdef struct stacks_t:
    request_t *first
    request_t *floor
    summit_t *summit

# The functions of wasmtime that are used, as its headers declare them, in the order of FUNCTIONS.
cdef struct wasmtime_t:
    c_bool (*call_future_poll)(void *) noexcept nogil
    void (*call_future_delete)(void *) noexcept nogil
    void *(*trap_new)(const char *, size_t) noexcept nogil
    void *(*func_call_async)(void *, const void *, const void *, size_t, void *, size_t, void **, void **) noexcept nogil
    c_bool (*context_has_exception)(void *) noexcept nogil
    c_bool (*context_take_exception)(void *, reference_t *) noexcept nogil
    void *(*context_set_exception)(void *, const reference_t *) noexcept nogil
    void (*exnref_unroot)(reference_t *) noexcept nogil
    uint32_t (*exnref_to_raw)(void *, const reference_t *) noexcept nogil
    void (*exnref_from_raw)(void *, uint32_t, reference_t *) noexcept nogil
    c_bool (*externref_new)(void *, void *, void *, reference_t *) noexcept nogil
    void *(*context_gc)(void *) noexcept nogil
    void (*error_delete)(void *) noexcept nogil
    void (*engine_increment_epoch)(void *) noexcept nogil

FUNCTIONS = tuple("""call_future_poll call_future_delete trap_new func_call_async context_has_exception
    context_take_exception context_set_exception exnref_unroot exnref_to_raw exnref_from_raw externref_new context_gc
    error_delete engine_increment_epoch""".split())

cdef wasmtime_t wasmtime

cdef object guest, load_reference, store_reference, forget

cdef list lost = []
"""The Python objects, by their handles, to which guests have lost the last reference."""


def configure(addresses, layout, guest_, load, store, forget_):
    """Take the addresses of `FUNCTIONS`; raise ImportError if wasmtime's structures are not as here.

    ``layout`` is the size of wasmtime_val_t, the offset of its union, and the sizes of wasmtime_async_continuation_t
    and wasmtime_exnref_t. ``guest_`` is the environment's caller while guest code runs. ``load(store, address)`` and
    ``store(store, type, value, address)`` convert the values that are not numbers; ``forget_(handle)`` lets go of an
    object that a guest had a reference to.
    """
    global guest, load_reference, store_reference, forget
    built = (sizeof(value_t), VALUE_OFFSET, sizeof(continuation_t), sizeof(reference_t))
    if layout != built:
        raise ImportError(f"this wasmtime package lays out its structures as {layout}; greenctx was built for {built}")
    for i in range(len(FUNCTIONS)):
        (<uintptr_t *>&wasmtime)[i] = addresses[i]
    guest, load_reference, store_reference, forget = guest_, load, store, forget_


# On the fiber ---------------------------------------------------------------------------------------------------------

cdef c_bool is_answered(void *data) noexcept nogil:
    cdef request_t *request = <request_t *>data
    cdef reference_t kept
    if request.stacks.summit != NULL:
        climb(request, request.stacks)
        return False
    if request.exception != NULL:
        # Here, so that nothing can come between this and the guest: until then it is a property of the store.
        if request.exception_needs_another:
            wasmtime.exnref_from_raw(
                request.context, wasmtime.exnref_to_raw(request.context, request.exception), &kept)
        request.trap[0] = wasmtime.context_set_exception(request.context, request.exception)
        request.exception = NULL
    return request.answered


cdef void climb(request_t *below, stacks_t *stacks) noexcept nogil:
    """From that one, or from nowhere, to the next suspended one, to the floor after all of them, or to the summit."""
    cdef request_t *above
    cdef summit_t *summit
    if below == stacks.floor:
        summit, stacks.summit = stacks.summit, NULL
        summit.run(summit)
        return
    above = stacks.first if below == NULL else below.next
    wasmtime.call_future_poll((stacks.floor if above == NULL else above).future)  # comes to is_answered; stays pending


cdef void run_future(summit_t *summit) noexcept nogil:
    summit.done = wasmtime.call_future_poll(summit.future)


cdef void run_collector(summit_t *summit) noexcept nogil:
    cdef void *error = wasmtime.context_gc(summit.context)
    if error != NULL:
        wasmtime.error_delete(error)


cdef void run_externref_new(summit_t *summit) noexcept nogil:
    summit.done = wasmtime.externref_new(summit.context, summit.handle, <void *>on_loss, summit.reference)


cdef void on_host_call(void *function, void *caller, const value_t *arguments, size_t argument_count, value_t *results,
                       size_t result_count, void **trap, continuation_t *continuation) noexcept nogil:
    cdef request_t *request = <request_t *>polled
    request.function = function
    request.caller = caller
    request.arguments = arguments
    request.argument_count = argument_count
    request.results = results
    request.result_count = result_count
    request.trap = trap
    request.is_switch = request.answered = False
    continuation.callback = is_answered
    continuation.env = request
    continuation.finalizer = NULL


cdef void on_context_switch(void *function, void *caller, const value_t *arguments, size_t argument_count,
                            value_t *results, size_t result_count, void **trap,
                            continuation_t *continuation) noexcept nogil:
    on_host_call(function, caller, arguments, argument_count, results, result_count, trap, continuation)
    (<request_t *>polled).is_switch = True


cdef void *on_epoch_end(void *context, void *data, uint64_t *delta, uint8_t *kind) noexcept nogil:
    if polled != NULL:
        (<request_t *>polled).epoch_ended = True
    delta[0] = 1
    kind[0] = 1  # WASMTIME_UPDATE_DEADLINE_YIELD of wasmtime/store.h
    return NULL


cdef void on_loss(void *handle) noexcept with gil:
    """The finalizer of a guest's reference to a Python object. A collection on a fiber must not run Python."""
    if polled == NULL:
        forget(<uintptr_t>handle)
    else:
        lost.append(<uintptr_t>handle)


# On the greenlet ------------------------------------------------------------------------------------------------------

cdef void release(void *function) noexcept with gil:
    Py_DECREF(<object>function)


def callback_addresses(function, is_switch=False):
    """Give a reference to ``function`` away; return (callback, data, finalizer) for an async host function.

    ``is_switch``: it is WASIX's context_switch, which `Fiber.poll` may do by itself.
    """
    Py_INCREF(function)
    callback = <uintptr_t>&on_context_switch if is_switch else <uintptr_t>&on_host_call
    return callback, <uintptr_t><void *>function, <uintptr_t>&release


def epoch_callback_address():
    """A callback for wasmtime_store_epoch_deadline_callback, with which a guest yields at the end of each epoch."""
    return <uintptr_t>&on_epoch_end


cdef object forget_lost():
    """Let go of the objects that guests have lost. May raise KeyboardInterrupt."""
    cdef list taken = lost[:]  # a `__del__` may call guests, which come here again
    lost.clear()
    try:
        while taken:
            forget(taken.pop())
    finally:
        lost.extend(taken)


@cython.final
cdef class ThrownException:
    """Owns a reference to an exception of a guest's, which keeps it from being collected."""

    cdef reference_t reference

    @staticmethod
    cdef ThrownException take(void *context):
        """Take the exception that a guest has just ended with."""
        cdef ThrownException exception = ThrownException()
        # Taking it leaves a second reference in the innermost scope that is open, for good if there is none. A future
        # is one, and this one, of a function that does not matter, is never polled.
        cdef uint64_t[4] function = [1, 0, 0, 0]
        cdef void *trap = NULL
        cdef void *error = NULL
        cdef void *scope = wasmtime.func_call_async(context, function, NULL, 0, NULL, 0, &trap, &error)
        wasmtime.context_take_exception(context, &exception.reference)
        wasmtime.call_future_delete(scope)
        return exception

    def __dealloc__(self):
        wasmtime.exnref_unroot(&self.reference)

    @property
    def address(self):
        """The address of a wasmtime_exnref_t."""
        return <uintptr_t>&self.reference

    @property
    def store_id(self):
        return self.reference.store_id


cdef class Fiber


@cython.final
cdef class StoreState:
    """What is known of one store. Shared by all calls into it."""

    cdef object __weakref__
    cdef readonly object store_id
    cdef readonly Py_ssize_t calls
    cdef public object time_limit
    cdef public object shadow_stacks
    cdef Fiber floor
    cdef bint busy
    cdef object callers  # of the environment, and those it is nested in, while a guest runs
    cdef stacks_t stacks
    cdef Py_ssize_t interrupted  # calls that are suspended elsewhere than in a host function
    cdef request_t nobody
    cdef public bint short_bursts
    """Whether its guests give control back at the end of each epoch, and call nothing that may wait."""

    def __init__(self, store_id, time_limit):
        self.store_id = store_id
        self.calls = 0  # those that have not ended
        self.time_limit = time_limit
        self.shadow_stacks = None
        self.floor = None

    @property
    def holds_references(self):
        """Whether guests in the store may hold references to collected objects on their stacks."""
        return self.floor is not None

    def lay_floor(self, Fiber fiber not None):
        """From now on such guests may come. ``fiber`` is suspended in a host function, and nobody will answer."""
        fiber.forget_suspension()
        self.calls -= 1  # which are those that others make
        self.floor = fiber
        self.stacks.floor = &fiber.request

    def remove_floor(self):
        """They are gone, with all the others."""
        cdef Fiber fiber = self.floor
        if fiber is not None:
            self.stacks.floor = NULL
            self.floor = None
            self.calls += 1
            fiber.note_suspension()
            fiber.close()

    cpdef object check(self):
        """Raise CalledWithinGuest when this thread, or another thread in the store, is within guest code."""
        if polled != NULL:
            raise CalledWithinGuest("this thread is within guest code")
        if self.busy:
            raise CalledWithinGuest("another thread is within guest code of this store")

    def collect(self, uintptr_t context, environment):
        """Run the collector. ``context`` is the address of the store's wasmtime_context_t. Raises as `check` does."""
        cdef summit_t summit
        summit.run, summit.context = run_collector, <void *>context
        self.run_on_top(&summit, environment)
        forget_lost()

    def new_externref(self, uintptr_t context, uintptr_t handle, uintptr_t reference, environment):
        """Call wasmtime_externref_new, which may collect; return whether it succeeded. Raises as `check` does."""
        cdef summit_t summit
        summit.run, summit.context = run_externref_new, <void *>context
        summit.handle, summit.reference = <void *>handle, <reference_t *>reference
        self.run_on_top(&summit, environment)
        return summit.done

    cdef object run_on_top(self, summit_t *summit, environment):
        """Run something that may collect."""
        self.enter(&self.nobody, environment)
        with nogil:
            self.run(summit)
        self.leave(environment)

    cdef bint run(self, summit_t *summit) noexcept nogil:
        """Run it on top of the suspended calls if these may hold references; return whether that was possible."""
        if self.stacks.floor != NULL:
            self.stacks.summit = summit
            climb(NULL, &self.stacks)
        else:
            summit.run(summit)
        return self.stacks.summit == NULL

    cdef object enter(self, request_t *request, environment):
        """What comes before a guest runs, or anything else on a fiber. Raises what `check` does."""
        global polled
        self.check()
        if lost:
            forget_lost()
            self.check()
        if self.floor is not None and self.interrupted > <Py_ssize_t>request.epoch_ended:
            raise CalledWithinGuest("a guest of this store was interrupted in the middle of its code")
        if isinstance(environment, Switching) and (<Switching>environment)._outer is None:
            self.callers, (<Switching>environment)._caller = (<Switching>environment)._caller, guest
        else:
            self.callers = enter_guest(environment)
        self.busy = True
        polled = request

    cdef object leave(self, environment):
        global polled
        polled = NULL
        self.busy = False
        callers, self.callers = self.callers, None
        if isinstance(environment, Switching) and (<Switching>environment)._outer is None:
            (<Switching>environment)._caller = callers
        else:
            leave_guest(environment, callers)


# These call no function of Python's, at whose beginning a signal's KeyboardInterrupt could leave them half done.

cdef list enter_guest(environment):
    """Refuse calls to that environment and those it is nested in, until `leave_guest` of what this returns."""
    cdef list callers = []
    outer = environment
    while outer is not None:
        callers.append(outer._caller)
        outer = outer._outer
    while environment is not None:
        environment._caller = guest
        environment = environment._outer
    return callers


cdef object leave_guest(environment, list callers):
    for caller in callers:
        environment._caller = caller
        environment = environment._outer


YIELDED = object()

cdef long epochs = 0  # that tickers have ended, all engines' together


cdef void tick(void *data) noexcept nogil:
    global epochs
    cdef ticking_t *ticking = <ticking_t *>data
    while not PyThread_acquire_lock_timed(ticking.stop, ticking.microseconds, False):
        wasmtime.engine_increment_epoch(ticking.engine)
        epochs += 1
    PyThread_release_lock(ticking.stop)
    PyThread_release_lock(ticking.ended)


@cython.final
cdef class Ticker:
    """Ends an engine's epoch every so often while it is entered, in a thread that needs no GIL."""

    cdef ticking_t ticking
    cdef object engine
    cdef readonly bint running
    cdef object process  # which the thread is a thread of: a fork has none

    def __cinit__(self, engine, uintptr_t address, long microseconds):
        """``address`` is that of the engine's wasm_engine_t."""
        self.engine = engine
        self.ticking.engine = <void *>address
        self.ticking.microseconds = microseconds
        self.ticking.stop = PyThread_allocate_lock()
        self.ticking.ended = PyThread_allocate_lock()

    def __enter__(self):
        PyThread_acquire_lock(self.ticking.stop, True)
        PyThread_acquire_lock(self.ticking.ended, True)
        self.process = getpid()
        self.running = PyThread_start_new_thread(tick, &self.ticking) != <unsigned long>-1
        if not self.running:
            PyThread_release_lock(self.ticking.stop)
            PyThread_release_lock(self.ticking.ended)
            raise RuntimeError("no thread can be started to end the epochs of an engine")

    def __exit__(self, *_):
        if self.running:
            self.running = False
            PyThread_release_lock(self.ticking.stop)
            if self.process == getpid():
                with nogil:
                    PyThread_acquire_lock(self.ticking.ended, True)
            PyThread_release_lock(self.ticking.ended)

    def __dealloc__(self):
        # An interruption may have come between __enter__ and the block that __exit__ ends.
        self.__exit__()
        PyThread_free_lock(self.ticking.stop)
        PyThread_free_lock(self.ticking.ended)


@cython.final
cdef class Raised:
    """In the place of a host function: what came out of a switch."""

    cdef object error

    def __init__(self, error):
        self.error = error

    def serve(self, fiber, store):
        try:
            raise self.error
        finally:
            self.error = None


@cython.final
@cython.no_gc_clear
cdef class Fiber:
    """One call into a guest, on a fiber of its own. Owns the future; ``keep_alive`` is what the future points to."""

    cdef request_t request
    cdef StoreState state
    cdef object keep_alive
    cdef bint short_bursts
    cdef unsigned char switches
    cdef long epoch  # in which the last host function was called from Python
    cdef ThrownException giving  # what the guest is to get
    cdef readonly ThrownException thrown
    """What the guest has thrown and not caught, which ended the call; or None."""
    cdef bint failing
    cdef public object given
    """The GuestException that the guest was given last, instead of a host function's result; or None."""

    def __init__(self, uintptr_t future, uintptr_t context, StoreState state not None, keep_alive, short_bursts=False):
        """``future`` and ``context`` are the addresses of a wasmtime_call_future_t and the store's context.

        ``short_bursts``: the guest gives control back at the end of each epoch, and calls nothing that may wait, so
        that it may run with the GIL held.
        """
        self.request.future = <void *>future
        self.request.context = <void *>context
        self.request.stacks = &state.stacks
        self.request.before_floor = state.floor is None
        self.state = state
        self.keep_alive = keep_alive
        self.short_bursts = short_bursts
        state.calls += 1

    def __dealloc__(self):
        self.close()

    def poll(self, environment):
        """Let the guest run until it calls a host function, which is returned, or has ended: None.

        `YIELDED` when it did neither, for an epoch has ended. Meanwhile nobody may call ``environment`` (which may be
        None), nor one that it is nested in. Raises what `StoreState.check` does.

        A switch to a context that has started is done right here, unless there is reason to come back to Python: signal
        handlers, and other threads that wait for the GIL, get their turn after 255 of these, or when an epoch has ended.
        """
        while True:
            function = self.poll_once(environment)
            if not self.request.is_switch or self.epoch != epochs or self.switches == 0:
                self.switches, self.epoch = 1, epochs
                return function
            self.switches += 1  # comes to 0 after 255
            try:
                if not self.switch_context(environment):
                    return function
            except BaseException as error:
                return Raised(error)

    cdef bint switch_context(self, environment) except -1:
        cdef request_t *request = &self.request
        if self.state.shadow_stacks is not None or self.given is not None or not isinstance(environment, Switching):
            return False
        if not (<Switching>environment)._is_plain:
            return False
        if not (<Switching>environment).switch_if_plain(<uint64_t>request.arguments[0].of.i64):
            return False
        request.results[0].kind, request.results[0].of.i32 = I32, 0
        request.answered = True
        return True

    cdef object poll_once(self, environment):
        cdef request_t *request = &self.request
        cdef StoreState state = self.state
        cdef summit_t summit
        cdef bint hold = self.short_bursts and not request.epoch_ended  # else it is in a long one
        if request.future == NULL:
            raise RuntimeError("this call has ended")
        state.enter(request, environment)
        self.forget_suspension()
        request.function = NULL
        request.is_switch = request.epoch_ended = False
        summit.run, summit.future, summit.done = run_future, request.future, False
        if hold:
            self.go_on(&summit)
        else:
            with nogil:
                self.go_on(&summit)
        state.leave(environment)
        if state.stacks.summit != NULL:
            state.stacks.summit = NULL
            raise RuntimeError("a call that is suspended in a host function has not come back to it")
        if summit.done:
            self.thrown = ThrownException.take(request.context) if wasmtime.context_has_exception(request.context) else None
            self.close()
            if lost:
                forget_lost()
            return None
        self.note_suspension()
        return YIELDED if request.epoch_ended else <object>request.function

    cdef void go_on(self, summit_t *summit) noexcept nogil:
        while True:
            if self.failing:
                run_future(summit)  # it will only unwind: its backtrace then shows no frames but its own
            elif not self.state.run(summit):
                return
            if summit.done or self.request.function != NULL or self.request.epoch_ended:
                return
            # Else it is in the middle of a collection. Nothing else may happen in the store until that is done.

    cdef void note_suspension(self) noexcept:
        """Let `StoreState.run` find the call if it is suspended in a host function."""
        cdef request_t *request = &self.request
        cdef request_t *first = request.stacks.first
        if request.function != NULL:
            # The one that began before there was a floor stays first, where it does no harm.
            request.previous = first if first != NULL and first.before_floor else NULL
            request.next = first if request.previous == NULL else request.previous.next
            if request.next != NULL:
                request.next.previous = request
            if request.previous != NULL:
                request.previous.next = request
            else:
                request.stacks.first = request
        elif request.epoch_ended:
            self.state.interrupted += 1

    cdef void forget_suspension(self) noexcept:
        cdef request_t *request = &self.request
        if request.function != NULL:
            if request.previous != NULL:
                request.previous.next = request.next
            else:
                request.stacks.first = request.next
            if request.next != NULL:
                request.next.previous = request.previous
            request.previous = request.next = NULL
        elif request.epoch_ended:
            self.state.interrupted -= 1

    cpdef void close(self) noexcept:
        """Delete the future. A guest that is still suspended unwinds, without running any more of its code."""
        global polled
        cdef void *future = self.request.future
        cdef void *outer = polled
        if future != NULL:
            self.forget_suspension()
            self.request.future = self.request.function = NULL
            self.request.epoch_ended = False
            polled = &self.state.nobody  # it unwinds on its fiber
            wasmtime.call_future_delete(future)
            polled = outer
            self.state.calls -= 1
            if self.thrown is None:
                self.given = None

    @property
    def caller(self):
        """The address of the host call's wasmtime_caller_t; valid until the guest goes on."""
        return <uintptr_t>self.request.caller

    def arguments(self, store):
        """The arguments of the host call, as Python values."""
        # Not a comprehension: Cython 3.3's releases the element twice when the list cannot grow.
        cdef tuple arguments = PyTuple_New(<Py_ssize_t>self.request.argument_count)
        for i in range(self.request.argument_count):
            value = value_of(&self.request.arguments[i], store)
            Py_INCREF(value)  # PyTuple_SET_ITEM takes a reference over
            PyTuple_SET_ITEM(arguments, <Py_ssize_t>i, value)
        return arguments

    def answer(self, bytes kinds not None, types, value, store):
        """Set the host call's results, of those types: None for none, the value for one, else a sequence of them.

        Raises TypeError, ValueError or OverflowError when ``value`` is not that; then only `fail` can follow.
        """
        cdef size_t count = self.request.result_count
        if count == 1:
            set_value(&self.request.results[0], <uint8_t>kinds[0], types, 0, value, store)
        elif count == 0:
            if value is not None:
                raise TypeError(f"it has no result but returned {value!r}")
        else:
            values = tuple(value)
            if <size_t>len(values) != count:
                raise ValueError(f"it has {count} results but returned {len(values)}")
            for i in range(count):
                set_value(&self.request.results[i], <uint8_t>kinds[i], types, i, values[i], store)
        self.request.answered = True

    def fail(self, bytes message not None):
        """Answer the host call with a trap, which no guest can catch."""
        self.request.trap[0] = wasmtime.trap_new(message, len(message))
        self.request.answered = self.failing = True

    def throw(self, given, ThrownException exception not None, bint loses_reference):
        """Answer the host call with an exception, which the guest may catch. It must be of the same store.

        ``loses_reference``: this wasmtime counts one reference too few to what it throws; so one is added.
        """
        self.request.exception_needs_another = loses_reference
        self.given, self.giving = given, exception
        self.request.exception = &exception.reference
        self.request.answered = True


cdef object value_of(const value_t *value, store):
    if value.kind == I32:
        return value.of.i32
    if value.kind == I64:
        return value.of.i64
    if value.kind == F32:
        return value.of.f32
    if value.kind == F64:
        return value.of.f64
    return load_reference(store, <uintptr_t>value)


cdef object set_value(value_t *slot, uint8_t kind, types, size_t index, value, store):
    # Integers may be given signed or unsigned; what is none (a float, which C would truncate) is a TypeError.
    if kind <= I64 and not isinstance(value, int):
        value = PyNumber_Index(value)
    if kind == I32:
        slot.of.i32 = <int32_t>value if value < 0 else <int32_t><uint32_t>value
    elif kind == I64:
        slot.of.i64 = <int64_t>value if value < 0 else <int64_t><uint64_t>value
    elif kind == F32:
        slot.of.f32 = <float>value
    elif kind == F64:
        slot.of.f64 = <double>value
    else:
        store_reference(store, types[index], value, <uintptr_t>slot)
        return
    slot.kind = kind
