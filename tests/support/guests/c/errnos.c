/* Checks the errno of the context calls for every mistake. Exits with 0, or prints the first wrong line. */

#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wasix_context.h"

enum { MEMVIOLATION = 78 }; /* of WASIX; WASI's libcs have no name for it */

#define FAILS_WITH(error, call) (errno = 0, assert((call) == -1), assert(errno == (error)))
#define SUCCEEDS(call) assert((call) == 0)

static const wasix_context_id_t untouched = 0x5a5a5a5a5a5a5a5a;
static wasix_context_id_t own_id;
static int entered, finished;

static void switch_back(void)
{
    entered++;
    for (;;)
        SUCCEEDS(wasix_context_switch(wasix_context_main));
}

static int takes_and_returns(int number)
{
    return number;
}

static void takes(int number)
{
    (void)number;
}

static int returns(void)
{
    return 0;
}

static void check_create(void)
{
    wasix_context_id_t first, next, id = untouched;
    void (*const wrong[])(void) = {
        0, (void (*)(void))takes_and_returns, (void (*)(void))takes, (void (*)(void))returns,
        (void (*)(void))(uintptr_t)0x7fffffff, (void (*)(void))(uintptr_t)0x80000000,
        (void (*)(void))(uintptr_t)0xffffffff, (void (*)(void))(uintptr_t)100000,
    };
    SUCCEEDS(wasix_context_create(&first, switch_back));
    for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        FAILS_WITH(EINVAL, wasix_context_create(&id, wrong[i]));
        assert(id == untouched);
    }
    SUCCEEDS(wasix_context_create(&next, switch_back));
    assert(next == first + 1);
    SUCCEEDS(wasix_context_destroy(first));
    SUCCEEDS(wasix_context_destroy(next));
    assert(entered == 0);
}

static void check_pointers(void)
{
    const uintptr_t size = __builtin_wasm_memory_size(0) * 65536;
    const uintptr_t outside[] = {
        size - 7, size - 1, size, size + 8, 0x7ffffff8, 0x7fffffff, 0x80000000, 0x80000008, 0xfffffff0, 0xfffffff8,
        0xfffffff9, 0xffffffff,
    };
    wasix_context_id_t first, next;
    unsigned char *top = (unsigned char *)(size - 64), before[64];
    SUCCEEDS(wasix_context_create(&first, switch_back));
    memcpy(before, top, 64);
    for (unsigned i = 0; i < sizeof outside / sizeof *outside; i++) {
        FAILS_WITH(MEMVIOLATION, wasix_context_create((wasix_context_id_t *)outside[i], switch_back));
        assert(memcmp(before, top, 64) == 0);
    }
    SUCCEEDS(wasix_context_create((wasix_context_id_t *)(size - 8), switch_back));
    memcpy(&next, top + 56, 8);
    assert(next == first + 1); /* and the eight before created nothing */
    memcpy(top, before, 64);
    SUCCEEDS(wasix_context_destroy(first));
    SUCCEEDS(wasix_context_destroy(next));
}

static void check_switch(void)
{
    wasix_context_id_t id;
    SUCCEEDS(wasix_context_switch(wasix_context_main)); /* oneself: nothing happens */
    FAILS_WITH(EINVAL, wasix_context_switch(100000));
    FAILS_WITH(EINVAL, wasix_context_switch(UINT64_MAX));
    FAILS_WITH(EINVAL, wasix_context_switch((uint64_t)1 << 63));
    FAILS_WITH(EINVAL, wasix_context_switch((uint64_t)1 << 32)); /* not taken for main */
    SUCCEEDS(wasix_context_create(&id, switch_back));
    SUCCEEDS(wasix_context_switch(id));
    assert(entered == 1);
    SUCCEEDS(wasix_context_destroy(id));
    FAILS_WITH(EINVAL, wasix_context_switch(id));
    SUCCEEDS(wasix_context_create(&id, switch_back));
    SUCCEEDS(wasix_context_destroy(id));
    FAILS_WITH(EINVAL, wasix_context_switch(id));
    assert(entered == 1);
}

static void check_within(void)
{
    SUCCEEDS(wasix_context_switch(own_id)); /* oneself: nothing happens */
    FAILS_WITH(EINVAL, wasix_context_destroy(own_id));
    FAILS_WITH(EINVAL, wasix_context_destroy(wasix_context_main));
    SUCCEEDS(wasix_context_destroy(100000));
    FAILS_WITH(EINVAL, wasix_context_switch(100000));
    finished++;
    for (;;)
        SUCCEEDS(wasix_context_switch(wasix_context_main));
}

static void check_destroy(void)
{
    wasix_context_id_t id, last;
    FAILS_WITH(EINVAL, wasix_context_destroy(wasix_context_main));
    SUCCEEDS(wasix_context_destroy(100000));
    SUCCEEDS(wasix_context_destroy(UINT64_MAX));
    SUCCEEDS(wasix_context_destroy((uint64_t)1 << 32));
    SUCCEEDS(wasix_context_create(&own_id, check_within));
    SUCCEEDS(wasix_context_switch(own_id));
    assert(finished == 1);
    SUCCEEDS(wasix_context_destroy(own_id));
    SUCCEEDS(wasix_context_destroy(own_id)); /* again: nothing happens */
    last = own_id;
    for (int i = 0; i < 100; i++, last = id) { /* ids are never used again */
        SUCCEEDS(wasix_context_create(&id, switch_back));
        assert(id == last + 1);
        SUCCEEDS(wasix_context_destroy(id));
    }
}

int main(void)
{
    check_create();
    check_pointers();
    check_switch();
    check_destroy();
    puts("all as it should be");
    return 0;
}
