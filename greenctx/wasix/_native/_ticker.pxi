# The end of an epoch, every so often.

cdef void tick(void *data) noexcept nogil:
    cdef ticking_t *ticking = <ticking_t *>data
    while not PyThread_acquire_lock_timed(ticking.stop, ticking.microseconds, False):
        wasmtime.engine_increment_epoch(ticking.engine)
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
        PyThread_acquire_lock(self.ticking.stop, True)
        PyThread_acquire_lock(self.ticking.ended, True)

    def __enter__(self):
        self.process = getpid()
        self.running = PyThread_start_new_thread(tick, &self.ticking) != <unsigned long>-1
        if not self.running:
            raise RuntimeError("no thread can be started to end the epochs of an engine")

    def __exit__(self, *_):
        if self.running:
            self.running = False
            PyThread_release_lock(self.ticking.stop)  # which the thread takes
            if self.process == getpid():
                with nogil:
                    PyThread_acquire_lock(self.ticking.ended, True)

    def __dealloc__(self):
        # An interruption may have come between __enter__ and the block that __exit__ ends.
        self.__exit__()
        PyThread_free_lock(self.ticking.stop)
        PyThread_free_lock(self.ticking.ended)
