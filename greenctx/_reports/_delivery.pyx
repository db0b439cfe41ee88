# cython: language_level=3, auto_pickle=False, binding=False, embedsignature=True, embedsignature.format=clinic
"""The compiled twin of delivery.py, which is the specification: the same names in the same order.

It has one thing of its own: `switch_context`, a short cut through `ReportingEnvironment.switch_context`. If there is
nothing to report but a switch, that takes no Python. The short cut leaves everything else to the long way.
"""

cimport cython

from greenctx._core._switching cimport Coroutine, Switching, calling_greenlet


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
    cdef public bint wants_switches

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
    cdef Coroutine seen, active
    cdef bint has_switched = False
    if self._active is reports.seen and is_settled(reports, self):
        reports.target = context_id
        try:
            has_switched = self.switch_if_plain(calling_greenlet(), context_id, NULL)
        except BaseException as error:
            self._report_changes(error)
            raise
    if not has_switched:
        self._switch_and_report(context_id)
        return
    # What follows is the end of the long way, which is `_report_changes`.
    seen, active = reports.seen, self._active
    if seen is None or active is None or not is_settled(reports, self):
        self._report_changes()
    elif active is not seen:
        active.switches += 1
        reports.seen = active
        if reports.wants_switches:
            reports.pending.append(("context_switched", seen.context_id, active.context_id))
            reports.tell(self)


cdef inline bint is_settled(Delivery reports, Switching environment):
    """Whether every event so far was told, and every creation reported."""
    return not reports.pending and reports.next_id == environment._registry.next_id
