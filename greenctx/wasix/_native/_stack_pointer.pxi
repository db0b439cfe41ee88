# The guest's __stack_pointer, and the shadow stacks that it points into by turns. _shadow_stacks/ says what they are for.

@cython.final
cdef class ShadowStack:
    """The stack of the guest's locals for one greenlet."""

    cdef public uint64_t pointer
    """The guest's stack pointer; out of date for the stack in use, whose pointer is in the global."""
    cdef uint64_t bottom
    cdef bytes canary
    cdef object on_overflow

    def __init__(self, uint64_t pointer, uint64_t bottom=0, bytes canary=None, on_overflow=None):
        """A ``canary`` at the bottom reveals an overflow: `Fiber.poll` then returns ``on_overflow``.

        Main's stack, which the linker laid out, has no canary: its end is not known.
        """
        self.pointer, self.bottom, self.canary, self.on_overflow = pointer, bottom, canary, on_overflow


@cython.final
cdef class StackPointer:
    """The global, as an unsigned number, and the memory that it points into. The store must be open.

    The wasmtime package's own `Global.value` takes 10 to 50 times as long, more than all the rest of a switch.
    """

    cdef void *context
    cdef void *pointer
    cdef void *memory
    cdef object keep_alive
    cdef value_t value
    cdef readonly int bits
    cdef public ShadowStack in_use
    """The stack whose pointer the global holds; None where that is not known."""

    def __init__(self, uintptr_t context, uintptr_t pointer, uintptr_t memory, keep_alive):
        """The addresses are those of a wasmtime_context_t, a wasmtime_global_t and a wasmtime_memory_t.

        The global must be mutable, and an i32 or an i64. ``keep_alive`` owns the latter two.
        """
        self.context, self.pointer, self.memory = <void *>context, <void *>pointer, <void *>memory
        self.keep_alive = keep_alive
        wasmtime.global_get(self.context, self.pointer, &self.value)
        self.bits = 64 if self.value.kind == 1 else 32  # WASMTIME_I64 of wasmtime/val.h

    cpdef uint64_t get(self) noexcept:
        wasmtime.global_get(self.context, self.pointer, &self.value)
        return <uint64_t>self.value.of.i64 if self.bits == 64 else <uint32_t>self.value.of.i32

    cdef void set(self, uint64_t pointer) noexcept:
        self.value.of.i64 = <int64_t>pointer
        wasmtime.global_set(self.context, self.pointer, &self.value)

    cpdef uintptr_t memory_address(self) noexcept:
        """Where the guest's memory is; growing may move it."""
        return <uintptr_t>wasmtime.memory_data(self.context, self.memory)

    cpdef void use(self, ShadowStack stack) noexcept:
        """Let the global point into that stack."""
        if stack is not self.in_use:
            if self.in_use is not None:
                self.in_use.pointer = self.get()
            self.set(stack.pointer)
            self.in_use = stack

    cpdef bint overflowed(self, ShadowStack stack) noexcept:
        """Whether the stack in use has been beyond its end.

        This misses a frame that has returned, and had not written to its locals where the canary is.
        """
        if stack.canary is None:
            return False
        cdef Py_ssize_t size = len(stack.canary)
        return self.get() < stack.bottom + <uint64_t>size or memcmp(
            <const void *>(self.memory_address() + stack.bottom), <const char *>stack.canary, size) != 0
