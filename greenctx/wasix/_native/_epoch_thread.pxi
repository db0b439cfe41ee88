# The thread that ends an engine's epoch every so often.

cdef void end_epochs(void *data) noexcept nogil:
    cdef epoch_thread_t *thread = <epoch_thread_t *>data
    while not PyThread_acquire_lock_timed(thread.stop, thread.microseconds, False):
        wasmtime.engine_increment_epoch(thread.engine)
    PyThread_release_lock(thread.ended)


@cython.final
cdef class EpochThread:
    """Ends an engine's epoch every so often while it is entered, in a thread that needs no GIL."""

    cdef epoch_thread_t thread
    cdef object engine
    cdef readonly bint running
    cdef object process  # which the thread is a thread of: a fork has none

    def __cinit__(self, engine, uintptr_t address, long microseconds):
        """``address`` is that of the engine's wasm_engine_t."""
        self.engine = engine
        self.thread.engine = <void *>address
        self.thread.microseconds = microseconds
        self.thread.stop = PyThread_allocate_lock()
        self.thread.ended = PyThread_allocate_lock()
        PyThread_acquire_lock(self.thread.stop, True)
        PyThread_acquire_lock(self.thread.ended, True)

    def __enter__(self):
        self.process = getpid()
        self.running = PyThread_start_new_thread(end_epochs, &self.thread) != <unsigned long>-1
        if not self.running:
            raise RuntimeError("no thread can be started to end the epochs of an engine")

    def __exit__(self, *_):
        if self.running:
            self.running = False
            PyThread_release_lock(self.thread.stop)  # which the thread takes
            if self.process == getpid():
                with nogil:
                    PyThread_acquire_lock(self.thread.ended, True)

    def __dealloc__(self):
        # An interruption may have come between __enter__ and the block that __exit__ ends.
        self.__exit__()
        PyThread_free_lock(self.thread.stop)
        PyThread_free_lock(self.thread.ended)
