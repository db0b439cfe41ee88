cdef class Switching:
    cdef object canceled  # the context that is being resumed to be canceled
    cdef object cancellation
    cdef public object _active, _caller, _main, _outer
    cdef public dict _started, _unstarted
    cdef public bint _main_can_start_others
    cdef public bint _is_plain

    cdef bint switch_if_plain(self, object context_id) except -1
