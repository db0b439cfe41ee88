# The state of a store; the check of who may use it now; and collections, which run on top of its suspended calls.

@cython.final
cdef class ThrownException:
    """Owns a reference to a guest's exception, which keeps it from being collected."""

    cdef reference_t reference
    cdef readonly uintptr_t address
    """The address of a wasmtime_exnref_t."""

    @staticmethod
    cdef ThrownException take(void *context):
        """Take the exception that a guest has just ended with."""
        cdef ThrownException exception = ThrownException()
        # wasmtime_context_take_exception leaves a second reference in the innermost LIFO scope that is open; for good,
        # if none is. Each future opens such a scope (RootScope in crates/c-api/src/async.rs). So a future is made here
        # and deleted again. Its function does not matter, because it is never polled.
        cdef uint64_t[4] function = [1, 0, 0, 0]
        cdef void *trap = NULL
        cdef void *error = NULL
        cdef void *scope = wasmtime.func_call_async(context, function, NULL, 0, NULL, 0, &trap, &error)
        wasmtime.context_take_exception(context, &exception.reference)
        exception.address = <uintptr_t>&exception.reference
        wasmtime.call_future_delete(scope)
        return exception

    def __dealloc__(self):
        wasmtime.exnref_unroot(&self.reference)


cdef class Fiber

