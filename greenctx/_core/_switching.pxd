from cpython.object cimport PyObject
from libc.stdint cimport uint64_t


cdef class Tables:
    cdef public dict by_greenlet, started, unstarted, unwinding
    cdef public Py_ssize_t next_id

    cdef PyObject *take_unstarted(self, object context_id) except NULL


cdef class Coroutine:
    cdef public object cancellation, context_id, created_at, destroyer, entrypoint, greenlet
    cdef public Tables registry
    cdef public Py_ssize_t switches
    cdef bint is_in_switch
    # The guest call that waits in its context_switch for this context to be resumed (borrowed), or NULL. Another
    # context's greenlet may run that guest meanwhile. greenctx.wasix sets it, and each resumption of this context
    # resets it.
    cdef void *guest_call

    cdef bint end(self, PyObject *result) except -1


cdef enum:
    NOT_DONE = -2

# Does a guest's context_switch, if it is plain, and tells instruments of it. Returns the errno for the guest; or NOT_DONE,
# and then nothing was told. ``call`` is None, or a pair: the name by which the switch is also told as a host call, and the
# Python function that does a switch which is not plain any more.
ctypedef int (*told_switch_t)(Switching, object caller, uint64_t context_id, tuple call) except -1


cdef class Switching:
    cdef told_switch_t told_switch  # of environments with instruments; else NULL
    cdef Coroutine canceled  # the context that is resumed in order to be canceled
    cdef object cancellation
    cdef public Coroutine _active, _main
    cdef public object _admitted, _outer
    cdef public Tables _registry
    cdef public bint _main_can_start_others
    cdef public bint _is_plain

    cdef bint switch_if_plain(self, object caller, object context_id, void *guest_call) except -1
    cdef PyObject *find_started(self, object context_id) noexcept
    cdef bint resume(self, Coroutine me, Coroutine target, void *guest_call) except -1
    cdef bint _woken_by_other(self, Coroutine me) except -1


cdef object calling_greenlet()
