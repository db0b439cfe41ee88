/* The ways in which a program ends: "endings MODE [STATUS]". */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wasix_context.h"

static int status;

static void say_goodbye(void)
{
    puts("atexit handler");
    fflush(stdout);
}

static void exit_in_context(void)
{
    puts("exit in a context");
    exit(status);
}

static void exit_immediately_in_context(void)
{
    _Exit(status);
}

static void return_from_entrypoint(void)
{
    puts("the entrypoint returns");
    fflush(stdout);
}

__attribute__((noinline)) static void fall_into_the_trap(int *volatile nowhere)
{
    *nowhere = 1;
    __builtin_trap();
}

static void trap_in_context(void)
{
    fall_into_the_trap((int *)16);
    wasix_context_switch(wasix_context_main);
}

static void abort_in_context(void)
{
    abort();
}

static void exit_again(void)
{
    puts("exit in atexit");
    fflush(stdout);
    exit(status);
}

static void switch_in_atexit(void)
{
    wasix_context_id_t id;
    if (wasix_context_create(&id, exit_in_context) == 0 && wasix_context_switch(id) == 0)
        puts("back in atexit");
}

static void wait_for_ever(void)
{
    for (;;)
        wasix_context_switch(wasix_context_main);
}

static int run_in_context(void (*entrypoint)(void))
{
    wasix_context_id_t waiting, id;
    if (wasix_context_create(&waiting, wait_for_ever) || wasix_context_switch(waiting))
        return 99;
    if (wasix_context_create(&id, entrypoint) || wasix_context_switch(id))
        return 99;
    puts("main goes on");
    return 98;
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "";
    status = argc > 2 ? atoi(argv[2]) : 0;
    atexit(say_goodbye);
    if (!strcmp(mode, "return"))
        return status;
    if (!strcmp(mode, "exit"))
        exit(status);
    if (!strcmp(mode, "trap")) {
        fall_into_the_trap((int *)16);
        return 97;
    }
    if (!strcmp(mode, "exit-in-context"))
        return run_in_context(exit_in_context);
    if (!strcmp(mode, "_exit-in-context"))
        return run_in_context(exit_immediately_in_context);
    if (!strcmp(mode, "return-from-entrypoint"))
        return run_in_context(return_from_entrypoint);
    if (!strcmp(mode, "trap-in-context"))
        return run_in_context(trap_in_context);
    if (!strcmp(mode, "abort-in-context"))
        return run_in_context(abort_in_context);
    if (!strcmp(mode, "exit-in-atexit")) {
        atexit(exit_again);
        return 95;
    }
    if (!strcmp(mode, "exit-in-atexit-of-context")) {
        atexit(exit_again);
        return run_in_context(exit_in_context);
    }
    if (!strcmp(mode, "switch-in-atexit")) {
        atexit(switch_in_atexit);
        return 95;
    }
    if (!strcmp(mode, "leave-suspended")) {
        wasix_context_id_t id;
        for (int i = 0; i < 10; i++) /* half of them started */
            if (wasix_context_create(&id, wait_for_ever) || (i % 2 && wasix_context_switch(id)))
                return 99;
        return status;
    }
    return 96;
}
