# The part of wasmtime's C API that greenctx uses, and the record of a call into a guest. Structures are as in the
# headers of wasmtime 45 to 50; calls.py compares their sizes with the installed package's.

cdef extern from *:
    """
    #include <stdbool.h>
    #if defined(_MSC_VER)
    #define THREAD_LOCAL __declspec(thread)
    #else
    #define THREAD_LOCAL _Thread_local
    #endif
    static THREAD_LOCAL void *polled;  /* the request_t of the call that this thread is polling, if any */
    static volatile unsigned long ended_epochs;  /* of all engines; two at a time may count as one */
    """
    unsigned long ended_epochs
    ctypedef bint c_bool "bool"
    void *polled

cdef extern from "pythread.h":
    bint PyThread_acquire_lock_timed(PyThread_type_lock, long long microseconds, int interruptibly) nogil
    unsigned long PyThread_start_new_thread(void (*)(void *) noexcept nogil, void *)
    unsigned long PyThread_get_thread_ident()

# wasmtime_val_t of wasmtime/val.h, and its union
cdef union value_union_t:
    int32_t i32
    int64_t i64
    uint64_t[3] references  # never looked into; they give the union its size
cdef struct value_t:
    uint8_t kind
    value_union_t of

# wasmtime_async_continuation_t of wasmtime/async.h
cdef struct continuation_t:
    c_bool (*callback)(void *) noexcept nogil
    void *env
    void (*finalizer)(void *) noexcept nogil

# wasmtime_exnref_t and wasmtime_externref_t of wasmtime/val.h
cdef struct reference_t:
    uint64_t store_id
    uint32_t private1, private2
    void *private3

# wasmtime_memory_t, wasmtime_func_t and wasmtime_extern_t of wasmtime/extern.h, wasmtime_val_raw_t of wasmtime/val.h
cdef struct memory_t:
    uint64_t store_id
    uint32_t private1, padding1, private2, padding2
cdef struct func_t:
    uint64_t store_id
    void *private
cdef struct extern_t:
    uint8_t kind
    memory_t memory  # the largest member of a union
cdef union raw_value_t:
    int32_t i32
    int64_t i64
    uint64_t[2] v128

# What a guest asks of its host, the arguments of wasmtime_func_async_callback_t; and how the guest is suspended.
cdef struct request_t:
    void *function
    void *caller
    const value_t *arguments
    size_t argument_count
    value_t *results
    size_t result_count
    void **trap
    c_bool is_switch  # the function is WASIX's context_switch
    c_bool yields  # and the guest is suspended by a yield that it asked for: see _callbacks.pxi
    c_bool answered  # the results are there, or the exception, or the call is failing
    c_bool failing  # the guest is to trap, or to unwind, and runs no code any more
    const reference_t *exception  # what to throw in the guest instead of going on, if anything
    value_t own_argument, own_result  # what `arguments` and `results` point to while it yields
    c_bool epoch_ended  # the end of an epoch has suspended the guest, not a host function
    c_bool before_anchor  # the call began when the store had no anchor yet
    void *context
    void *future
    suspensions_t *suspensions
    direct_t **direct  # the variable of the store's state
    c_bool holds_gil  # the guest runs with the GIL held
    c_bool is_calling_directly  # a function of wasmtime's: see _direct_calls.pxi
    c_bool epoch_pending  # an epoch has ended during that call
    request_t *previous  # in the ring of the store's suspended calls
    request_t *next

# A task to run on top of all suspended calls, because it may collect: a guest, the collector, or a new reference.
cdef struct gc_task_t:
    void (*run)(gc_task_t *) noexcept nogil
    void *context
    void *future
    void *handle
    reference_t *reference
    c_bool done

cdef struct epoch_thread_t:
    void *engine
    long microseconds
    PyThread_type_lock stop  # locked until the thread is to end; the thread takes it then
    PyThread_type_lock ended  # locked until it has ended

# The calls into one store that are suspended in host functions, and what they are being resumed for. The ring is doubly
# linked, so that a call leaves it in a step, whatever the order in which host functions return.
cdef struct suspensions_t:
    request_t ring  # no call: the beginning and the end of the ring
    request_t *anchor  # NULL: guests hold no references, and calls need not be resumed
    gc_task_t *gc_task  # NULL: nothing waits to be run
    void *has_answer  # a wasmtime_global_t: see _callbacks.pxi
    unsigned long epochs_seen  # `ended_epochs` when a guest of the store was last suspended by the end of an epoch

# The functions of wasmtime that are used, as its headers declare them. `configure` fills them in by their order.
cdef struct wasmtime_t:
    c_bool (*call_future_poll)(void *) noexcept nogil
    void (*call_future_delete)(void *) noexcept nogil
    void *(*trap_new)(const char *, size_t) noexcept nogil
    void *(*func_call_async)(void *, void *, void *, size_t, void *, size_t, void **, void **) noexcept nogil
    c_bool (*context_has_exception)(void *) noexcept nogil
    c_bool (*context_take_exception)(void *, reference_t *) noexcept nogil
    void *(*context_set_exception)(void *, const reference_t *) noexcept nogil
    void (*exnref_unroot)(reference_t *) noexcept nogil
    c_bool (*externref_new)(void *, void *, void *, reference_t *) noexcept nogil
    void *(*context_gc)(void *) noexcept nogil
    void (*error_delete)(void *) noexcept nogil
    void (*engine_increment_epoch)(void *) noexcept nogil
    void (*global_get)(void *, void *, value_t *) noexcept nogil
    void *(*global_set)(void *, void *, const value_t *) noexcept nogil
    uint8_t *(*memory_data)(void *, void *) noexcept nogil
    size_t (*memory_data_size)(void *, void *) noexcept nogil
    c_bool (*caller_export_get)(void *, const char *, size_t, extern_t *) noexcept nogil
    void (*extern_delete)(extern_t *) noexcept nogil
    void *(*func_call_unchecked)(void *, void *, raw_value_t *, size_t, void **) noexcept nogil
    void (*trap_delete)(void *) noexcept nogil
    void (*context_set_epoch_deadline)(void *, uint64_t) noexcept nogil

FUNCTIONS = tuple("""call_future_poll call_future_delete trap_new func_call_async context_has_exception
    context_take_exception context_set_exception exnref_unroot externref_new context_gc error_delete
    engine_increment_epoch global_get global_set memory_data
    memory_data_size caller_export_get extern_delete func_call_unchecked trap_delete context_set_epoch_deadline""".split())

cdef wasmtime_t wasmtime

cdef object guest, forget

cdef list lost = []
"""The handles of Python objects to which guests lost the last reference, until `forget_lost` drops them."""


LAYOUT = (sizeof(value_t), <uintptr_t>&(<value_t *>NULL).of, sizeof(continuation_t), sizeof(reference_t),
          sizeof(memory_t), sizeof(func_t), sizeof(extern_t), sizeof(raw_value_t))
"""The size of wasmtime_val_t, the offset of its union, and the sizes of the other structures, as they are here."""


def configure(addresses, guest_, forget_):
    """Take the addresses of `FUNCTIONS`.

    ``guest_`` stands for the active greenlet of environments while guest code runs. ``forget_(handle)`` drops an object
    that a guest had a reference to.
    """
    global guest, forget
    for i in range(len(FUNCTIONS)):
        (<uintptr_t *>&wasmtime)[i] = addresses[i]
    guest, forget = guest_, forget_
    know_wasmtime(<void *>wasmtime.engine_increment_epoch)
    let_traps_through()
