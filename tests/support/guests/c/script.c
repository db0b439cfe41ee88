/* Obeys a script of context operations. The host hands them out one by one to whichever context is active. */

#include <stdlib.h>

#include "wasix_context.h"

#define SCRIPT_IMPORT(name) __attribute__((import_module("script"), import_name(name)))

SCRIPT_IMPORT("operation") int32_t next_operation(void);
SCRIPT_IMPORT("argument") uint64_t argument(void); /* of that operation */
SCRIPT_IMPORT("log") void write_log(wasix_context_id_t context, int32_t depth, int32_t error, wasix_context_id_t created);

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

int main(void)
{
    atexit(at_exit);
    return obey(wasix_context_main, 0);
}
