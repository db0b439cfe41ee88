# A clock that nobody can stop: freezegun, for one, replaces `time.monotonic` in every module that refers to it.

cdef extern from *:
    """
    #ifdef _WIN32
    #include <windows.h>
    static double monotonic_seconds(void) {
        LARGE_INTEGER now, frequency;
        QueryPerformanceCounter(&now);
        QueryPerformanceFrequency(&frequency);
        return (double)now.QuadPart / (double)frequency.QuadPart;
    }
    #else
    #include <time.h>
    static double monotonic_seconds(void) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
    }
    #endif
    """
    double monotonic_seconds() noexcept nogil


def monotonic():
    """Return the seconds since some moment, as `time.monotonic` does where nobody has replaced it."""
    return monotonic_seconds()
