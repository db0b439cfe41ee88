/* Events that a program waits for: signals that come in the middle of its code ("alarms"), in which nothing that the
   code has on its stack may change; and an event loop, with a context that works when an event counter tells it to. */

#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

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

static int alarms_in_code(void) {
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

enum { IN = 1, ADD = 0, DELETE = 2 };

static int32_t requests, answers;

static void add(int32_t event) {
    uint64_t one = 1;
    assert(write(event, &one, sizeof one) == sizeof one);
}

static uint64_t take(int32_t event) {
    uint64_t count;
    assert(read(event, &count, sizeof count) == sizeof count);
    return count;
}

static void worker(void) {
    for (int number = 1;; number++) {
        assert(take(requests) == 1);
        printf("worker: %d\n", number);
        add(answers);
        assert(wasix_context_switch(wasix_context_main) == 0);
    }
}

static int event_loop(void) {
    int32_t epoll;
    wasix_context_id_t context;
    wasix_epoll_event event = {.events = IN}, ready[4];
    uint32_t count;
    assert(wasix_epoll_create(&epoll) == 0);
    assert(wasix_fd_event(1, 0, &requests) == 0);
    assert(wasix_fd_event(0, 0, &answers) == 0);
    assert(wasix_context_create(&context, worker) == 0);
    int32_t watched[] = {requests, answers};
    for (int i = 0; i < 2; i++) {
        event.fd = watched[i];
        assert(wasix_epoll_ctl(epoll, ADD, watched[i], &event) == 0);
    }
    for (int left = 3; left > 0;) {
        assert(wasix_epoll_wait(epoll, ready, 4, UINT64_MAX, &count) == 0);
        for (uint32_t i = 0; i < count; i++) {
            assert(ready[i].events == IN);
            if (ready[i].fd == requests) {
                assert(wasix_context_switch(context) == 0);
            } else {
                assert(take(answers) == 1);
                if (--left > 0)
                    add(requests);
            }
        }
    }
    event.fd = STDIN_FILENO;
    assert(wasix_epoll_ctl(epoll, DELETE, requests, NULL) == 0);
    assert(wasix_epoll_ctl(epoll, ADD, STDIN_FILENO, &event) == 0);
    assert(wasix_epoll_wait(epoll, ready, 4, UINT64_MAX, &count) == 0);
    assert(count == 1 && ready[0].fd == STDIN_FILENO);
    printf("stdin\n");
    assert(close(epoll) == 0);
    assert(wasix_epoll_wait(epoll, ready, 4, 0, &count) != 0);
    return 0;
}

int main(int argc, char **argv) {
    return argc > 1 && strcmp(argv[1], "alarms") == 0 ? alarms_in_code() : event_loop();
}
