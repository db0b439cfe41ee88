/* Checks address-taken locals across switches: "shadow MODE [NUMBER]". Prints "bytes changed/bytes checked". */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wasix_context.h"

#define NOINLINE __attribute__((noinline))
enum { ROUNDS = 16, SIZE = 64 };

static int changed, checked;
static wasix_context_id_t first, second;

static void *hidden(void *pointer) /* from the optimizer: what it points to has to be in memory */
{
    __asm__ volatile("" : "+r"(pointer)::"memory");
    return pointer;
}

static void fill(unsigned char *bytes, int size)
{
    memset(hidden(bytes), 0xa5, size);
}

static void check(unsigned char *bytes, int size)
{
    bytes = hidden(bytes);
    for (int i = 0; i < size; i++)
        changed += bytes[i] != 0xa5;
    checked += size;
}

/* What any C function does: uses its own locals. */
static NOINLINE void churn(void)
{
    unsigned char local[1024];
    memset(hidden(local), 0x5a, sizeof local);
    hidden(local);
}

static NOINLINE void wait_with_local(void)
{
    unsigned char local[SIZE];
    fill(local, SIZE);
    wasix_context_switch(wasix_context_main);
    check(local, SIZE);
}

static void wait_again_and_again(void)
{
    for (;;)
        wait_with_local();
}

static NOINLINE void switch_in_helper(wasix_context_id_t id)
{
    unsigned char local[SIZE];
    fill(local, SIZE);
    wasix_context_switch(id);
    hidden(local);
}

/* A generator with a 32-byte buffer; its consumer formats text in between. */

static void generate(void)
{
    unsigned char local[32];
    for (;;) {
        fill(local, sizeof local);
        wasix_context_switch(wasix_context_main);
        check(local, sizeof local);
    }
}

static NOINLINE void consume(void)
{
    char text[100];
    wasix_context_create(&first, generate);
    for (int i = 0; i < 11; i++) {
        switch_in_helper(first);
        snprintf(hidden(text), sizeof text, "%d %s %f", i, "some text", i / 3.0);
    }
}

/* Two contexts; main switches in its own frame, or in a helper that returns; then it calls functions. */

static NOINLINE void in_own_frame(void)
{
    wasix_context_create(&first, wait_again_and_again);
    wasix_context_create(&second, wait_again_and_again);
    for (int i = 0; i <= ROUNDS; i++) {
        wasix_context_switch(first);
        churn();
        wasix_context_switch(second);
        churn();
    }
}

static NOINLINE void in_a_helper(void)
{
    wasix_context_create(&first, wait_again_and_again);
    wasix_context_create(&second, wait_again_and_again);
    for (int i = 0; i <= ROUNDS; i++) {
        switch_in_helper(first);
        churn();
        switch_in_helper(second);
        churn();
    }
}

/* The same in a guest that moves the pointer itself, as the WASIX port of greenlet does. */

static _Alignas(16) char own_stacks[2][16384];

static inline char *get_pointer(void)
{
    char *pointer;
    __asm__ volatile(".globaltype __stack_pointer, i32\n\tglobal.get __stack_pointer\n\tlocal.set %0" : "=r"(pointer));
    return pointer;
}

static inline void set_pointer(char *pointer)
{
    __asm__ volatile("local.get %0\n\tglobal.set __stack_pointer" ::"r"(pointer) : "memory");
}

static NOINLINE void wait_with_local_on_own_stack(void)
{
    unsigned char local[SIZE];
    fill(local, SIZE);
    char *pointer = get_pointer();
    wasix_context_switch(wasix_context_main);
    set_pointer(pointer);
    check(local, SIZE);
}

static NOINLINE void run_on_own_stack(void)
{
    for (;;)
        wait_with_local_on_own_stack();
}

static void on_first_stack(void)
{
    set_pointer(own_stacks[0] + sizeof own_stacks[0]);
    run_on_own_stack();
}

static void on_second_stack(void)
{
    set_pointer(own_stacks[1] + sizeof own_stacks[1]);
    run_on_own_stack();
}

static NOINLINE void moves_the_pointer(void)
{
    wasix_context_create(&first, on_first_stack);
    wasix_context_create(&second, on_second_stack);
    for (int i = 0; i < 2 * ROUNDS + 2; i++) {
        char *pointer = get_pointer();
        wasix_context_switch(i % 2 ? first : second);
        set_pointer(pointer);
        churn();
    }
}

/* Overflow, noticed when the context calls its host; and a deep recursion that ends before. */

static int depth;

static NOINLINE int recurse(int left)
{
    unsigned char local[48];
    fill(local, sizeof local);
    int below = left ? recurse(left - 1) : 0;
    check(local, sizeof local);
    return below + 1;
}

static void dive_and_wait(void)
{
    recurse(depth);
    for (;;)
        wasix_context_switch(wasix_context_main);
}

static NOINLINE int dive_to_the_host(int left)
{
    unsigned char local[48];
    fill(local, sizeof local);
    if (left == 0)
        wasix_context_switch(wasix_context_main);
    int below = left ? dive_to_the_host(left - 1) : 0;
    check(local, sizeof local);
    return below + 1;
}

static void wait_below(void)
{
    dive_to_the_host(depth);
    for (;;)
        wasix_context_switch(wasix_context_main);
}

static void dive(void (*entrypoint)(void))
{
    wasix_context_create(&second, wait_again_and_again);
    wasix_context_switch(second);
    wasix_context_create(&first, entrypoint);
    wasix_context_switch(first);
    wasix_context_switch(second);
}

/* Many contexts, one after the other and together. */

static void churn_and_wait(void)
{
    for (;;) {
        churn();
        wait_with_local();
    }
}

static int one_after_the_other(int count)
{
    for (int i = 0; i < count; i++) {
        wasix_context_id_t id;
        if (wasix_context_create(&id, churn_and_wait) || (i % 8 && wasix_context_switch(id)) || wasix_context_destroy(id))
            return 99;
    }
    return 0;
}

static int together(int count)
{
    for (int i = 0; i < count; i++) {
        wasix_context_id_t id;
        if (wasix_context_create(&id, churn_and_wait)) {
            printf("errno %d after %d contexts\n", errno, i);
            return 0;
        }
    }
    for (int i = 0; i < 3; i++) {
        for (int id = 1; id <= count; id++)
            if (wasix_context_switch(id))
                return 98;
        churn();
    }
    return 0;
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "";
    int number = depth = argc > 2 ? atoi(argv[2]) : 0, status = 0;
    if (!strcmp(mode, "generator"))
        consume();
    else if (!strcmp(mode, "own-frame"))
        in_own_frame();
    else if (!strcmp(mode, "helper"))
        in_a_helper();
    else if (!strcmp(mode, "moves-the-pointer"))
        moves_the_pointer();
    else if (!strcmp(mode, "dive-and-wait"))
        dive(dive_and_wait);
    else if (!strcmp(mode, "wait-below"))
        dive(wait_below);
    else if (!strcmp(mode, "one-after-the-other"))
        status = one_after_the_other(number);
    else if (!strcmp(mode, "together"))
        status = together(number);
    else
        return 97;
    printf("%d/%d\n", changed, checked);
    return status;
}
