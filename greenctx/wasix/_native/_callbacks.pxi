# Functions that wasmtime calls. All of them may run on a guest's fiber, so they call no Python, and take the GIL only
# to drop or to note a reference. On a fiber nothing may raise: see _fiber.pyx.

cdef c_bool is_answered(void *data) noexcept nogil:
    """The continuation of a host call: wasmtime asks at each poll whether the call may return to the guest."""
    cdef request_t *request = <request_t *>data
    if request.suspensions.gc_task != NULL:
        resume_next(request, request.suspensions)
        return False
    if request.answered:
        request.trap[0] = trap_of(request)
    return request.answered


cdef void *trap_of(request_t *request) noexcept nogil:
    """Return the wasm_trap_t with which the host call is to end now; NULL if it is to return results."""
    cdef const char *message = b"host function raised an exception"
    cdef const reference_t *exception = request.exception
    # Not made in `throw`: until the guest runs, the exception is the store's property, and another call that ran in
    # between would end with it.
    if exception != NULL:
        request.exception = NULL
        return wasmtime.context_set_exception(request.context, exception)
    return wasmtime.trap_new(message, strlen(message)) if request.failing else NULL


cdef void resume_next(request_t *below, suspensions_t *suspensions) noexcept nogil:
    """Resume the next suspended call on top of ``below``; after all of them the anchor; on top of that the gc_task."""
    cdef gc_task_t *gc_task
    if below == suspensions.anchor:
        gc_task, suspensions.gc_task = suspensions.gc_task, NULL
        gc_task.run(gc_task)
        return
    # The future's continuation is `is_answered`, which comes here again, and leaves the future pending.
    wasmtime.call_future_poll((suspensions.anchor if below.next == &suspensions.ring else below.next).future)


cdef void run_future(gc_task_t *gc_task) noexcept nogil:
    gc_task.done = wasmtime.call_future_poll(gc_task.future)


cdef void run_collector(gc_task_t *gc_task) noexcept nogil:
    cdef void *error = wasmtime.context_gc(gc_task.context)
    if error != NULL:
        wasmtime.error_delete(error)


cdef void run_externref_new(gc_task_t *gc_task) noexcept nogil:
    gc_task.done = wasmtime.externref_new(gc_task.context, gc_task.handle, <void *>on_loss, gc_task.reference)


# wasmtime keeps arguments and results in a buffer of its own (hostcall_val_storage in crates/c-api/src/async.rs), which
# stays where it is until the continuation is done. So the pointers are good until then, on another stack, too.
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
    (<request_t *>continuation.env).is_switch = True


cdef void *on_epoch_end(void *context, void *data, uint64_t *delta, uint8_t *kind) noexcept nogil:
    cdef request_t *request = <request_t *>polled
    delta[0] = 1  # the next time at the end of the next epoch
    kind[0] = 1  # WASMTIME_UPDATE_DEADLINE_YIELD of wasmtime/store.h
    if request == NULL or request.yields:  # NULL: the guest was entered by plain wasmtime
        return NULL
    request.suspensions.epochs_seen = ended_epochs
    if request.is_calling_directly:
        # wasmtime cannot suspend a fiber within a host function that it is still calling. `is_done` makes up for it.
        request.epoch_pending = True
        kind[0] = 0  # WASMTIME_UPDATE_DEADLINE_CONTINUE
    else:
        request.epoch_ended = True
    return NULL


cdef void on_loss(void *handle) noexcept with gil:
    """The finalizer of a guest's reference to a Python object, which wasmtime's collector calls."""
    # Dropping the object may run its `__del__`. On a fiber it is only noted; `forget_lost` drops it on a greenlet.
    if polled == NULL:
        forget(<uintptr_t>handle)
    else:
        lost.append(<uintptr_t>handle)


cdef void release(void *function) noexcept with gil:
    """The finalizer of a host function: wasmtime deletes the last linker or store that has it."""
    Py_DECREF(<object>function)


