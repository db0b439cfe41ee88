# cython: language_level=3
"""The native part: everything that happens on a guest's fiber, and the poll that gets there.

No Python runs on a fiber. When the guest calls a host function, `on_host_call` notes the request in the call that is
being polled and leaves a continuation that is pending until the answer is there; wasmtime then suspends the fiber and
`Fiber.poll` returns to the context's greenlet, where Python runs the function. (With the callback in Python, any
exception before its first line, such as a RecursionError or a signal's KeyboardInterrupt, left wasmtime without a
continuation, and it aborted the process.)

This links to nothing. The functions of the wasmtime library that the Python package has loaded are passed to
`configure` by address, with the layout of its structures as that package knows it.
"""

cimport cython
from cpython.number cimport PyNumber_Index
from cpython.ref cimport Py_DECREF, Py_INCREF
from cpython.tuple cimport PyTuple_New, PyTuple_SET_ITEM
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t, uintptr_t

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
    enum { VALUE_OFFSET = offsetof(value_t, of) };

    /* wasmtime_async_continuation_t of wasmtime/async.h */
    typedef struct { bool (*callback)(void *); void *env; void (*finalizer)(void *); } continuation_t;

    /* what a guest asks of its host: the arguments of wasmtime_func_async_callback_t */
    typedef struct {
        void *function, *caller;
        const value_t *arguments; size_t argument_count;
        value_t *results; size_t result_count;
        void **trap;
        bool answered;
    } request_t;

    #if defined(_MSC_VER)
    #define THREAD_LOCAL __declspec(thread)
    #else
    #define THREAD_LOCAL _Thread_local
    #endif
    static THREAD_LOCAL request_t *polled;  /* the call that this thread is polling, if any */
    """
    ctypedef union value_union_t:  # has no name in C: only its members may be used
        int32_t i32
        int64_t i64
        float f32
        double f64
    ctypedef struct value_t:
        uint8_t kind
        value_union_t of
    ctypedef bint c_bool "bool"
    ctypedef struct continuation_t:
        c_bool (*callback)(void *) noexcept nogil
        void *env
        void (*finalizer)(void *) noexcept nogil
    ctypedef struct request_t:
        void *function
        void *caller
        const value_t *arguments
        size_t argument_count
        value_t *results
        size_t result_count
        void **trap
        c_bool answered
    request_t *polled
    size_t VALUE_OFFSET

cdef enum:  # wasmtime_valkind_t of wasmtime/val.h
    I32 = 0
    I64 = 1
    F32 = 2
    F64 = 3

cdef c_bool (*call_future_poll)(void *) noexcept nogil
cdef void (*call_future_delete)(void *) noexcept nogil
cdef void *(*trap_new)(const char *, size_t) noexcept nogil


cdef object guest, load_reference, store_reference


def configure(uintptr_t poll, uintptr_t delete, uintptr_t trap, size_t value_size, size_t value_offset,
              size_t continuation_size, guest_, load, store):
    """Take the addresses of wasmtime's functions; raise ImportError if the structures are not as they are here.

    ``guest_`` is the environment's caller while guest code runs. ``load(store, address)`` and
    ``store(store, type, value, address)`` convert the values that are not numbers.
    """
    global call_future_poll, call_future_delete, trap_new, guest, load_reference, store_reference
    found = (value_size, value_offset, continuation_size)
    built = (sizeof(value_t), VALUE_OFFSET, sizeof(continuation_t))
    if found != built:
        raise ImportError(f"this wasmtime package lays out its structures as {found}; greenctx was built for {built}")
    call_future_poll = <c_bool (*)(void *) noexcept nogil>poll
    call_future_delete = <void (*)(void *) noexcept nogil>delete
    trap_new = <void *(*)(const char *, size_t) noexcept nogil>trap
    guest, load_reference, store_reference = guest_, load, store


# On the fiber ---------------------------------------------------------------------------------------------------------

cdef c_bool is_answered(void *request) noexcept nogil:
    return (<request_t *>request).answered


cdef void on_host_call(void *function, void *caller, const value_t *arguments, size_t argument_count, value_t *results,
                       size_t result_count, void **trap, continuation_t *continuation) noexcept nogil:
    cdef request_t *request = polled
    request.function = function
    request.caller = caller
    request.arguments = arguments
    request.argument_count = argument_count
    request.results = results
    request.result_count = result_count
    request.trap = trap
    request.answered = False
    continuation.callback = is_answered
    continuation.env = request
    continuation.finalizer = NULL


# On the greenlet ------------------------------------------------------------------------------------------------------

cdef void release(void *function) noexcept with gil:
    Py_DECREF(<object>function)


def callback_addresses(function):
    """Give a reference to ``function`` away; return (callback, data, finalizer) for an async host function."""
    Py_INCREF(function)
    return <uintptr_t>&on_host_call, <uintptr_t><void *>function, <uintptr_t>&release


@cython.final
cdef class StoreState:
    """What is known of one store. Shared by all calls into it."""

    cdef readonly object store_id
    cdef readonly Py_ssize_t calls
    cdef public object time_limit
    cdef public object shadow_stacks
    cdef bint busy

    def __init__(self, store_id, time_limit):
        self.store_id = store_id
        self.calls = 0  # those that have not ended
        self.time_limit = time_limit
        self.shadow_stacks = None

    cpdef object check(self):
        """Raise CalledWithinGuest when this thread, or another thread in the store, is within guest code."""
        if polled != NULL:
            raise CalledWithinGuest("this thread is within guest code")
        if self.busy:
            raise CalledWithinGuest("another thread is within guest code of this store")


YIELDED = object()


@cython.final
@cython.no_gc_clear
cdef class Fiber:
    """One call into a guest, on a fiber of its own. Owns the future; ``keep_alive`` is what the future points to."""

    cdef void *future
    cdef request_t request
    cdef StoreState state
    cdef object keep_alive

    def __init__(self, uintptr_t future, StoreState state not None, keep_alive):
        self.future = <void *>future
        self.state = state
        self.keep_alive = keep_alive
        state.calls += 1

    def __dealloc__(self):
        self.close()

    def poll(self, environment):
        """Let the guest run until it calls a host function, which is returned, or has ended: None.

        `YIELDED` when it did neither (an epoch has ended). Meanwhile nobody may call ``environment`` (which may be
        None), nor one that it is nested in. Raises what `StoreState.check` does.
        """
        global polled
        cdef c_bool ended
        cdef object caller = None, outer = None, outer_callers = None
        if self.future == NULL:
            raise RuntimeError("this call has ended")
        self.state.check()
        if environment is not None:
            caller = environment._caller
            environment._caller = guest
            outer = environment._outer
            if outer is not None:
                outer_callers = outer._enter_guest()
        self.request.function = NULL
        self.state.busy = True
        polled = &self.request
        with nogil:
            ended = call_future_poll(self.future)
        polled = NULL
        self.state.busy = False
        if environment is not None:
            environment._caller = caller
            if outer is not None:
                outer._leave_guest(outer_callers)
        if ended:
            self.close()
            return None
        return YIELDED if self.request.function == NULL else <object>self.request.function

    cpdef void close(self) noexcept:
        """Delete the future. A guest that is still suspended unwinds, without running any more of its code."""
        cdef void *future = self.future
        self.future = NULL
        if future != NULL:
            call_future_delete(future)
            self.state.calls -= 1

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
        self.request.trap[0] = trap_new(message, len(message))
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
