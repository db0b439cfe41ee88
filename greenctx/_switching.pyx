# cython: language_level=3, auto_pickle=False, binding=False
"""The plain switch, and a cancellation that is none of C++'s, over greenlet's C API.

A switch is plain if the caller is known as the active context and the target has started, or main starts it. It takes
the same steps as `ContextSwitchingEnvironment.switch_context`, which does all others. Guests' switches go this way, too
(`_fiber.pyx`).
"""

from cpython.dict cimport PyDict_GetItemWithError
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF
from cpython.pycapsule cimport PyCapsule_Import

from greenctx.exited import ContextExited

cdef extern from *:
    """
    /* The places of two functions in the array that is greenlet's C API (greenlet.h, which a build cannot find). */
    static void **greenlet_api;
    #define get_current ((PyObject *(*)(void))greenlet_api[4])
    #define switch_to ((PyObject *(*)(PyObject *, PyObject *, PyObject *))greenlet_api[6])
    static int raise_again(void) { return -1; }

    typedef struct { PyObject_HEAD PyObject *weakreflist, *dict; void *pimpl; } greenlet_t;  /* its PyGreenlet */
    """
    ctypedef class greenlet.greenlet [object greenlet_t]:
        pass
    void **greenlet_api
    object get_current()
    PyObject *switch_to(PyObject *target, PyObject *args, PyObject *kwargs)
    int raise_again() except -1

greenlet_api = <void **>PyCapsule_Import("greenlet._C_API", 0)


cdef class Coroutine


cdef inline bint switch_if_plain(Switching self, object context_id) except -1:
    """Switch to that context if there is nothing more to it; return whether it was so."""
    cdef PyObject *result
    me = get_current()
    if me is not self._caller:
        return False
    cdef PyObject *found = PyDict_GetItemWithError(self._started, context_id)
    if found is NULL:
        if me is not self._main:
            return False
        found = PyDict_GetItemWithError(self._unstarted, context_id)
        if found is NULL:
            return False
        self._started[context_id] = <object>found
        del self._unstarted[context_id]
        self._main_can_start_others = True
    # From here to the switch nothing is called that could run Python.
    target = <object>found
    self._active = target
    self._caller = target
    if me is self._main:
        result = switch_to(found, NULL, NULL)
    else:
        (<Coroutine>me).is_in_switch = True
        result = switch_to(found, NULL, NULL)
        (<Coroutine>me).is_in_switch = False
    if result is not NULL:
        Py_DECREF(<object>result)
        if self._caller is me:
            return True
    return resumed(self, me, result is not NULL)


cdef bint resumed(Switching self, object me, bint ok) except -1:
    """Go on in ``me``, which was resumed otherwise than by a plain switch. (A function of its own: less stack to copy.)"""
    if ok and self.canceled is me:
        cancellation, self.canceled, self.cancellation = self.cancellation, None, None
        raise cancellation
    try:
        if not ok:
            raise_again()
        self._resumed_unasked(me)
    except ContextExited as error:
        self._adopt(me)
        error.unwrap()
    except BaseException:
        self._adopt(me)
        raise
    return True


cdef class Coroutine(greenlet):
    """What a context is made on."""

    cdef bint is_in_switch

    def cancel(self, Switching environment not None, cancellation):
        """Raise the cancellation where this waits; return, or raise, when the caller is resumed."""
        # Not by `throw` if that can be helped: greenlet does it by an exception of C++, which takes long to unwind.
        if not self.is_in_switch:
            self.throw(cancellation)
            return
        environment.canceled, environment.cancellation = self, cancellation
        cdef PyObject *result = switch_to(<PyObject *>self, NULL, NULL)
        if result is NULL:
            raise_again()
        Py_DECREF(<object>result)


cdef class Switching:
    """What an environment is made on. Its attributes are explained in state.py."""

    cdef bint switch_if_plain(self, object context_id) except -1:
        """`switch_if_plain`, for other modules."""
        return switch_if_plain(self, context_id)

    def switch_context(self, context_id):
        """Suspend the active context and resume that one; return when somebody switches back.

        Switching to oneself does nothing. Raises `SwitchTargetMissing` if no context is suspended under that id, and
        `ContextCanceled` if the calling context is being destroyed. In main, raises what the entrypoint of another
        context raised, and `ContextEntrypointReturned` if one returned.
        """
        if not switch_if_plain(self, context_id):
            self._switch_slowly(context_id)
