/* Reads stdin in the ways of the C library: "reads MODE". Prints each line, or word, in brackets. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char text[10000];

static void print_lines(size_t size)
{
    text[size] = 0;
    for (char *line = text, *end; line; line = end) {
        if ((end = strchr(line, '\n')))
            *end++ = 0;
        printf("[%s]", line);
    }
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "";
    size_t size = 0;
    if (!strcmp(mode, "scanf")) {
        int number;
        while (scanf("%d %99s", &number, text) == 2)
            printf("[%d][%s]", number, text);
    } else if (!strcmp(mode, "fgets")) {
        while (fgets(text, sizeof text, stdin)) {
            text[strcspn(text, "\n")] = 0;
            printf("[%s]", text);
        }
    } else if (!strcmp(mode, "getline")) {
        char *line = 0;
        size_t capacity = 0;
        while (getline(&line, &capacity, stdin) >= 0) {
            line[strcspn(line, "\n")] = 0;
            printf("[%s]", line);
        }
    } else if (!strcmp(mode, "getchar")) {
        int c;
        while ((c = getchar()) != EOF)
            text[size++] = c;
        print_lines(size);
    } else if (!strcmp(mode, "fread")) {
        print_lines(fread(text, 1, sizeof text - 1, stdin));
    } else if (!strcmp(mode, "read")) {
        ssize_t now;
        while ((now = read(0, text + size, 5)) > 0)
            size += now;
        print_lines(size);
    } else {
        return 99;
    }
    return 0;
}