@cython.final
cdef class StoreState:
    """The state of one store, shared by all calls into it. The store refers to it, so it never refers to the store."""

    cdef object __weakref__
    cdef readonly object store_id
    cdef readonly Py_ssize_t calls  # that have begun and not ended
    cdef public object on_last_end
    """Called once no call is left: deletes a store that is collected together with its calls. None while there is none."""
    cdef public object deadline
    cdef public object shadow_stacks
    cdef public object process
    """The record of higher layers about the program in the store; None until they set it."""
    cdef public object timers
    """The timers that the program has set, which may have signals for it; None while it has set none."""
    cdef direct_t *direct  # of `direct_descriptors`
    cdef DirectDescriptors direct_descriptors
    cdef readonly object yielding_switch
    """What guests import that yield to switch: see _callbacks.pxi. None until there is such a guest."""
    cdef readonly Fiber gc_anchor
    """None unless guests in the store may hold references to collected objects on their stacks."""
    cdef unsigned short switches  # that `Fiber.poll` has done since Python had its turn
    cdef bint busy  # a thread is within guest code of the store, or within its collector
    cdef void **polled  # the address of that thread's variable
    cdef Fiber abandoned  # calls to close that other threads have left to that thread
    cdef Fiber closed  # those of them that are closed, and are to be dropped where any code may run
    cdef object callers  # what `enter` has replaced: the active greenlet of the environment, and of the outer ones
    cdef suspensions_t suspensions
    cdef void *found[256]  # calls that `find_waiting` has found, borrowed, by the last byte of the context's id
    cdef Py_ssize_t interrupted  # calls that an epoch's end has suspended: not in a host function, so not in the ring
    cdef public bint defers_switches
    """Whether the greenlet of one context may run the guest of another. Tests and benchmarks turn it off."""
    cdef public bint holds_gil
    """Whether guests run with the GIL held: they give it back at the end of each epoch, and call nothing that waits."""

    def __init__(self, store_id, deadline):
        self.store_id, self.deadline, self.defers_switches = store_id, deadline, True
        self.suspensions.ring.previous = self.suspensions.ring.next = &self.suspensions.ring

    def call_directly(self, DirectDescriptors descriptors not None):
        """Let guests in the store make calls directly, for those descriptors."""
        self.direct_descriptors, self.direct = descriptors, &descriptors.table
    def yield_to_switch(self, yielding_switch not None, uintptr_t has_answer):
        """``yielding_switch`` keeps the wasmtime_global_t alive whose address is ``has_answer``."""
        self.suspensions.has_answer, self.yielding_switch = <void *>has_answer, yielding_switch

    def set_anchor(self, Fiber fiber not None):
        """Allow guests that hold references. ``fiber`` is suspended in a host function that never returns."""
        fiber.forget_suspension()  # it is no link of the ring, but the end of it
        self.calls -= 1  # the anchor must not keep the store from being closed
        self.gc_anchor = fiber
        self.suspensions.anchor = &fiber.request

    def remove_anchor(self):
        """End the anchor's call, before the store is deleted. There must be no other call."""
        cdef Fiber fiber = self.gc_anchor
        if fiber is not None:
            self.suspensions.anchor, self.gc_anchor = NULL, None
            self.calls += 1
            fiber.close()

    cdef void end_call(self) noexcept:
        """Count a call that has ended."""
        self.calls -= 1
        if self.calls == 0 and self.on_last_end is not None:
            on_last_end, self.on_last_end = self.on_last_end, None
            on_last_end()

    cpdef object check(self):
        """Raise CalledWithinGuest when this thread, or another thread in the store, is within guest code."""
        if polled != NULL:
            raise CalledWithinGuest("this thread is within guest code")
        if self.busy:
            raise CalledWithinGuest("another thread is within guest code of this store")

    def collect(self, uintptr_t context, environment):
        """Run the collector. ``context`` is the address of the store's wasmtime_context_t. Raises as `check` does."""
        cdef gc_task_t gc_task
        gc_task.run, gc_task.context = run_collector, <void *>context
        self.run_gc_task(&gc_task, environment)
        forget_lost()

    def new_externref(self, uintptr_t context, uintptr_t handle, uintptr_t reference, environment):
        """Call wasmtime_externref_new, which may collect; return whether it succeeded. Raises as `check` does."""
        cdef gc_task_t gc_task
        gc_task.run, gc_task.context = run_externref_new, <void *>context
        gc_task.handle, gc_task.reference = <void *>handle, <reference_t *>reference
        self.run_gc_task(&gc_task, environment)
        return gc_task.done

    cdef object run_gc_task(self, gc_task_t *gc_task, environment):
        """Run something that may collect, with the store marked as busy."""
        cdef Switching switching = compiled(environment)
        self.enter(&self.suspensions.ring, &polled, environment, switching)
        with nogil:
            self.run(gc_task)
        self.leave(environment, switching)
        self.let_go()

    cdef bint run(self, gc_task_t *gc_task) noexcept nogil:
        """Run the task, on top of the suspended calls if these may hold references; return whether it has run."""
        if self.suspensions.anchor != NULL:
            self.suspensions.gc_task = gc_task
            resume_next(&self.suspensions.ring, &self.suspensions)
        else:
            gc_task.run(gc_task)
        return self.suspensions.gc_task == NULL

    cdef bint enter(self, request_t *request, void **polled, environment, Switching switching) except -1:
        """Mark the store, the thread and the environments, before a guest runs or a collection. Raises as `check` does.

        ``polled`` is the address of this thread's variable.
        """
        while lost or self.closed is not None or polled[0] != NULL or self.busy:
            self.check()
            self.forget_lost()
        # A guest that an epoch's end has suspended has no continuation of ours that could resume the next call, so the
        # collector could not see its stack. Only that guest itself may go on then.
        if self.gc_anchor is not None and self.interrupted > <Py_ssize_t>request.epoch_ended:
            raise CalledWithinGuest("a guest of this store was interrupted in the middle of its code")
        # From here on nothing is called whose interruption could leave the marks half made.
        if switching is not None and switching._outer is None:
            self.callers, switching._admitted = switching._admitted, guest
        else:
            self.callers = callers_of(environment)
            while environment is not None:
                environment._admitted, environment = guest, environment._outer
        self.busy = True
        self.polled = polled
        polled[0] = request

    cdef bint leave(self, environment, Switching switching) except -1:
        """Undo `enter`, and close what other threads have left to this one."""
        self.polled[0] = NULL
        self.busy = False
        callers, self.callers = self.callers, None
        if switching is not None and switching._outer is None:
            switching._admitted = callers
        else:
            while callers is not None:
                environment._admitted, callers = callers
                environment = environment._outer
        if self.abandoned is not None:
            self.close_abandoned()

    cdef void close_abandoned(self) noexcept:
        # They are kept until `let_go`: dropping the last reference to an object may run any code, and the callers of
        # this function are in the middle of theirs.
        cdef Fiber fiber
        while self.abandoned is not None:
            fiber = self.abandoned
            fiber.delete_future()
            self.abandoned, fiber.next, self.closed = fiber.next, self.closed, fiber

    cdef void let_go(self) noexcept:
        cdef Fiber fiber
        while self.closed is not None:
            fiber = self.closed
            self.closed, fiber.next = fiber.next, None

    cpdef object forget_lost(self):
        """Drop what was kept until now: closed calls, and objects that guests have lost.

        Their ``__del__`` may call guests, and may raise KeyboardInterrupt.
        """
        self.let_go()
        forget_lost()


# Neither these two functions nor `leave`, nor `enter` after its checks, call a function written in Python. CPython
# looks for signals at the beginning of such a function, and KeyboardInterrupt would leave the marks half made.

cdef Switching compiled(environment):
    """Return the environment if its switch is compiled: not None, nor one of the pure-Python core."""
    return environment if isinstance(environment, Switching) else None


cdef tuple callers_of(environment):
    """Return the active greenlet of the environment, and of each that it is nested in: (innermost, (next, ...))."""
    return None if environment is None else (environment._admitted, callers_of(environment._outer))
