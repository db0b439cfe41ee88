/* setjmp and longjmp in main and in contexts, with switches in between. Argument: how often main jumps. */
#include <assert.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#include "wasix_context.h"

/* The exception that longjmp throws. zig's libc declares it; not all versions define it. */
__asm__(".weak __c_longjmp\n.tagtype __c_longjmp i32\n__c_longjmp:\n");

static jmp_buf in_main, in_context[2];
static wasix_context_id_t ids[2];
static int jumps[2];

/* Jump from some frames further down; at each of them the others run. */
static void jump_from_below(int me, int depth) {
    volatile int kept = depth * 1000 + me;
    wasix_context_switch(me == 0 ? ids[1] : wasix_context_main);
    assert(kept == depth * 1000 + me);
    if (depth == 0) longjmp(in_context[me], jumps[me] + 1);
    jump_from_below(me, depth - 1);
}

static void run_context(int me) {
    for (;;) {
        volatile int kept = jumps[me] * 7;
        int n = setjmp(in_context[me]);
        if (n == 0) jump_from_below(me, 1 + me % 2);
        assert(n == jumps[me] + 1);
        assert(kept == jumps[me] * 7);
        jumps[me]++;
        wasix_context_switch(me == 0 ? ids[1] : wasix_context_main);
    }
}

static void first(void) { run_context(0); }
static void second(void) { run_context(1); }

static void leave(int n) {
    wasix_context_switch(ids[0]);
    longjmp(in_main, n);
}

int main(int argc, char **argv) {
    int rounds = argc > 1 ? atoi(argv[1]) : 10;
    assert(wasix_context_create(&ids[0], first) == 0);
    assert(wasix_context_create(&ids[1], second) == 0);
    for (volatile int i = 1; i <= rounds; i++) {
        int n = setjmp(in_main);
        if (n == 0) {
            wasix_context_switch(ids[0]);
            leave(i);
        }
        assert(n == i);
    }
    printf("%d jumps in main, %d in context 1, %d in context 2\n", rounds, jumps[0], jumps[1]);
    return 0;
}
