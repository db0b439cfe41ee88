# cython: language_level=3, auto_pickle=False, binding=False, embedsignature=True, embedsignature.format=clinic
"""The compiled twin of delivery.py, which is the specification: the same names in the same order.

It has two things of its own, both short cuts that take no Python where there is nothing to report but a switch:
`switch_context`, through `ReportingEnvironment.switch_context`, and `switch_told`, by which guests switch. They leave
everything else to the long way.
"""

cimport cython
from libc.stdint cimport uint64_t

from greenctx._core._switching cimport NOT_DONE, Coroutine, Switching, calling_greenlet


cdef class Subscriber:
    """One instrument, and how many events it was told."""

    cdef public object instrument
    cdef public dict methods
    cdef public Py_ssize_t told

    def __init__(self, instrument, methods):
        self.instrument = instrument
        self.methods = methods
        self.told = 0


cdef class Delivery:
    """Base of `Reports`, which sets and explains these attributes: the events to tell, and how they are told."""

    cdef public object deliverer, target
    cdef public Py_ssize_t next_id, told
    cdef public list pending, subscribers
    cdef public Coroutine seen
    cdef public bint wants_host_calls, wants_switches

    def deliver(self, environment):
        """Tell every instrument the events that it has not been told yet."""
        self.tell(environment)

    cdef bint tell(self, environment) except -1:
        cdef Py_ssize_t end = self.told + len(self.pending)
        cdef Subscriber subscriber
        cdef tuple event
        if self.deliverer is not None:
            return True
        self.deliverer = calling_greenlet()
        try:
            for subscriber in self.subscribers:
                while subscriber.told < end:
                    event = self.pending[subscriber.told - self.told]
                    method = subscriber.methods.get(event[0])
                    if method is not None:
                        try:
                            if len(event) == 3:  # most are: the arguments need no other tuple
                                method(environment, event[1], event[2])
                            else:
                                method(environment, *event[1:])
                        except Exception:
                            self._remove(subscriber, event[0])
                            break
                    subscriber.told += 1
            del self.pending[:end - self.told]
            self.told = end
        finally:
            self.deliverer = None
        return True


@cython.binding(True)
def switch_context(Switching self not None, context_id):
    """Suspend the active context and resume that one; return when another context switches back.

    Switching to oneself does nothing. Raises `SwitchTargetMissing` if no context is suspended under that id, and
    `ContextCanceled` if the calling context is being destroyed. In main, raises what the entrypoint of another
    context raised, and `ContextEntrypointReturned` if one returned.
    """
    cdef Delivery reports = self._reports
    cdef bint may_be_plain = self._active is reports.seen and is_settled(reports, self)
    if not may_be_plain or not switch_plainly(reports, self, calling_greenlet(), context_id):
        self._switch_and_report(context_id)


def serve_guests(Switching environment not None):
    """Let guests switch by `switch_told`, unless the environment has a switch of its own."""
    if type(environment).switch_context is switch_context:
        environment.told_switch = switch_told


cdef int switch_told(Switching environment, object caller, uint64_t context_id, tuple call) except -1:
    """A told_switch_t: what `context_switch` of greenctx.wasix does, and CallReports tells of it."""
    cdef Delivery reports = environment._reports
    cdef int errno = 0
    if not is_plain(reports, environment, caller, context_id):
        return NOT_DONE
    if call is None or not reports.wants_host_calls:
        switch_plainly(reports, environment, caller, context_id)
        return errno
    name, function = call
    reports.pending.append(("host_call_started", environment._active.context_id, name))
    reports.tell(environment)
    try:
        if is_plain(reports, environment, caller, context_id):
            switch_plainly(reports, environment, caller, context_id)
        else:  # an instrument has let another greenlet run
            errno = function(context_id)
    except BaseException as error:
        environment.report_host_call("host_call_ended", name, error)
        raise
    reports.pending.append(("host_call_ended", environment._active.context_id, name, None))
    reports.tell(environment)
    return errno


cdef bint switch_plainly(Delivery reports, Switching environment, object caller, object context_id) except -1:
    """Switch, and tell it; return whether it was a plain switch. If not, nothing has happened."""
    reports.target = context_id
    try:
        if not environment.switch_if_plain(caller, context_id, NULL):
            return False
    except BaseException as error:
        environment._report_changes(error)
        raise
    # What follows is the end of the long way, `_report_changes`.
    cdef Coroutine seen = reports.seen, active = environment._active
    if seen is None or active is None or not is_settled(reports, environment):
        environment._report_changes()
    elif active is not seen:
        active.switches += 1
        reports.seen = active
        if reports.wants_switches:
            reports.pending.append(("context_switched", seen.context_id, active.context_id))
            reports.tell(environment)
    return True


cdef inline bint is_plain(Delivery reports, Switching environment, object caller, uint64_t context_id):
    """Whether the caller is known as the active context, there is nothing to tell, and the target has started."""
    return (
        caller is environment._admitted and environment._active is reports.seen and is_settled(reports, environment)
        and reports.deliverer is None and environment.find_started(context_id) is not NULL)


cdef inline bint is_settled(Delivery reports, Switching environment):
    """Whether every event so far was told, and every creation reported."""
    return not reports.pending and reports.next_id == environment._registry.next_id
