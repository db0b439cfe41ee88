/* A program as WASIX's toolchain makes them, which does a bit of everything: "toolchain MODE". It has a directory /. */

#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "wasix.h"

enum { SIGABRT = 6, SIGUSR1 = 10 };
enum { ROOT = 3, CREATE = 1, TRUNCATE = 8, READ = 1 << 1, SEEK = 1 << 2, WRITE = 1 << 6, CLOSE_ON_EXEC = 1 };

static _Thread_local int of_the_thread = 5;

/* What the libc does before main. */
__attribute__((constructor)) static void start(void)
{
    uint32_t count = 77;
    assert(wasix_proc_signals_sizes_get(&count) == 0 && count == 0);
    assert(wasix_proc_signals_get((uint8_t *)&count) == 0);
    wasix_callback_signal("__wasm_signal", 13);
}

/* Signals. */

static void (*handlers[65])(int);

__attribute__((export_name("__wasm_signal"))) void call_handler(int signal)
{
    if (handlers[signal])
        handlers[signal](signal);
    else
        wasix_proc_exit2(128 + signal);
}

static int raise_signal(int signal)
{
    return wasix_thread_signal(0, signal);
}

/* A lock as libcs have them: 0 is free, 1 locked, 2 locked and perhaps waited for. */

typedef volatile int32_t mutex;

static int try_lock(mutex *it)
{
    return __sync_val_compare_and_swap(it, 0, 1) == 0;
}

static void lock(mutex *it)
{
    const wasix_timeout never = {0, 0};
    uint8_t woken;
    if (try_lock(it))
        return;
    while (__atomic_exchange_n(it, 2, __ATOMIC_SEQ_CST) != 0)
        assert(wasix_futex_wait(it, 2, &never, &woken) == 0);
}

static void unlock(mutex *it)
{
    uint8_t woken = 7;
    if (__atomic_exchange_n(it, 0, __ATOMIC_SEQ_CST) == 2)
        assert(wasix_futex_wake(it, &woken) == 0 && woken == 0);
}

/* Files. */

static int open_file(const char *path, int how, uint64_t rights)
{
    int32_t fd = -1;
    int32_t error = wasix_path_open2(ROOT, 1, path, strlen(path), how, rights, rights, 0, CLOSE_ON_EXEC, &fd);
    if (error != 0) {
        errno = error;
        return -1;
    }
    uint16_t flags;
    assert(wasix_fd_fdflags_get(fd, &flags) == 0 && flags == CLOSE_ON_EXEC);
    return fd;
}

static void use_files(void)
{
    char directory[64];
    uint32_t size = 1;
    assert(wasix_getcwd(directory, &size) == 68 && size == 2);
    assert(wasix_getcwd(directory, &size) == 0 && strcmp(directory, "/") == 0);
    assert(mkdir("/made", 0777) == 0);
    assert(wasix_chdir("made", 4) == 0);
    size = sizeof directory;
    assert(wasix_getcwd(directory, &size) == 0 && size == 5 && strcmp(directory, "/made") == 0);

    int fd = open_file("/made/./file", CREATE, READ | WRITE | SEEK);
    FILE *file = fdopen(fd, "w+");
    assert(file && fprintf(file, "%d %s\n", 42, "written") > 0 && fflush(file) == 0);
    rewind(file);
    int number;
    char word[20];
    assert(fscanf(file, "%d %19s", &number, word) == 2 && number == 42 && strcmp(word, "written") == 0);
    assert(fclose(file) == 0);
    assert(open_file("/made/absent", 0, READ) == -1 && errno == ENOENT);
    assert(wasix_chdir("/made/file", 10) == ENOTDIR && wasix_chdir("absent", 6) == ENOENT);
    assert(wasix_chdir("..", 2) == 0);
    puts("files");
}

/* Three contexts: one writes to a pipe, one reads from it, one handles signals. They take turns. */

static wasix_context_id_t writer, reader, handling;
static int32_t read_end, write_end;
static mutex shared_lock;
static int in_the_handler;
static wasix_context_id_t handled_in;

static void write_to_the_pipe(void)
{
    lock(&shared_lock);
    for (int i = 0; i < 3; i++) {
        char line[32];
        int length = snprintf(line, sizeof line, "line %d\n", i);
        assert(write(write_end, line, length) == length);
        wasix_context_switch(reader);
    }
    assert(close(write_end) == 0);
    unlock(&shared_lock);
    wasix_context_switch(reader);
    abort();
}

