/* The ways in which a program waits, or goes on for ever: "waits MODE". Says "ready" first, and how the wait ended. */

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "wasix_context.h"

static void spin(void)
{
    for (volatile unsigned i = 0;; i++)
        ;
}

static void spin_in_a_loop_without_calls(void)
{
    for (;;)
        __asm__ volatile("");
}

static void switch_for_ever(void)
{
    for (;;)
        wasix_context_switch(wasix_context_main);
}

static void read_for_ever(void)
{
    char line[100];
    while (fgets(line, sizeof line, stdin))
        printf("read %s", line);
    puts("end of file");
}

static void sleep_for_ever(void)
{
    printf("left %u\n", sleep(1000000));
}

static void usleep_for_ever(void)
{
    for (;;)
        usleep(1000);
}

static void nanosleep_for_ever(void)
{
    struct timespec time = {.tv_sec = 1000000000};
    nanosleep(&time, 0);
}

static void poll_for_ever(void)
{
    struct pollfd fd = {.fd = 0, .events = POLLIN};
    printf("poll %d\n", poll(&fd, 1, -1));
}

static void write_for_ever(void)
{
    static char much[100000];
    memset(much, 'x', sizeof much);
    for (;;)
        fwrite(much, 1, sizeof much, stdout);
}

static const struct {
    const char *name;
    void (*function)(void);
} modes[] = {
    {"spin", spin},
    {"spin-without-calls", spin_in_a_loop_without_calls},
    {"switch", switch_for_ever},
    {"read", read_for_ever},
    {"sleep", sleep_for_ever},
    {"usleep", usleep_for_ever},
    {"nanosleep", nanosleep_for_ever},
    {"poll", poll_for_ever},
    {"write", write_for_ever},
};

static void (*the_function)(void);

static void in_a_context(void)
{
    the_function();
    for (;;)
        wasix_context_switch(wasix_context_main);
}

/* waits MODE: in main; waits MODE context: in a context, while another one waits */
int main(int argc, char **argv)
{
    wasix_context_id_t other, id;
    for (unsigned i = 0; argc > 1 && i < sizeof modes / sizeof *modes; i++)
        if (!strcmp(argv[1], modes[i].name))
            the_function = modes[i].function;
    if (!the_function)
        return 99;
    if (wasix_context_create(&other, switch_for_ever) || wasix_context_switch(other))
        return 98;
    fputs("ready\n", stderr);
    if (argc > 2) {
        if (wasix_context_create(&id, in_a_context) || wasix_context_switch(id))
            return 97;
    } else if (the_function == switch_for_ever) {
        for (;;)
            wasix_context_switch(other);
    } else {
        the_function();
    }
    return 0;
}
