# WASI calls that need no Python: made on the guest's fiber, of wasmtime's functions or of the system's.
#
# A call through Python suspends the fiber, and calls wasmtime's function on another fiber: 20 to 100 us, where wasmtime
# alone takes 1 us for a stream and 15 us for a file. What does not wait is done at once instead: calls about wasmtime's
# files; and of the process's own standard streams, those that are ready. In every other case, also where anything is
# wrong, nothing has happened yet, and Python serves the call as ever.

cdef extern from *:
    """
    #include <errno.h>
    #include <stdbool.h>
    #include <stdint.h>
    #include <string.h>
    typedef struct { uint8_t *start; size_t length; } part_t;
    enum { MAX_PARTS = 16 };
    #ifndef _WIN32
    #include <limits.h>
    #include <poll.h>
    #include <sys/uio.h>
    #ifndef PIPE_BUF
    #define PIPE_BUF 512
    #endif
    #ifdef __linux__
    #include <sys/syscall.h>
    #include <unistd.h>
    #endif

    /* Read or write what can be without waiting, or set errno: to EAGAIN if that is nothing. */
    static int64_t transfer_now(int descriptor, const struct iovec *vectors, int count, int writes) {
    #ifdef SYS_pwritev2
        enum { NOWAIT = 8 }; /* RWF_NOWAIT of linux/fs.h, by number like the calls: older C libraries have neither */
        return syscall(writes ? SYS_pwritev2 : SYS_preadv2, descriptor, vectors, (long) count, -1L, -1L, NOWAIT);
    #else
        errno = ENOSYS;
        return -1;
    #endif
    }

    /* Read, or write, what a call that does not wait can. Return the number of bytes; -1 for anything else. */
    static int64_t transfer(int descriptor, const part_t *parts, int count, size_t total, int writes, int may_wait,
                            bool *is_polled) {
        struct iovec vectors[MAX_PARTS];
        struct pollfd ready = {descriptor, writes ? POLLOUT : POLLIN, 0};
        int64_t moved;
        /* A pipe with room has room for that much; for more it would wait. */
        if (may_wait && writes && total > PIPE_BUF)
            return -1;
        for (int i = 0; i < count; i++) {
            vectors[i].iov_base = parts[i].start;
            vectors[i].iov_len = parts[i].length;
        }
        if (may_wait && !*is_polled) {
            moved = transfer_now(descriptor, vectors, count, writes);
            if (moved >= 0 || errno == EAGAIN)
                return moved;
            *is_polled = true; /* terminals have no such call, nor have pipes before Linux 6.5 */
        }
        if (may_wait && (poll(&ready, 1, 0) != 1 || (ready.revents & POLLNVAL)))
            return -1;
        return writes ? writev(descriptor, vectors, count) : readv(descriptor, vectors, count);
    }
    #else
    static int64_t transfer(int descriptor, const part_t *parts, int count, size_t total, int writes, int may_wait,
                            bool *is_polled) {
        return -1;
    }
    #endif
    """
    ctypedef struct part_t:
        uint8_t *start
        size_t length
    enum: MAX_PARTS
    int64_t transfer(int, const part_t *, int, size_t, bint writes, bint may_wait, c_bool *is_polled) noexcept nogil

DIRECT_CALLS = tuple("""fd_read fd_write fd_advise fd_allocate fd_datasync fd_fdstat_get fd_fdstat_set_flags
    fd_fdstat_set_rights fd_filestat_get fd_filestat_set_size fd_filestat_set_times fd_pread fd_prestat_dir_name
    fd_prestat_get fd_pwrite fd_readdir fd_seek fd_sync fd_tell""".split())
"""WASI's functions that can be called directly. The first argument of each is a descriptor."""

cdef enum:
    READ = 0
    WRITE = 1
    COUNT = 19  # of DIRECT_CALLS
    MAX_ARGUMENTS = 5
    NUMBERS = 64  # of descriptors from 0 on, and as many from the first one on that greenctx gives out
    MAX_TRANSFER = 1 << 20
    FAULT = 21  # errno
    EXTERN_MEMORY = 3  # WASMTIME_EXTERN_MEMORY of wasmtime/extern.h

