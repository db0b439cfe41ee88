/* Waits for a short time in the ways of the C library: "naps MODE". Fails if it was too short. */

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/select.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "";
    struct timespec nap = {.tv_nsec = 20000000};
    double begin = now(), least = 0.02;
    int result = -1;
    if (!strcmp(mode, "sleep")) {
        least = 1;
        result = sleep(1);
    } else if (!strcmp(mode, "usleep")) {
        result = usleep(20000);
    } else if (!strcmp(mode, "nanosleep")) {
        result = nanosleep(&nap, 0);
    } else if (!strcmp(mode, "clock_nanosleep")) {
        clock_gettime(CLOCK_REALTIME, &nap);
        nap.tv_sec += (nap.tv_nsec + 20000000) / 1000000000;
        nap.tv_nsec = (nap.tv_nsec + 20000000) % 1000000000;
        least = 0.01; /* that clock may be set meanwhile */
        result = clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &nap, 0);
    } else if (!strcmp(mode, "poll")) {
        result = poll(0, 0, 20);
    } else if (!strcmp(mode, "select")) {
        struct timeval time = {.tv_usec = 20000};
        result = select(0, 0, 0, 0, &time);
    } else if (!strcmp(mode, "poll-stdin")) {
        struct pollfd fd = {.fd = 0, .events = POLLIN};
        result = poll(&fd, 1, 1000000);
        printf("%d ", !!(fd.revents & POLLIN));
        least = 0;
    }
    printf("%d\n", result);
    return now() - begin < least * 0.999;
}
