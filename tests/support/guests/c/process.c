/* The settings of a process: arguments, environment, streams, a directory, clocks. Each mode prints its findings. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

extern char **environ;

static int copy_file(const char *from, const char *to)
{
    FILE *in = fopen(from, "r"), *out = fopen(to, "w");
    int c;
    if (!in || !out) {
        perror(in ? to : from);
        return 1;
    }
    while ((c = getc(in)) != EOF)
        putc(c, out);
    return fclose(in) | fclose(out);
}

static int check_clocks(void)
{
    struct timespec before, after, now;
    clock_gettime(CLOCK_MONOTONIC, &before);
    clock_gettime(CLOCK_REALTIME, &now);
    clock_gettime(CLOCK_MONOTONIC, &after);
    int monotonic =
        after.tv_sec > before.tv_sec || (after.tv_sec == before.tv_sec && after.tv_nsec >= before.tv_nsec);
    printf("%lld %d\n", (long long)now.tv_sec, monotonic);
    return 0;
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "argv";
    if (!strcmp(mode, "env")) {
        for (char **entry = environ; *entry; entry++)
            puts(*entry);
    } else if (!strcmp(mode, "streams")) {
        int c;
        while ((c = getchar()) != EOF)
            putchar(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c);
        fputs("on stderr\n", stderr);
    } else if (!strcmp(mode, "copy")) {
        return copy_file(argv[2], argv[3]);
    } else if (!strcmp(mode, "clocks")) {
        return check_clocks();
    } else {
        for (int i = 0; i < argc; i++)
            printf("[%s]\n", argv[i]);
    }
    return 0;
}
