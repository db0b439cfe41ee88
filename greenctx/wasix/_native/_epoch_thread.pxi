# Time: the thread that ends an engine's epoch every so often, and a clock.

cdef void end_epochs(void *data) noexcept nogil:
    global ended_epochs
    cdef epoch_thread_t *thread = <epoch_thread_t *>data
    while not PyThread_acquire_lock_timed(thread.stop, thread.microseconds, False):
        wasmtime.engine_increment_epoch(thread.engine)
        ended_epochs += 1
    PyThread_release_lock(thread.ended)


@cython.final
cdef class EpochThread:
    """Ends an engine's epoch every so often while it is entered, in a thread that needs no GIL.

    A Python thread would wait for the GIL, which a guest may hold until the epoch ends.
    """

    cdef epoch_thread_t thread
    cdef object engine  # a handle that no other code can close
    cdef readonly bint running
    cdef object process  # the id of the process that has the thread: its forks have none, and must not wait for one
    cdef unsigned long entered_by
    cdef object __weakref__, reference

    def __cinit__(self, engine, uintptr_t address, long microseconds):
        """``address`` is that of the engine's wasm_engine_t."""
        self.engine = engine
        self.thread.engine = <void *>address
        self.thread.microseconds = microseconds
        self.allocate_locks()

    cdef void allocate_locks(self):
        self.thread.stop = PyThread_allocate_lock()
        self.thread.ended = PyThread_allocate_lock()
        PyThread_acquire_lock(self.thread.stop, True)
        PyThread_acquire_lock(self.thread.ended, True)

    def __enter__(self):
        self.entered_by = PyThread_get_thread_ident()
        self.start()
        self.reference = ref(self, entered.discard)
        entered.add(self.reference)

    cdef int start(self) except -1:
        self.process = getpid()
        self.running = PyThread_start_new_thread(end_epochs, &self.thread) != <unsigned long>-1
        if not self.running:
            raise ResourcesExhausted(EAGAIN)

    def __exit__(self, *_):
        entered.discard(self.reference)
        self.end()

    cdef void end(self) noexcept:
        if self.running:
            self.running = False
            PyThread_release_lock(self.thread.stop)  # the thread takes it, and ends
            if self.process == getpid():
                with nogil:
                    PyThread_acquire_lock(self.thread.ended, True)

    def __dealloc__(self):
        # KeyboardInterrupt may come after __enter__ and before the `with` block that would call __exit__. That is not
        # called here, because Python's arguments for it would refer to this object, and within a long chain of
        # deallocations CPython lets go of such a tuple only afterwards (its trashcan), when this object is freed.
        self.end()
        PyThread_free_lock(self.thread.stop)
        PyThread_free_lock(self.thread.ended)


cdef set entered = set()
"""References to the entered threads. (Not the objects: an interruption may have left them entered.)"""


def restart_epoch_threads():
    """In a child of a fork, start those threads again whose runs go on in the child: the forking thread's."""
    cdef EpochThread one
    for reference in entered.copy():
        one = reference()
        if one is not None and one.entered_by == PyThread_get_thread_ident():
            one.allocate_locks()  # the former locks stay as they were at the fork
            one.start()


# A clock that no code can stop: freezegun, for example, replaces `time.monotonic` in every module that refers to it.

cdef extern from *:
    """
    #ifdef _WIN32
    #include <windows.h>
    static double monotonic_seconds(void) {
        LARGE_INTEGER now, frequency;
        QueryPerformanceCounter(&now);
        QueryPerformanceFrequency(&frequency);
        return (double)now.QuadPart / (double)frequency.QuadPart;
    }
    #else
    #include <time.h>
    static double monotonic_seconds(void) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
    }
    #endif
    """
    double monotonic_seconds() noexcept nogil


def monotonic():
    """Return the seconds since some moment, as the original `time.monotonic` does."""
    return monotonic_seconds()
