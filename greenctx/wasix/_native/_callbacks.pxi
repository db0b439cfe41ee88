# What wasmtime calls, on the fiber of a guest.

cdef c_bool is_answered(void *data) noexcept nogil:
    cdef request_t *request = <request_t *>data
    if request.suspensions.gc_task != NULL:
        resume_next(request, request.suspensions)
        return False
    if request.exception != NULL:
        # Here, so that nothing can come between this and the guest: until then it is a property of the store.
        request.trap[0] = wasmtime.context_set_exception(request.context, request.exception)
        request.exception = NULL
    return request.answered


cdef void resume_next(request_t *below, suspensions_t *suspensions) noexcept nogil:
    """From that one to the next suspended one, to the floor after all of them, or to the gc_task."""
    cdef gc_task_t *gc_task
    if below == suspensions.anchor:
        gc_task, suspensions.gc_task = suspensions.gc_task, NULL
        gc_task.run(gc_task)
        return
    # Which comes to is_answered, and stays pending.
    wasmtime.call_future_poll((suspensions.anchor if below.next == &suspensions.ring else below.next).future)


cdef void run_future(gc_task_t *gc_task) noexcept nogil:
    gc_task.done = wasmtime.call_future_poll(gc_task.future)


cdef void run_collector(gc_task_t *gc_task) noexcept nogil:
    cdef void *error = wasmtime.context_gc(gc_task.context)
    if error != NULL:
        wasmtime.error_delete(error)


cdef void run_externref_new(gc_task_t *gc_task) noexcept nogil:
    gc_task.done = wasmtime.externref_new(gc_task.context, gc_task.handle, <void *>on_loss, gc_task.reference)


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


cdef void release(void *function) noexcept with gil:
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
    """Let go of the objects that guests have lost. May raise KeyboardInterrupt."""
    cdef list taken = lost[:]  # a `__del__` may call guests, which come here again
    lost.clear()
    try:
        while taken:
            forget(taken.pop())
    finally:
        lost.extend(taken)
