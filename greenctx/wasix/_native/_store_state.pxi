# What is known of a store, and what runs on top of its suspended calls.

@cython.final
cdef class ThrownException:
    """Owns a reference to an exception of a guest's, which keeps it from being collected."""

    cdef reference_t reference
    cdef readonly uintptr_t address
    """The address of a wasmtime_exnref_t."""

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
        exception.address = <uintptr_t>&exception.reference
        wasmtime.call_future_delete(scope)
        return exception

    def __dealloc__(self):
        wasmtime.exnref_unroot(&self.reference)


cdef class Fiber


@cython.final
cdef class StoreState:
    """All that is known of one store. Shared by all calls into it. It must not refer to the store, which refers to it."""

    cdef object __weakref__
    cdef readonly object store_id
    cdef readonly Py_ssize_t calls  # those that have not ended
    cdef public object deadline
    cdef public object shadow_stacks
    cdef public object process
    """What higher layers know of the program in the store; None until they do."""
    cdef readonly Fiber gc_anchor
    """None unless guests in the store may hold references to collected objects on their stacks."""
    cdef unsigned char switches  # that were done without Python since it last had its turn
    cdef bint busy
    cdef void **polled  # of the thread that uses it
    cdef Fiber abandoned, closed  # calls that other threads were to close meanwhile; those that since are
    cdef object callers  # of the environment, and those it is nested in, while a guest runs
    cdef suspensions_t suspensions
    cdef Py_ssize_t interrupted  # calls that are suspended elsewhere than in a host function
    cdef public bint holds_gil
    """Whether its guests give control back at the end of each epoch, and call nothing that may wait."""

    def __init__(self, store_id, deadline):
        self.store_id, self.deadline = store_id, deadline
        self.suspensions.ring.previous = self.suspensions.ring.next = &self.suspensions.ring

    def set_anchor(self, Fiber fiber not None):
        """From now on such guests may come. ``fiber`` is suspended in a host function, and nobody will answer."""
        fiber.forget_suspension()
        self.calls -= 1  # which are those that others make
        self.gc_anchor = fiber
        self.suspensions.anchor = &fiber.request

    def remove_anchor(self):
        """They are gone, with all the others."""
        cdef Fiber fiber = self.gc_anchor
        if fiber is not None:
            self.suspensions.anchor, self.gc_anchor = NULL, None
            self.calls += 1
            fiber.close()

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
        """Run something that may collect."""
        cdef Switching switching = compiled(environment)
        self.enter(&self.suspensions.ring, &polled, environment, switching)
        with nogil:
            self.run(gc_task)
        self.leave(environment, switching)
        self.let_go()

    cdef bint run(self, gc_task_t *gc_task) noexcept nogil:
        """Run it on top of the suspended calls if these may hold references; return whether that was possible."""
        if self.suspensions.anchor != NULL:
            self.suspensions.gc_task = gc_task
            resume_next(&self.suspensions.ring, &self.suspensions)
        else:
            gc_task.run(gc_task)
        return self.suspensions.gc_task == NULL

    cdef bint enter(self, request_t *request, void **polled, environment, Switching switching) except -1:
        """What comes before a guest runs, or anything else on a fiber. ``polled`` is this thread's. Raises as `check`."""
        while lost or self.closed is not None or polled[0] != NULL or self.busy:
            self.check()
            self.forget_lost()
        if self.gc_anchor is not None and self.interrupted > <Py_ssize_t>request.epoch_ended:
            raise CalledWithinGuest("a guest of this store was interrupted in the middle of its code")
        if switching is not None and switching._outer is None:
            self.callers, switching._caller = switching._caller, guest
        else:
            self.callers = callers_of(environment)
            while environment is not None:
                environment._caller, environment = guest, environment._outer
        self.busy = True
        self.polled = polled
        polled[0] = request

    cdef bint leave(self, environment, Switching switching) except -1:
        self.polled[0] = NULL
        self.busy = False
        callers, self.callers = self.callers, None
        if switching is not None and switching._outer is None:
            switching._caller = callers
        else:
            while callers is not None:
                environment._caller, callers = callers
                environment = environment._outer
        if self.abandoned is not None:
            self.close_abandoned()

    cdef void close_abandoned(self) noexcept:
        # They are kept until `let_go`: with the last reference to an object goes any code, and this one is in the middle
        # of what it does.
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
        """Let go of the objects that were kept until now, as guests have lost them, or calls. Their ``__del__`` may call
        guests. May raise KeyboardInterrupt.
        """
        self.let_go()
        forget_lost()


# Neither these nor leave, nor enter after its checks, call a function of Python's, at whose beginning a signal's
# KeyboardInterrupt could leave them half done.

cdef Switching compiled(environment):
    """It, unless it is None, or one of the pure-Python path."""
    return environment if isinstance(environment, Switching) else None


cdef tuple callers_of(environment):
    """The caller of that environment, and then those of the environments that it is nested in."""
    return None if environment is None else (environment._caller, callers_of(environment._outer))
