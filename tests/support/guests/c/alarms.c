/* A signal's handler that runs in the middle of C code: nothing that the code has on its stack may change. */

#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "wasix.h"

enum { ALARM = 14, SIZE = 24 };

static volatile int alarms;

__attribute__((noinline)) static int use(volatile unsigned char *stack) {
    for (int i = 0; i < 512; i++)
        stack[i] = 0xaa;
    return stack[alarms];
}

__attribute__((export_name("__wasm_signal"))) void handle(int signal) {
    unsigned char stack[512];
    assert(signal == ALARM);
    assert(use(stack) == 0xaa);
    alarms++;
}

/* Calls nothing, so its array is below the stack pointer. */
__attribute__((noinline)) static int wait_in_leaf(int wanted) {
    volatile unsigned char array[SIZE];
    unsigned sum = 0, changed = 0;
    for (unsigned i = 0; i < SIZE; i++)
        array[i] = (unsigned char)(i * 7);
    while (alarms < wanted)
        sum += array[sum % SIZE];
    for (unsigned i = 0; i < SIZE; i++)
        changed += array[i] != (unsigned char)(i * 7);
    return (int)changed;
}

static void in_context(void) {
    int wanted = alarms + 3;
    assert(wait_in_leaf(wanted) == 0);
    assert(wasix_context_switch(wasix_context_main) == 0);
}

int main(void) {
    wasix_callback_signal("__wasm_signal", strlen("__wasm_signal"));
    assert(wasix_proc_raise_interval(ALARM, 1000000, 1) == 0);
    assert(wait_in_leaf(3) == 0);
    wasix_context_id_t context;
    assert(wasix_context_create(&context, in_context) == 0);
    assert(wasix_context_switch(context) == 0);
    assert(wasix_proc_raise_interval(ALARM, 0, 0) == 0);
    int before = alarms;
    assert(wasix_proc_raise_interval(ALARM, 1000000, 0) == 0);
    assert(wait_in_leaf(before + 1) == 0);
    return alarms >= 7 ? 0 : 1;
}
