# What is known of a store, and what runs on top of its suspended calls.

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
    cdef public bint short_bursts
    """Whether its guests give control back at the end of each epoch, and call nothing that may wait."""

    def __init__(self, store_id, time_limit):
        self.store_id = store_id
        self.calls = 0  # those that have not ended
        self.time_limit = time_limit
        self.shadow_stacks = None
        self.floor = None
        self.stacks.ring.previous = self.stacks.ring.next = &self.stacks.ring

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
        self.enter(&self.stacks.ring, environment)
        with nogil:
            self.run(summit)
        self.leave(environment)

    cdef bint run(self, summit_t *summit) noexcept nogil:
        """Run it on top of the suspended calls if these may hold references; return whether that was possible."""
        if self.stacks.floor != NULL:
            self.stacks.summit = summit
            climb(&self.stacks.ring, &self.stacks)
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