assert len(DIRECT_CALLS) == COUNT

RESULT_SIZES = {"fd_read": 4, "fd_write": 4, "fd_pread": 4, "fd_pwrite": 4, "fd_readdir": 4, "fd_seek": 8, "fd_tell": 8}
"""The size of what wasmtime stores where the last argument points to, once all else is done."""

# What a descriptor of the guest's refers to.
cdef struct descriptor_t:
    int32_t in_wasmtime  # wasmtime's descriptor; -1: none, or Python has to look
    int32_t host  # the host's descriptor of a standard stream; -1: Python reads or writes
    c_bool is_stream
    c_bool writes  # else reads
    c_bool may_wait
    c_bool is_polled  # before each transfer, since there is none that does not wait

# What is known of the descriptors of a program, for calls of the guest that exports that memory.
cdef struct direct_t:
    void *linker
    c_bool is_stale  # the descriptors may have changed
    uint32_t first_own
    uint32_t turns
    memory_t memory
    func_t functions[COUNT]
    descriptor_t descriptors[2 * NUMBERS]

# The data of a host function.
cdef struct direct_call_t:
    void *self  # the DirectCall
    void *function
    void *linker
    c_bool *is_off
    int index
    uint32_t result_size


cdef c_bool is_done(void *data) noexcept nogil:
    """The continuation of a call that has been made. It is pending once if the guest is to yield."""
    cdef request_t *request = <request_t *>data
    if request.epoch_pending:
        request.epoch_pending, request.epoch_ended = False, True
        return False
    return True


cdef void on_direct_call(void *data, void *caller, const value_t *arguments, size_t argument_count, value_t *results,
                         size_t result_count, void **trap, continuation_t *continuation) noexcept nogil:
    cdef direct_call_t *call = <direct_call_t *>data
    cdef request_t *request = <request_t *>polled
    if call_directly(call, request, caller, arguments, argument_count, results):
        continuation.callback = is_done
        continuation.env = request
        continuation.finalizer = NULL
    else:
        on_host_call(call.function, caller, arguments, argument_count, results, result_count, trap, continuation)


cdef c_bool call_directly(direct_call_t *call, request_t *request, void *caller, const value_t *arguments, size_t count,
                          value_t *results) noexcept nogil:
    """Make the call, unless Python has to; return whether it is made."""
    cdef direct_t *direct = request.direct[0]
    if direct == NULL or direct.is_stale or direct.linker != call.linker or call.is_off[0]:
        return False
    # An engine of an embedder's own may have no epochs. Then this is where Python gets a turn to look for signals.
    direct.turns += 1
    if direct.turns % 4096 == 0:
        return False
    cdef int number = number_of(direct, <uint32_t>arguments[0].of.i32)
    if number < 0 or not exports_memory(caller, &direct.memory):
        return False
    cdef descriptor_t *descriptor = &direct.descriptors[number]
    cdef c_bool moves_bytes = descriptor.is_stream and call.index <= WRITE
    # wasmtime may wait for a file; of a pipe, another process may take what was there. Then other threads must be able to
    # run. Nor may the GIL be released here: another thread would see a driven call (see _deferred.pxi).
    if request.holds_gil and (not moves_bytes or descriptor.may_wait):
        return False
    if moves_bytes:
        return move_bytes(direct, descriptor, call, request, arguments, results)
    if descriptor.in_wasmtime < 0 or direct.functions[call.index].store_id == 0:
        return False
    return call_wasmtime(direct, descriptor, call, request, arguments, count, results)


cdef int number_of(direct_t *direct, uint32_t fd) noexcept nogil:
    """Return the place of the descriptor in the table; -1 if it has none."""
    if fd < NUMBERS:
        return fd
    if fd >= direct.first_own and fd - direct.first_own < NUMBERS:
        return fd - direct.first_own + NUMBERS
    return -1


