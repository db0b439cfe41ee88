# Signals: a guest's trap reaches wasmtime, whatever this thread's mask is, even if other code replaced the handlers.
# And no Ctrl-C is lost.
#
# wasmtime's traps are signals: SIGSEGV, SIGILL and SIGFPE. The kernel ends a process that blocks one of them, and other
# code (faulthandler, a JVM) replaces wasmtime's handlers. So the signals are unblocked before a guest runs. If wasmtime's
# handler was replaced, greenctx's handler replaces the other one: in a guest it calls wasmtime's handler, else the other
# one. (wasmtime's `signals_based_traps`, switched off, would do without signals. Then guests that use memory take up to
# 1.3 times as long, compiling 1.5 times, and there is no protection from Spectre.)

cdef extern from *:
    """
    #ifndef _WIN32
    #include <dlfcn.h>
    #include <pthread.h>
    #include <signal.h>
    #include <stddef.h>

    enum { TRAP_SIGNALS = 4 };
    static const int trap_signals[TRAP_SIGNALS] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE};
    static struct sigaction wasmtimes[TRAP_SIGNALS];  /* all zero: not known, or there is none for this signal */
    static struct sigaction others[TRAP_SIGNALS];
    static void *wasmtime_library;
    static _Thread_local int delegating;

    static void call_handler(const struct sigaction *action, int number, siginfo_t *info, void *context) {
        if (action->sa_flags & SA_SIGINFO)
            action->sa_sigaction(number, info, context);
        else
            action->sa_handler(number);
    }

    static int is_function(const struct sigaction *action) {
        return (action->sa_flags & SA_SIGINFO) || (action->sa_handler != SIG_DFL && action->sa_handler != SIG_IGN);
    }

    static void on_trap_signal(int number, siginfo_t *info, void *context) {
        struct sigaction current;
        int i = 0;
        while (trap_signals[i] != number)
            i++;
        if (polled != NULL) {
            call_handler(&wasmtimes[i], number, info, context);
            /* For a signal that is not a trap wasmtime restores the handler that it found when it began. */
            sigaction(number, NULL, &current);
            if ((current.sa_flags & SA_SIGINFO) && current.sa_sigaction == on_trap_signal)
                return;
        }
        if (delegating || !is_function(&others[i])) {
            signal(number, SIG_DFL);  /* the instruction that has failed does so again */
            return;
        }
        delegating = 1;
        call_handler(&others[i], number, info, context);
        delegating = 0;
    }

    static int is_wasmtimes(const struct sigaction *action) {
        Dl_info found;
        return is_function(action) && dladdr((void *)action->sa_sigaction, &found) && found.dli_fbase == wasmtime_library;
    }

    static void know_wasmtime(void *function) {
        Dl_info found;
        if (dladdr(function, &found))
            wasmtime_library = found.dli_fbase;
    }

    static void prepare_signals(void) {
        struct sigaction current, ours;
        sigset_t signals;
        sigemptyset(&signals);
        for (int i = 0; i < TRAP_SIGNALS; i++) {
            sigaddset(&signals, trap_signals[i]);
            if (sigaction(trap_signals[i], NULL, &current))
                continue;
            if (current.sa_sigaction == on_trap_signal || current.sa_sigaction == wasmtimes[i].sa_sigaction)
                continue;
            if (is_wasmtimes(&current)) {
                wasmtimes[i] = current;
            } else if (is_function(&wasmtimes[i])) {
                others[i] = current;
                ours = wasmtimes[i];
                ours.sa_sigaction = on_trap_signal;
                sigaction(trap_signals[i], &ours, NULL);
            }
        }
        pthread_sigmask(SIG_UNBLOCK, &signals, NULL);
    }
    #else
    static void know_wasmtime(void *function) {}
    static void prepare_signals(void) {}
    #endif
    """
    void know_wasmtime(void *) noexcept nogil
    void prepare_signals() noexcept nogil


def let_traps_through():
    """Let wasmtime hear of the traps of guests that run in this thread. Signals that were blocked remain unblocked."""
    prepare_signals()


def between_epochs():
    """Do the same, and run the handlers of signals that have come. May raise KeyboardInterrupt."""
    # Python 3.13 does not look for signals by itself in a child of a fork whose main thread was not its parent's.
    PyErr_CheckSignals()
    prepare_signals()


cdef class UnraisableHook:
    """A `sys.unraisablehook` that delivers Ctrl-C again to the thread that has made it, while it ``delivers``.

    Whatever else Python drops it passes to ``before``. It is native code, in which Python runs no signal handler: a
    hook in Python dropped what came in the hook itself.
    """
    cdef public object before
    cdef public bint delivers
    cdef unsigned long thread

    def __cinit__(self):
        self.before, self.delivers, self.thread = sys.__unraisablehook__, False, PyThread_get_thread_ident()

    def __call__(self, lost):
        # Without a handler of SIGINT in Python `interrupt_main` does nothing.
        delivers = self.delivers and PyThread_get_thread_ident() == self.thread and callable(getsignal(SIGINT))
        if not delivers or not issubclass(lost.exc_type, KeyboardInterrupt):
            try:
                return self.before(lost)
            except KeyboardInterrupt:
                if not delivers:
                    raise
        if sys.unraisablehook is self:
            interrupt_main()  # its handler runs when the thread is in Python code again
        else:
            start_new_thread(interrupt_main, ())  # a moment later, or the hook that has called this one would drop it
