# cython: language_level=3, auto_pickle=False, binding=False, embedsignature=True, embedsignature.format=clinic
"""The compiled twin of switching.py, which is the specification: the same names in the same order.

It takes the same steps through greenlet's C API. It adds two things: `Switching.switch_if_plain`, by which guests
switch without any Python (`_fiber.pyx`), and a cancellation without a C++ exception (`Switching._cancel`).
"""

from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF
from cpython.pycapsule cimport PyCapsule_Import

from greenlet import GreenletExit

from greenctx.errors import (
    Cancellation, CancellationSwallowed, ContextCanceled, ContextEntrypointReturned, ExitCarrier, SwitchTargetMissing)

cdef extern from *:
    """
    /* Two functions by their places in greenlet's C API, an array. (A build in isolation does not find greenlet.h.) */
    static void **greenlet_api;
    #define get_current ((PyObject *(*)(void))greenlet_api[4])
    #define switch_to ((PyObject *(*)(PyObject *, PyObject *, PyObject *))greenlet_api[6])
    static int raise_again(void) { return -1; }

    /* A greenlet's first frame needs a chunk of memory for Python's frames. To map it and to unmap it takes half the
       time of a short life, so a context that ends leaves its chunk to the next one. Greenlet saves these fields of the
       thread's state in every switch, and finds them empty here after a context has left its chunk. */
    #if !defined(Py_LIMITED_API) && !defined(Py_GIL_DISABLED)
    static _PyStackChunk *spare;
    static int spare_count;

    static void take_chunk(void) {
        PyThreadState *thread = PyThreadState_Get();
        _PyStackChunk *chunk = spare;
        if (chunk == NULL || thread->datastack_chunk != NULL)
            return;
        spare = chunk->previous;
        spare_count--;
        chunk->previous = NULL;
        thread->datastack_chunk = chunk;
        thread->datastack_top = chunk->data + 1;  /* a first chunk's first place stays free */
        thread->datastack_limit = (PyObject **)((char *)chunk + chunk->size);
    }

    static void leave_chunk(void) {
        PyThreadState *thread = PyThreadState_Get();
        _PyStackChunk *chunk = thread->datastack_chunk;
        if (spare_count == 64 || chunk == NULL || chunk->size > 1 << 14 || thread->datastack_top != chunk->data + 1)
            return;
        chunk->previous = spare;
        spare = chunk;
        spare_count++;
        thread->datastack_chunk = NULL;
        thread->datastack_top = thread->datastack_limit = NULL;
    }
    #else
    static void take_chunk(void) {}
    static void leave_chunk(void) {}
    #endif
    """
    void take_chunk()
    void leave_chunk()
    void **greenlet_api
    object get_current()
    PyObject *switch_to(PyObject *target, PyObject *args, PyObject *kwargs)
    int raise_again() except -1

cdef extern from "Python.h":
    PyObject *PyObject_CallNoArgs(object)
    # A dict by its address, because Cython would take a reference to it in each switch.
    PyObject *PyDict_GetItemWithError(PyObject *, object) except? NULL

greenlet_api = <void **>PyCapsule_Import("greenlet._C_API", 0)


cdef object calling_greenlet():
    """`greenlet.getcurrent`, for other extension modules."""
    return get_current()


cdef class Tables:
    """Base of `Registry`: the tables in which a switch finds its target, and an end its context."""

    cdef PyObject *take_unstarted(self, object context_id) except NULL:
        """Move a context to those that have started, and return it. Raises `SwitchTargetMissing`."""
        cdef PyObject *target = PyDict_GetItemWithError(<PyObject *>self.unstarted, context_id)
        if target is NULL:
            raise SwitchTargetMissing(context_id, self.describe(context_id))
        self.started[context_id] = <object>target
        del self.unstarted[context_id]
        return target


cdef class Coroutine:
    """Base of `Context`: its attributes, its start and its end."""

    def __cinit__(self, Tables registry not None, entrypoint, created_at):
        self.registry = registry
        self.context_id = 0
        self.entrypoint = entrypoint
        self.created_at = created_at

    def run(self):
        """Run the entrypoint, and return or raise what the parent greenlet is to get. Called by the greenlet.

        The parent gets every end but a silent one as an exception, because a return value could be lost to a signal's
        `KeyboardInterrupt`, which comes after the call that returned it.
        """
        # Greenlet copies this frame and those above it in every switch, so the code after the entrypoint is in `end`.
        take_chunk()
        cdef PyObject *result = PyObject_CallNoArgs(self.entrypoint)
        leave_chunk()
        self.end(result)

    cdef bint end(self, PyObject *result) except -1:
        """Do the rest of `run`: the entrypoint returned ``result``, or raised if that is NULL."""
        cdef Tables registry = self.registry
        try:
            if result is NULL:
                raise_again()
            Py_DECREF(<object>result)
        except GreenletExit as exit:
            if isinstance(exit, ContextCanceled) and exit._cancellation is self.cancellation:
                return True
            raise ExitCarrier(self.context_id, exit) from exit
        finally:
            registry.started.pop(self.context_id, None)
            registry.unwinding.pop(self.context_id, None)
            registry.by_greenlet.pop(self.greenlet, None)
        if self.cancellation is None:
            raise ContextEntrypointReturned(self.context_id)
        if not self.cancellation.defused:
            raise CancellationSwallowed(self.context_id)
        return True