cdef c_bool call_wasmtime(direct_t *direct, descriptor_t *descriptor, direct_call_t *call, request_t *request,
                          const value_t *arguments, size_t count, value_t *results) noexcept nogil:
    cdef raw_value_t[MAX_ARGUMENTS] raw
    cdef size_t i
    cdef void *trap = NULL
    cdef void *error
    cdef uint32_t pointer = <uint32_t>arguments[count - 1].of.i32
    # wasmtime looks at this pointer last. The call must not be made twice, so it is looked at here first.
    if call.result_size and (pointer % call.result_size or not is_within(
            pointer, call.result_size, wasmtime.memory_data_size(request.context, &direct.memory))):
        return False
    for i in range(count):
        raw[i].i64 = arguments[i].of.i64
    raw[0].i32 = descriptor.in_wasmtime
    request.is_calling_directly = True
    error = wasmtime.func_call_unchecked(request.context, &direct.functions[call.index], raw, count, &trap)
    request.is_calling_directly = False
    if trap != NULL or error != NULL:
        if trap != NULL:
            wasmtime.trap_delete(trap)
        if error != NULL:
            wasmtime.error_delete(error)
        return False
    if raw[0].i32 == FAULT:
        return False
    results[0].kind = 0  # WASMTIME_I32
    results[0].of.i32 = raw[0].i32
    return True


cdef c_bool move_bytes(direct_t *direct, descriptor_t *descriptor, direct_call_t *call, request_t *request,
                       const value_t *arguments, value_t *results) noexcept nogil:
    """Read from, or write to, a standard stream of the process's own."""
    cdef uint8_t *memory = wasmtime.memory_data(request.context, &direct.memory)
    cdef uint64_t size = wasmtime.memory_data_size(request.context, &direct.memory)
    cdef uint64_t buffers = <uint32_t>arguments[1].of.i32
    cdef uint32_t count = <uint32_t>arguments[2].of.i32
    cdef uint32_t pointer = <uint32_t>arguments[3].of.i32
    cdef part_t[MAX_PARTS] parts
    cdef uint32_t[2] buffer
    cdef size_t total = 0
    cdef uint32_t i
    cdef int64_t moved
    if descriptor.host < 0 or descriptor.writes != (call.index == WRITE) or count > MAX_PARTS:
        return False
    if not is_within(buffers, count * sizeof(buffer), size) or not is_within(pointer, 4, size):
        return False
    for i in range(count):
        memcpy(buffer, memory + buffers + i * sizeof(buffer), sizeof(buffer))
        if not is_within(buffer[0], buffer[1], size):
            return False
        parts[i].start, parts[i].length = memory + buffer[0], buffer[1]
        total += buffer[1]
    if total == 0 or total > MAX_TRANSFER:
        return False
    moved = transfer(descriptor.host, parts, count, total, descriptor.writes, descriptor.may_wait,
                     &descriptor.is_polled)
    if moved < 0:
        return False
    buffer[0] = <uint32_t>moved
    memcpy(memory + pointer, buffer, 4)
    results[0].kind = results[0].of.i32 = 0  # WASMTIME_I32; errno success
    return True


cdef inline c_bool is_within(uint64_t start, uint64_t length, uint64_t size) noexcept nogil:
    return start + length <= size


cdef c_bool exports_memory(void *caller, const memory_t *memory) noexcept nogil:
    """Whether the calling instance exports that memory."""
    cdef extern_t item
    if not wasmtime.caller_export_get(caller, b"memory", 6, &item):
        return False
    if item.kind != EXTERN_MEMORY:
        wasmtime.extern_delete(&item)
        return False
    return is_same(&item.memory, memory)


cdef c_bool is_same(const memory_t *one, const memory_t *other) noexcept nogil:
    return (one.store_id == other.store_id and one.private1 == other.private1 and one.private2 == other.private2)


