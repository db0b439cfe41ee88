/* Obeys a script of context operations. The host hands them out one by one to whichever context is active; or, for hosts
 * that know nothing of scripts (-DON_ITS_OWN), the script is the first argument and the log goes to stdout. */

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "wasix_context.h"

#ifdef ON_ITS_OWN

static const char *script;
static uint64_t current_argument;

__attribute__((noinline)) static int32_t next_operation(void)
{
    char *end;
    const int32_t operation = (int32_t)strtol(script, &end, 10);
    current_argument = strtoull(end, &end, 10);
    script = end;
    return operation;
}

static uint64_t argument(void)
{
    return current_argument;
}

/* Not inlined, so that what is in memory of these frames is gone before another context runs. */
__attribute__((noinline)) static void
write_log(wasix_context_id_t context, int32_t depth, int32_t error, wasix_context_id_t created)
{
    printf("%" PRIu64 " %" PRId32 " %" PRId32 " %" PRIu64 "\n", context, depth, error, created);
    fflush(stdout); /* a trap would lose the rest */
}

#else

#define SCRIPT_IMPORT(name) __attribute__((import_module("script"), import_name(name)))

SCRIPT_IMPORT("operation") int32_t next_operation(void);
SCRIPT_IMPORT("argument") uint64_t argument(void); /* of that operation */
SCRIPT_IMPORT("log") void write_log(wasix_context_id_t context, int32_t depth, int32_t error, wasix_context_id_t created);

#endif

enum { CREATE, SWITCH, DESTROY, ENTER, LEAVE, RETURN, EXIT, TRAP }; /* numbered as in tests/scripts.py */
enum { STARTED = -1, AT_EXIT = -2 };

static wasix_context_id_t target, created;

static void run_context(void);

static void takes_argument(int number)
{
    (void)number;
}

/* Mistakes 1 to 3 are about the entrypoint, 4 and 5 about the pointer, 6 about both. */
static int32_t create(int mistake)
{
    void (*const entrypoints[])(void) = {
        run_context, 0, (void (*)(void))(uintptr_t)0x80000000, (void (*)(void))takes_argument, run_context, run_context, 0,
    };
    const uintptr_t size = __builtin_wasm_memory_size(0) * 65536;
    const uintptr_t pointers[] = {
        (uintptr_t)&created, (uintptr_t)&created, (uintptr_t)&created, (uintptr_t)&created, size - 4, 0xfffffff0, size,
    };
    created = 0;
    return wasix_32v1_context_create((wasix_context_id_t *)pointers[mistake], entrypoints[mistake]);
}

/* Returns the status that the program is to end with, or -1 to leave this frame only. */
__attribute__((noinline)) static int obey(wasix_context_id_t me, int depth)
{
    for (;;) {
        int operation = next_operation(), error = 0, status;
        switch (operation) {
        case CREATE:
            error = create((int)argument());
            break;
        case SWITCH:
            target = argument();
            error = wasix_32v1_context_switch(target);
            break;
        case DESTROY:
            error = wasix_32v1_context_destroy(argument());
            break;
        case ENTER:
            status = obey(me, depth + 1);
            if (status >= 0)
                return status;
            break;
        case LEAVE:
            if (depth > 0)
                return -1;
            break;
        case RETURN:
            return (int)argument();
        case EXIT:
            exit((int)argument());
        case TRAP:
            __builtin_trap();
        }
        write_log(me, depth, error, operation == CREATE ? created : 0);
    }
}

static void run_context(void)
{
    const wasix_context_id_t me = target; /* it has just been switched to */
    write_log(me, 0, STARTED, 0);
    obey(me, 0);
}

static void at_exit(void)
{
    write_log(0, 0, AT_EXIT, 0);
}

int main(int argc, char **argv)
{
#ifdef ON_ITS_OWN
    script = argc > 1 ? argv[1] : "";
#else
    (void)argc, (void)argv;
#endif
    atexit(at_exit);
    return obey(wasix_context_main, 0);
}
