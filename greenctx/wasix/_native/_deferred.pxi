# Switches from guest to guest whose greenlet switch is deferred.
#
# A guest that waits in its context_switch has nothing on its context's greenlet but `Fiber.poll`. Guests cannot tell
# which greenlet polls them, and Python code can. So the greenlet of one context goes on with the guest of another, and
# so on, until Python code of a context has to run: that runs on its own context's greenlet, always.
#
#   state    | the guest                                     | the greenlet of its context
#   -------- | --------------------------------------------- | ----------------------------------------------------
#   running  | runs, or waits for a host function in Python   | runs: it polls the guest, or runs that function
#   waiting  | waits in its context_switch                    | is suspended in `Fiber.poll`, or runs another's guest
#   driven   | runs                                           | is suspended in `Fiber.poll`
#   due      | needs Python, or has ended                     | is suspended in `Fiber.poll`, and the next to be resumed
#
#   transition         | by                            | when
#   ------------------ | ----------------------------- | ----------------------------------------------------------
#   running -> waiting | `defer`                       | its guest switches to one that waits
#                      | `Fiber.switch_context`        | it switches to a context that waits in Python, or is started
#   waiting -> driven  | `defer`                       | the guest that a greenlet runs switches to it
#   driven  -> waiting | `defer`, `hand_over`          | it switches on
#   waiting -> running | `defer`                       | it is switched to by a guest that its own greenlet runs
#                      | `Fiber.poll`                  | its greenlet is resumed by a switch, or with an exception
#   driven  -> due     | `hand_over`                   | it calls a host function, an epoch ends, or its call ends
#   due     -> running | `Fiber.poll`                  | its greenlet is resumed
#
# A call is waiting while its context's `guest_call` is the call, and due while `Fiber.is_due`. Whether its guest yields
# (see _callbacks.pxi) or is in an asynchronous host call makes no difference here.
#
# All of it happens with the GIL held, from `defer` until the greenlet is resumed on which the guest that runs belongs.
# So neither Python code of this thread nor that of another one ever sees a driven call, whose context is active while
# its greenlet is not the current one. Where guests run without the GIL, greenlets are switched at once. So they are where
# suspended calls stand on one another (the anchor), in nested environments, and where instruments or a subclass have to
# hear of each switch.

cdef Fiber run_guests(Fiber self):
    """Run the guest of this greenlet's call, then the guests that they switch to, until one needs Python.

    Return the call whose guest needs Python, has ended, or wants to switch to a context that does not wait.
    """
    # A function, not a method: the compiler inlines a static function with one caller, and methods are in a table. Each
    # frame costs on the way back from another stack, because the processor predicts the returns of the stack it left.
    cdef StoreState state = self.state
    cdef Switching switching = self.switching
    cdef Fiber fiber = self
    cdef PyObject *target
    cdef bint done
    if self.request.future == NULL:
        raise RuntimeError("this call has ended")
    state.enter(&self.request, self.polled, self.environment, switching)
    cdef bint may_defer = (
        switching is not None and switching._is_plain and switching._outer is None
        and state.callers is <object>self.greenlet  # not while its context is being destroyed
        and state.suspensions.anchor == NULL and state.defers_switches)
    while True:
        done = run_guest(fiber)
        if done or not may_defer or not fiber.wants_switch():
            break
        target = find_waiting(state, switching, fiber.switch_target())
        if target == NULL:
            break
        fiber = defer(fiber, <Fiber>target)
    state.leave(self.environment, switching)
    if state.suspensions.gc_task != NULL:  # a suspended call ended, or waited elsewhere, instead of polling the next
        state.suspensions.gc_task = NULL
        raise RuntimeError("a call that is suspended in a host function has not come back to it")
    if done:
        fiber.end()
    return fiber


cdef inline bint run_guest(Fiber self) noexcept:
    """Let the guest go on until it is suspended; return whether the call has ended."""
    cdef request_t *request = &self.request
    # The GIL: released around every poll, a switch takes 0.49 us, but 83 to 91 us beside a busy Python thread, which
    # takes the GIL each time. Held, other threads starve while the guest computes. So it is held for the first epoch,
    # and released once the guest has computed for longer than that.
    cdef bint hold = self.holds_gil and not request.epoch_ended
    cdef bint done
    if self.stack is not None:
        # Here and nowhere else: so it does not matter what has happened since the guest ran last.
        self.stack_pointer.use(self.stack)
    self.forget_suspension()
    if request.yields:
        end_yield(request)
    request.function = NULL
    request.is_switch = request.epoch_ended = False
    request.holds_gil = hold
    if hold:
        done = self.go_on()
    else:
        with nogil:
            done = self.go_on()
    if done:  # a guest that had no stack left to yield on has noted a request
        request.function, request.is_switch, request.yields = NULL, False, False
    else:
        self.note_suspension()
    if self.stack is not None:
        self.overflowed = request.function != NULL and self.stack_pointer.overflowed(self.stack)
    return done


cdef inline PyObject *find_waiting(StoreState state, Switching switching, uint64_t context_id) noexcept:
    """Return the call in which that context waits, if its guest is of that store and runs with the GIL held; else NULL."""
    cdef PyObject *call = <PyObject *>state.found[<uint8_t>context_id]
    cdef PyObject *target
    if (call == NULL or (<Fiber>call).context_id != context_id or (<Fiber>call).switching is not switching
            or (<Fiber>call).context.guest_call != <void *>call):
        target = switching.find_started(context_id)
        call = NULL if target == NULL else <PyObject *>(<Coroutine>target).guest_call
        if call == NULL or (<Fiber>call).state is not state:
            return NULL
        state.found[<uint8_t>context_id] = call
    return call if (<Fiber>call).holds_gil else NULL


cdef inline Fiber defer(Fiber fiber, Fiber next_fiber):
    """Let the guest of ``fiber`` wait, and that of ``next_fiber`` run, on the same greenlet. Return the call to poll."""
    fiber.state.switches += 1  # an unsigned short: it wraps round to 0 after 65,535
    fiber.context.guest_call = <void *>fiber
    next_fiber.context.guest_call = NULL
    next_fiber.switching._active = next_fiber.context
    next_fiber.state.polled[0] = &next_fiber.request
    next_fiber.answer_switch()
    return next_fiber


cdef bint hand_over(Fiber self, Fiber driven) except -1:
    """Suspend this greenlet and resume the one of the driven call, or of the context that its guest switches to.

    Return when this greenlet is resumed, or raise. Its own call waits meanwhile.
    """
    # Nothing here may raise before the switch, because the active context is not this greenlet's.
    cdef PyObject *target = NULL
    if driven.wants_switch():
        target = driven.switching.find_started(driven.switch_target())
    if target == NULL or target == <PyObject *>driven.context:  # an unstarted context, an absent one, itself
        driven.is_due = True
        target = <PyObject *>driven.context
    else:
        self.state.switches += 1
        driven.context.guest_call = <void *>driven
    return self.switching.resume(self.context, <Coroutine>target, <void *>self)