static void read_from_the_pipe(void)
{
    char line[32];
    ssize_t length;
    assert(read(read_end, line, 0) == 0);
    while ((length = read(read_end, line, sizeof line)) > 0) {
        printf("read %.*s", (int)length, line);
        assert(!try_lock(&shared_lock));
        assert(read(read_end, line, sizeof line) == -1 && errno == EAGAIN);
        wasix_context_switch(handling);
    }
    assert(length == 0);
    assert(try_lock(&shared_lock));
    unlock(&shared_lock);
    puts("end of file");
    wasix_context_switch(wasix_context_main);
    abort();
}

static void on_user1(int signal)
{
    int local = signal;
    in_the_handler++;
    handled_in = wasix_32v1_context_destroy(handling) == EINVAL ? handling : 0; /* nobody can destroy himself */
    wasix_context_switch(writer); /* in the middle of it */
    assert(local == SIGUSR1);
    in_the_handler--;
}

static void handle_signals(void)
{
    for (;;) {
        assert(raise_signal(SIGUSR1) == 0);
        assert(in_the_handler == 0 && handled_in == handling);
    }
}

static void exit_in_a_context(void)
{
    int *volatile shared = &of_the_thread;
    printf("exit in a context, %d\n", *shared);
    exit(3);
}

static void say_goodbye(void)
{
    puts("atexit");
}

static void run_contexts(void)
{
    assert(wasix_fd_pipe(&read_end, &write_end) == 0);
    handlers[SIGUSR1] = on_user1;
    assert(wasix_context_create(&writer, write_to_the_pipe) == 0);
    assert(wasix_context_create(&reader, read_from_the_pipe) == 0);
    assert(wasix_context_create(&handling, handle_signals) == 0);
    assert(wasix_context_switch(writer) == 0);
    assert(write(read_end, "x", 1) == -1 && errno == EBADF);
    assert(close(read_end) == 0);
}

static void lock_for_ever(void)
{
    lock(&shared_lock);
}

static void do_nothing(void) {}

static void in_a_context(void (*entrypoint)(void))
{
    wasix_context_id_t id;
    assert(wasix_context_create(&id, do_nothing) == 0 && wasix_context_destroy(id) == 0);
    assert(wasix_context_create(&id, entrypoint) == 0);
    wasix_context_switch(id);
    abort();
}

static void raise_abort(void)
{
    raise_signal(SIGABRT);
}

static void nothing(int signal)
{
    (void)signal;
    puts("handled");
}

static void wait_with_timeout(void)
{
    const wasix_timeout shortly = {1, 1000000};
    uint8_t woken = 7;
    mutex it = 1;
    assert(wasix_futex_wait(&it, 1, &shortly, &woken) == 0 && woken == 0);
    assert(wasix_futex_wait(&it, 2, &shortly, &woken) == 0 && woken == 1);
    assert(wasix_futex_wake_all(&it, &woken) == 0 && woken == 0);
    puts("timed out");
}

static void wait_for_long(void)
{
    const wasix_timeout long_time = {1, UINT64_MAX};
    uint8_t woken;
    mutex it = 0;
    fputs("ready\n", stderr);
    wasix_futex_wait(&it, 0, &long_time, &woken);
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "everything";
    if (strcmp(mode, "everything") == 0) {
        int32_t id = 0, duplicate;
        assert(wasix_proc_id(&id) == 0 && id > 0);
        assert(wasi_thread_spawn(0) < 0);
        atexit(say_goodbye);
        use_files();
        run_contexts();
        wait_with_timeout();
        handlers[SIGABRT] = nothing;
        assert(raise_signal(SIGABRT) == 0);
        assert(wasix_fd_dup2(1, 0, 0, &duplicate) == 0);
        fflush(stdout);
        assert(write(duplicate, "duplicate\n", 10) == 10 && close(duplicate) == 0);
        in_a_context(exit_in_a_context);
    }
    if (strcmp(mode, "deadlock") == 0) {
        lock(&shared_lock);
        in_a_context(lock_for_ever);
    }
    if (strcmp(mode, "wait") == 0)
        wait_for_long();
    if (strcmp(mode, "wait-in-context") == 0)
        in_a_context(wait_for_long);
    if (strcmp(mode, "abort") == 0)
        in_a_context(raise_abort);
    if (strcmp(mode, "thread-exit") == 0)
        wasix_thread_exit(9);
    if (strcmp(mode, "proc-exit2") == 0)
        wasix_proc_exit2(200);
    return 1;
}