def callback_addresses(function, is_switch=False):
    """Give a reference to ``function`` away; return (callback, data, finalizer) for an async host function.

    ``is_switch``: it is WASIX's context_switch, which `Fiber.poll` may do by itself.
    """
    Py_INCREF(function)
    return (<uintptr_t>&on_context_switch if is_switch else <uintptr_t>&on_host_call,
            <uintptr_t><void *>function, <uintptr_t>&release)


ON_EPOCH_END = <uintptr_t>&on_epoch_end
"""A callback for wasmtime_store_epoch_deadline_callback, with which a guest yields at the end of each epoch."""


cdef object forget_lost():
    """Drop the objects that guests have lost. Their ``__del__`` may raise KeyboardInterrupt: the rest stay noted."""
    cdef list taken = lost[:]  # a copy: a `__del__` may call guests, and then this function is called again
    lost.clear()
    try:
        while taken:
            forget(taken.pop())
    finally:
        lost.extend(taken)


# Yielding to switch.
#
# WASIX's context_switch for guests that give control back at the end of each epoch. The guest is suspended as at such an
# end, which takes half the time of an asynchronous host call.
#
# What such a guest imports as context_switch is a function of a small module, see yielding_switch.py. It calls
# `on_switch_request`, which sets the store's deadline to the current epoch. Then it calls another function of its module:
# at the entry of each function wasmtime compares the epoch with the deadline, calls `on_epoch_end`, and suspends the
# fiber. When the fiber is resumed, that function returns 0, which is success. If there is anything else to tell the guest,
# the global `has_answer` is set, and the function calls `on_switch_answer`, and returns what that returns.
#
# Each time, wasmtime puts off the deadline until the current epoch ends. A guest that switches more often than that would
# never be suspended by the end of an epoch. So if an epoch has ended unseen, the deadline is set again.

cdef void *on_switch_request(void *function, void *caller, int64_t *values, size_t count) noexcept nogil:
    """Note the request. Return to the guest whether it is to yield; if not, it makes an asynchronous host call."""
    cdef request_t *request = <request_t *>polled
    # With an anchor, a call must be suspended where a collection can resume it: see `resume_next`.
    cdef c_bool yields = request != NULL and request.suspensions.anchor == NULL
    if yields:
        request.own_argument.kind, request.own_argument.of.i64 = 1, values[0]  # WASMTIME_I64 of wasmtime/val.h
        request.function, request.caller = function, NULL
        request.arguments, request.argument_count = &request.own_argument, 1
        request.results, request.result_count = &request.own_result, 1
        request.is_switch, request.answered, request.yields = True, False, True
        wasmtime.context_set_epoch_deadline(request.context, 0)
    (<int32_t *>values)[0] = yields
    return NULL


cdef inline void end_yield(request_t *request) noexcept nogil:
    """The guest is about to go on with the answer."""
    cdef value_t true
    request.yields = False
    if (request.own_result.of.i32 != 0 or request.exception != NULL or request.failing
            or request.suspensions.epochs_seen != ended_epochs):
        true.kind, true.of.i32 = 0, 1  # WASMTIME_I32
        wasmtime.global_set(request.context, request.suspensions.has_answer, &true)


cdef void *on_switch_answer(void *data, void *caller, int64_t *values, size_t count) noexcept nogil:
    """Return the answer to the guest."""
    cdef request_t *request = <request_t *>polled
    if request.suspensions.epochs_seen != ended_epochs:
        wasmtime.context_set_epoch_deadline(request.context, 0)
    (<int32_t *>values)[0] = request.own_result.of.i32
    return trap_of(request)


def yielding_addresses(function):
    """Give a reference to ``function`` away, the host function context_switch.

    Return (request, answer, data, finalizer) for two unchecked functions: (i64) -> i32, and () -> i32. The data, and its
    finalizer, are for the first.
    """
    Py_INCREF(function)
    return <uintptr_t>&on_switch_request, <uintptr_t>&on_switch_answer, <uintptr_t><void *>function, <uintptr_t>&release
