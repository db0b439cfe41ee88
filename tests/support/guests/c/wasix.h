/* The imports of WASIX's own libc beyond contexts, for guests that make the same calls with any WASI toolchain. */

#ifndef WASIX_H
#define WASIX_H

#include <stdint.h>

#include "wasix_context.h"

typedef struct {
    uint8_t given;
    uint64_t nanoseconds;
} wasix_timeout;

typedef struct {
    uint32_t events;
    uint64_t : 0;
    void *pointer;
    int32_t fd;
    uint32_t data1;
    uint64_t data2;
} wasix_epoll_event;

WASIX_IMPORT("proc_signals_sizes_get") int32_t wasix_proc_signals_sizes_get(uint32_t *count);
WASIX_IMPORT("proc_signals_get") int32_t wasix_proc_signals_get(uint8_t *dispositions);
WASIX_IMPORT("callback_signal") void wasix_callback_signal(const char *name, uint32_t length);
WASIX_IMPORT("thread_signal") int32_t wasix_thread_signal(int32_t thread, int32_t signal);
WASIX_IMPORT("proc_raise_interval") int32_t
wasix_proc_raise_interval(int32_t signal, uint64_t nanoseconds, int32_t repeats);
WASIX_IMPORT("proc_exit2") _Noreturn void wasix_proc_exit2(int32_t status);
WASIX_IMPORT("thread_exit") _Noreturn void wasix_thread_exit(int32_t status);
WASIX_IMPORT("proc_id") int32_t wasix_proc_id(int32_t *id);
WASIX_IMPORT("futex_wait") int32_t
wasix_futex_wait(volatile int32_t *futex, int32_t expected, const wasix_timeout *timeout, uint8_t *woken);
WASIX_IMPORT("futex_wake") int32_t wasix_futex_wake(volatile int32_t *futex, uint8_t *woken);
WASIX_IMPORT("futex_wake_all") int32_t wasix_futex_wake_all(volatile int32_t *futex, uint8_t *woken);
WASIX_IMPORT("getcwd") int32_t wasix_getcwd(char *path, uint32_t *length);
WASIX_IMPORT("chdir") int32_t wasix_chdir(const char *path, uint32_t length);
WASIX_IMPORT("path_open2") int32_t
wasix_path_open2(int32_t fd, int32_t lookup, const char *path, uint32_t length, int32_t how, uint64_t rights,
                 uint64_t inheriting, int32_t fdflags, int32_t flags, int32_t *opened);
WASIX_IMPORT("fd_dup2") int32_t wasix_fd_dup2(int32_t fd, int32_t lowest, int32_t close_on_exec, int32_t *duplicate);
WASIX_IMPORT("fd_fdflags_get") int32_t wasix_fd_fdflags_get(int32_t fd, uint16_t *flags);
WASIX_IMPORT("fd_fdflags_set") int32_t wasix_fd_fdflags_set(int32_t fd, int32_t flags);
WASIX_IMPORT("fd_pipe") int32_t wasix_fd_pipe(int32_t *read, int32_t *write);
WASIX_IMPORT("fd_event") int32_t wasix_fd_event(uint64_t count, int32_t flags, int32_t *event);
WASIX_IMPORT("epoll_create") int32_t wasix_epoll_create(int32_t *epoll);
WASIX_IMPORT("epoll_ctl") int32_t
wasix_epoll_ctl(int32_t epoll, int32_t operation, int32_t fd, const wasix_epoll_event *event);
WASIX_IMPORT("epoll_wait") int32_t
wasix_epoll_wait(int32_t epoll, wasix_epoll_event *events, int32_t max_events, uint64_t timeout, uint32_t *count);

__attribute__((import_module("wasi"), import_name("thread-spawn"))) int32_t wasi_thread_spawn(void *argument);

#endif