cdef class Switching:
    """Base of environments: the attributes that a switch reads and changes, the switch and the cancellation.

    admission.py sets and explains these attributes, and has the methods that this class calls.
    """

    def switch_context(self, context_id):
        """Suspend the active context and resume that one; return when another context switches back.

        Switching to oneself does nothing. Raises `SwitchTargetMissing` if no context is suspended under that id, and
        `ContextCanceled` if the calling context is being destroyed. In main, raises what the entrypoint of another
        context raised, and `ContextEntrypointReturned` if one returned.
        """
        caller = get_current()
        if caller is not self._admitted:
            self.admit(caller)
            self._check_is_not_canceled()
        switch(self, caller, context_id, False, NULL)

    cdef bint switch_if_plain(self, object caller, object context_id, void *guest_call) except -1:
        """Switch if the caller is known as the active context, and the target has started or main starts it.

        Return whether it switched. ``caller`` is the calling greenlet, ``guest_call`` the guest call that waits
        meanwhile.
        """
        return caller is self._admitted and switch(self, caller, context_id, True, guest_call)

    cdef PyObject *find_started(self, object context_id) noexcept:
        """Return the context of that id if it has started, and is active or can be resumed; else NULL."""
        try:
            return PyDict_GetItemWithError(<PyObject *>self._registry.started, context_id)
        except MemoryError:
            return NULL

    cdef bint resume(self, Coroutine me, Coroutine target, void *guest_call) except -1:
        """`resume` for a caller whose greenlet is that of ``me``, which need not be the active context."""
        return resume(self, me, me.greenlet, target, target, guest_call)

    cdef bint _woken_by_other(self, Coroutine me) except -1:
        """Go on in ``me``, which was resumed without having been made the active context.

        Main is resumed so to start others: the active context has not started then.
        """
        while me is self._main and (active := self._active) is not None and not active.has_started:
            if self._active is active:  # a signal's handler may have destroyed it in the call of `has_started`
                active.greenlet.switch()
        self._adopt(me)
        return True

    def _cancel(self, Coroutine victim not None, Coroutine me not None):
        """Throw the cancellation into a suspended context; return or raise when ``me`` is resumed."""
        victim_id, my_id = victim.context_id, me.context_id
        cdef dict started = self._registry.started, unwinding = self._registry.unwinding
        cdef Coroutine former = me
        cdef PyObject *result
        cancellation = victim.cancellation or Cancellation()
        canceled = ContextCanceled(victim_id, cancellation)
        former_id, its = my_id, victim.greenlet
        if victim.destroyer is not None:
            former = victim.destroyer
            former_id = former.context_id
        try:
            unwinding[victim_id] = victim
            if victim_id in started:
                del started[victim_id]
            # The former destroyer waited for the same end, until other code resumed ``me``. Now it is suspended.
            if former_id not in unwinding:
                started[former_id] = former
            if my_id in started:  # only the end of its victim may resume a destroyer
                del started[my_id]
            if me is self._main:
                self._main_can_start_others = False
            its.parent, victim.destroyer = me.greenlet, me  # the parent is resumed when the victim ends
            victim.cancellation = cancellation
            self._active, self._admitted = victim, None
            # Greenlet's `throw` uses a C++ exception, which takes long to unwind. A context that waits in
            # `switch_context` is resumed plainly instead, and finds the exception to raise there.
            if not victim.is_in_switch:
                its.throw(canceled)
            else:
                self.canceled, self.cancellation = victim, canceled
                result = switch_to(<PyObject *>its, NULL, NULL)
                if result is NULL:
                    raise_again()
                Py_DECREF(<object>result)
        finally:
            if victim.destroyer is me and not its.dead:
                its.parent, victim.destroyer = self._main.greenlet, None
            self._adopt(me)


cdef inline bint switch(
        Switching self, object caller, object context_id, bint only_if_plain, void *guest_call) except -1:
    """Do `switch_context` for an admitted caller. With ``only_if_plain``, return False if the switch is not plain."""
    cdef Coroutine me = self._active
    cdef PyObject *target = PyDict_GetItemWithError(<PyObject *>self._registry.started, context_id)
    cdef PyObject *resumed = target
    if target is NULL:
        if only_if_plain and (me is not self._main or context_id not in self._registry.unstarted):
            return False
        target = resumed = self._registry.take_unstarted(context_id)
        if me is self._main:
            self._main_can_start_others = True
        elif self._main_can_start_others:
            resumed = <PyObject *>self._main
    return resume(self, me, caller, <Coroutine>target, <Coroutine>resumed, guest_call)


cdef inline bint resume(
        Switching self, Coroutine me, object mine, Coroutine target, Coroutine resumed, void *guest_call) except -1:
    """Make ``target`` active and resume the greenlet of ``resumed``, which is ``target`` or main.

    Return when ``mine``, the greenlet of ``me``, is resumed.
    """
    its = resumed.greenlet
    # From here to the switch nothing is called that could run Python.
    self._active = target
    self._admitted = target.greenlet
    me.guest_call = guest_call
    me.is_in_switch = True
    cdef PyObject *result = switch_to(<PyObject *>its, NULL, NULL)
    me.is_in_switch = False
    me.guest_call = NULL  # at once: the guest waits no more, whatever resumed it
    if result is not NULL:
        Py_DECREF(<object>result)
        if self._admitted is mine:
            return True
    return go_on(self, me, result is not NULL)


cdef bint go_on(Switching self, Coroutine me, bint ok) except -1:
    """Go on in ``me``, which was not resumed by a plain switch. (Apart, so that a switch copies less stack.)"""
    if ok and self.canceled is me:
        canceled, self.canceled, self.cancellation = self.cancellation, None, None
        raise canceled
    try:
        if not ok:
            raise_again()
        self._woken_by_other(me)
    except ExitCarrier as error:
        self._adopt(me)
        error.unwrap()
    except BaseException:
        self._adopt(me)
        raise
    return True