@cython.final
cdef class DirectLinker:
    """Stands for a linker whose guests may call directly."""

    cdef c_bool is_off

    def __init__(self, bint calls_directly=True):
        self.is_off = not calls_directly

    def turn_off(self):
        """Let Python serve all calls from now on."""
        self.is_off = True


@cython.final
cdef class DirectCall:
    """The data of a host function of WASI's, which Python serves where it cannot be called directly."""

    cdef direct_call_t call
    cdef object function
    cdef DirectLinker linker

    def __init__(self, function, DirectLinker linker not None, str name not None):
        self.function, self.linker = function, linker
        self.call.self, self.call.function, self.call.linker = <void *>self, <void *>function, <void *>linker
        self.call.is_off = &linker.is_off
        self.call.index, self.call.result_size = DIRECT_CALLS.index(name), RESULT_SIZES.get(name, 0)

    def give_away(self):
        """Give a reference to this object away; return (callback, data, finalizer) for an async host function."""
        Py_INCREF(self)
        return <uintptr_t>&on_direct_call, <uintptr_t>&self.call, <uintptr_t>&release_direct_call


cdef void release_direct_call(void *data) noexcept with gil:
    Py_DECREF(<object>(<direct_call_t *>data).self)


@cython.final
cdef class DirectDescriptors:
    """What the descriptors of one program refer to, as far as calls can be made directly."""

    cdef direct_t table
    cdef dict keep_alive

    def __init__(self, uint32_t first_own):
        """``first_own`` is the lowest number that is never wasmtime's."""
        self.table.first_own, self.keep_alive, self.table.is_stale = first_own, {}, True

    @property
    def is_stale(self):
        """Whether the descriptors may have changed since they were set here. Then Python serves all calls."""
        return self.table.is_stale

    @is_stale.setter
    def is_stale(self, bint is_stale):
        self.table.is_stale = is_stale

    def learn(self, DirectLinker linker not None, uintptr_t memory, str name=None, uintptr_t function=0,
              keep_alive=None):
        """Let guests of that linker that export that memory call the function, if one is given, of WASI's by that name.

        ``memory`` and ``function`` are the addresses of a wasmtime_memory_t and a wasmtime_func_t of one store.
        """
        if self.table.linker != <void *>linker or not is_same(&self.table.memory, <memory_t *>memory):
            memset(self.table.functions, 0, sizeof(self.table.functions))
            self.table.linker, self.table.memory = <void *>linker, (<memory_t *>memory)[0]
            self.keep_alive = {"linker": linker}
        if name is not None:
            self.keep_alive[name] = keep_alive
            self.table.functions[DIRECT_CALLS.index(name)] = (<func_t *>function)[0]

    def reset(self):
        """Let each number below those of greenctx's own be wasmtime's descriptor of that number."""
        cdef int number
        for number in range(2 * NUMBERS):
            self.set_number(number, number if number < NUMBERS else -1)

    def set_file(self, uint32_t fd, int in_wasmtime):
        """Let the descriptor be one of wasmtime's; or let Python look, if that is -1."""
        cdef int number = number_of(&self.table, fd)
        if number >= 0:
            self.set_number(number, in_wasmtime)

    def set_stream(self, uint32_t fd, int in_wasmtime, int host, bint writes, bint may_wait):
        """Let the descriptor be a standard stream, one of wasmtime's for all calls but ``fd_read`` and ``fd_write``.

        ``host`` is the host's descriptor to read from, or to write to, which ``may_wait``; -1 leaves it to Python.
        """
        cdef int number = number_of(&self.table, fd)
        if number >= 0:
            self.set_number(number, in_wasmtime)
            self.table.descriptors[number].host, self.table.descriptors[number].is_stream = host, True
            self.table.descriptors[number].writes, self.table.descriptors[number].may_wait = writes, may_wait
            self.table.descriptors[number].is_polled = False

    cdef void set_number(self, int number, int in_wasmtime) noexcept:
        cdef descriptor_t *descriptor = &self.table.descriptors[number]
        descriptor.in_wasmtime, descriptor.host, descriptor.is_stream = in_wasmtime, -1, False
