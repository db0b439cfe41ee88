# cython: language_level=3, auto_pickle=False, binding=False, embedsignature=True, embedsignature.format=clinic
# cython: cdivision=True
"""The compiled twin of the class `Activity` in tracks.py, which is the specification.

A switch has 14 numbers. To make strings of Python's of them takes longer than all the rest, so C writes them here.
"""

from functools import lru_cache
from json import dumps

from libc.stdint cimport int64_t
from libc.string cimport memcpy, strchr, strlen

cdef extern from "Python.h":
    str PyUnicode_DecodeASCII(const char *, Py_ssize_t, const char *)

# The lines of a switch, behind the name in the first one. Each # is for a number; with a point, for one of nanoseconds
# that is written in microseconds.
cdef const char *LINES = (
    b',"cat":"context","pid":#,"tid":#,"ts":#.,"dur":#.,"tts":#.,"tdur":#.},\n'
    b'{"ph":"s","name":"switch","cat":"switch","id":#,"pid":#,"tid":#,"ts":#.},\n'
    b'{"ph":"f","bp":"e","name":"switch","cat":"switch","id":#,"pid":#,"tid":#,"ts":#.}')

# The line of a host call, behind its name.
cdef const char *CALL = b',"cat":"host call","pid":#,"tid":#,"ts":#.,"dur":#.}'

quoted = lru_cache(1024)(dumps)


cdef class Activity:
    """Base of `Tracks`, which sets and explains these attributes: the active context, lines of switches and of calls.

    Times are in nanoseconds since the trace began, and never the same twice.
    """

    cdef public int64_t active, began, last, pid, processor_since, sampled, since
    cdef public dict calls, names
    cdef public object clock, ended, processor_clock

    def now(self):
        """Return the time, and note it as the last one."""
        return self.tick()

    cdef int64_t tick(self) except -1:
        # Not a cpdef method, which would look for one of that name in the class Tracks at each call.
        cdef int64_t now = <int64_t>self.clock() - self.began
        if now < self.last + 3:
            now = self.last + 3
        self.last = now
        return now

    def switch(self, from_id, int64_t to_id, flows, list lines):
        """Add a switch to the lines, with an arrow that takes its id from ``flows``.

        Return whether the counters are due again.
        """
        cdef int64_t pid = self.pid, from_track = <int64_t>from_id + 1, now, processor, flow
        cdef int64_t[14] numbers
        calls = ()
        if self.active == to_id:  # told once more, because an interruption came at the end of the first time
            return False
        now, processor, flow = self.tick(), self.processor_clock(), next(flows)
        if self.calls.get(from_id):
            calls = self.cut(from_id, now)
        name = self.names.get(from_id, '"?"')
        numbers[:] = [
            pid, from_track, self.since, now - self.since, self.processor_since, processor - self.processor_since,
            flow, pid, from_track, now - 1,
            flow, pid, to_id + 1, now + 1]
        text = f'{{"ph":"X","name":{name}{fill(LINES, numbers)}'
        lines.extend(calls)
        lines.append(text)
        self.since, self.processor_since, self.active = now + 1, processor, to_id
        if self.ended is not None and self.ended == from_id and from_id != 0:
            self.names.pop(from_id, None)
        return now >= self.sampled

    def cut_calls(self, context_id, end):
        """Return the slices of the host calls that the context waits in, cut off here.

        (Slices of a track have to be nested: the rest of a call is a slice of its own, in the next piece of activity.)
        """
        return self.cut(context_id, end)

    def begin_call(self, context_id, name):
        """Note that the context has called a host function."""
        cdef list calls = self.calls.get(context_id)
        if calls is None:
            calls = self.calls[context_id] = []
        calls.append((name, self.tick()))

    def end_call(self, context_id, list lines not None):
        """Add the slice of the context's latest host call, which has ended, to the lines. Return whether it began."""
        cdef list calls = self.calls.get(context_id)
        if not calls:
            return False
        lines.append(self.call(context_id, calls[-1], len(calls), self.tick()))
        calls.pop()
        return True

    cdef list cut(self, context_id, int64_t end):
        cdef list calls = self.calls.get(context_id), pieces = []
        cdef Py_ssize_t at
        if calls is not None:
            for at in range(len(calls)):
                pieces.append(self.call(context_id, calls[at], at + 1, end))
        return pieces

    cdef str call(self, context_id, tuple call, int64_t depth, int64_t end):
        name, start = call
        cdef int64_t begin = max(<int64_t>start, self.since + depth)
        cdef int64_t[4] numbers
        numbers[:] = [self.pid, <int64_t>context_id + 1, begin, end - begin]
        return f'{{"ph":"X","name":{quoted(name)}{fill(CALL, numbers)}'


cdef str fill(const char *template, const int64_t *numbers):
    """Put the numbers in their places; one that is negative is written as 0."""
    cdef char[600] text  # the template has 250 characters, and 14 numbers at most 20 each
    cdef char *at = text
    cdef const char *place = strchr(template, b'#')
    cdef int64_t number
    while place:
        memcpy(at, template, place - template)
        at += place - template
        template = place + 1
        number = max(0, numbers[0])
        numbers += 1
        if template[0] == b'.':
            template += 1
            at = put(at, number // 1000, 1)
            at[0] = b'.'
            at = put(at + 1, number % 1000, 3)
        else:
            at = put(at, number, 1)
        place = strchr(template, b'#')
    memcpy(at, template, strlen(template))
    return PyUnicode_DecodeASCII(text, at + strlen(template) - text, NULL)


cdef char *put(char *at, int64_t number, int least):
    """Write a number that is not negative, of ``least`` digits; return where it ends."""
    cdef char[20] digits
    cdef int count = 0
    while number > 0 or count < least:
        digits[count] = 48 + number % 10  # 48: "0"
        number //= 10
        count += 1
    while count > 0:
        count -= 1
        at[0] = digits[count]
        at += 1
    return at
