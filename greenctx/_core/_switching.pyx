# cython: language_level=3, auto_pickle=False, binding=False
"""The plain switch, and a cancellation that is none of C++'s, over greenlet's C API.

A switch is plain if the caller is known as the active context and the target has started, or main starts it. It takes
the same steps as `Environment.switch_context`, which does all others. Guests' switches go this way, too
(`_fiber.pyx`).
"""

from cpython.dict cimport PyDict_GetItemWithError
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF
from cpython.pycapsule cimport PyCapsule_Import

from greenlet import GreenletExit

from greenctx.errors import CancellationSwallowed, ContextCanceled, ContextEntrypointReturned, ExitCarrier

cdef extern from *:
    """
    /* The places of two functions in the array that is greenlet's C API (greenlet.h, which a build cannot find). */
    static void **greenlet_api;
    #define get_current ((PyObject *(*)(void))greenlet_api[4])
    #define switch_to ((PyObject *(*)(PyObject *, PyObject *, PyObject *))greenlet_api[6])
    static int raise_again(void) { return -1; }

    /* Chunks of memory for Python's frames, as a greenlet's first frame needs one. To map it, and to give it back, is
       half of what a short life takes; so a context that ends leaves its own to the next. Greenlet knows these fields
       of Python's, too: it saves them in every switch, and finds them empty here if a context has left its chunk. */
    #if PY_VERSION_HEX < 0x030E0000
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

greenlet_api = <void **>PyCapsule_Import("greenlet._C_API", 0)


cdef inline bint switch_if_plain(Switching self, object caller, object context_id) except -1:
    """Switch to that context if there is nothing more to it; return whether it was so. ``caller`` is this greenlet."""
    if caller is not self._admitted:
        return False
    cdef Coroutine me = self._active
    cdef PyObject *target = PyDict_GetItemWithError(self._started, context_id)
    if target is NULL:
        if me is self._main:
            target = to_be_started(self, context_id)
        if target is NULL:
            return False
    # From here to the switch nothing is called that could run Python.
    its = (<Coroutine>target).greenlet
    self._active = <Coroutine>target
    self._admitted = its
    me.is_in_switch = True
    cdef PyObject *result = switch_to(<PyObject *>its, NULL, NULL)
    me.is_in_switch = False
    if result is not NULL:
        Py_DECREF(<object>result)
        if self._admitted is caller:
            return True
    return resumed(self, me, result is not NULL)


cdef PyObject *to_be_started(Switching self, object context_id) except? NULL:
    """The context of that id if main is to start it."""
    cdef PyObject *target = PyDict_GetItemWithError(self._unstarted, context_id)
    if target is not NULL:
        self._started[context_id] = <Coroutine>target
        del self._unstarted[context_id]
        self._main_can_start_others = True
    return target


cdef bint resumed(Switching self, Coroutine me, bint ok) except -1:
    """Go on in ``me``, which was resumed otherwise than by a plain switch. (By itself: less stack to copy.)"""
    if ok and self.canceled is me:
        cancellation, self.canceled, self.cancellation = self.cancellation, None, None
        raise cancellation
    try:
        if not ok:
            raise_again()
        self._resumed_unasked(me)
    except ExitCarrier as error:
        self._adopt(me)
        error.unwrap()
    except BaseException:
        self._adopt(me)
        raise
    return True


cdef class Coroutine:
    """What a context is made on. Its attributes, and what its methods do, are explained in context.py."""

    def __cinit__(self, registry, entrypoint, created_at):
        self.registry = registry
        self.context_id = 0
        self.entrypoint = entrypoint
        self.created_at = created_at

    def run(self):
        # Its frame and those above it are copied in every switch: so what comes after the entrypoint is elsewhere.
        take_chunk()
        cdef PyObject *result = PyObject_CallNoArgs(self.entrypoint)
        leave_chunk()
        self.end(result)

    def cancel(self, Switching environment not None, cancellation):
        """Raise the cancellation where this waits; return, or raise, when the caller is resumed."""
        # Not by `throw` if that can be helped: greenlet does it by an exception of C++, which takes long to unwind.
        if not self.is_in_switch:
            self.greenlet.throw(cancellation)
            return
        environment.canceled, environment.cancellation = self, cancellation
        cdef PyObject *result = switch_to(<PyObject *>self.greenlet, NULL, NULL)
        if result is NULL:
            raise_again()
        Py_DECREF(<object>result)

    cdef bint end(self, PyObject *result) except -1:
        """The end of the entrypoint, which returned that, or raised something if it is NULL."""
        registry = self.registry
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
    """What an environment is made on. Its attributes are explained in admission.py."""

    cdef bint switch_if_plain(self, object caller, object context_id) except -1:
        """`switch_if_plain`, for other modules."""
        return switch_if_plain(self, caller, context_id)

    def switch_context(self, context_id):
        """Suspend the active context and resume that one; return when somebody switches back.

        Switching to oneself does nothing. Raises `SwitchTargetMissing` if no context is suspended under that id, and
        `ContextCanceled` if the calling context is being destroyed. In main, raises what the entrypoint of another
        context raised, and `ContextEntrypointReturned` if one returned.
        """
        if not switch_if_plain(self, get_current(), context_id):
            self._switch_slowly(context_id)
