/* The C API of WASIX's wasix/context.h, for guests built with any WASI toolchain. */

#ifndef WASIX_CONTEXT_H
#define WASIX_CONTEXT_H

#include <errno.h>
#include <stdint.h>

typedef uint64_t wasix_context_id_t;

/* The context that main runs in. */
static const wasix_context_id_t wasix_context_main = 0;

#define WASIX_IMPORT(name) __attribute__((import_module("wasix_32v1"), import_name(name)))

WASIX_IMPORT("context_create") int32_t wasix_32v1_context_create(wasix_context_id_t *id, void (*entrypoint)(void));
WASIX_IMPORT("context_switch") int32_t wasix_32v1_context_switch(wasix_context_id_t id);
WASIX_IMPORT("context_destroy") int32_t wasix_32v1_context_destroy(wasix_context_id_t id);

static inline int wasix_context_result(int32_t error)
{
    if (error == 0)
        return 0;
    errno = error; /* WASI's own numbers, which wasi-libc uses */
    return -1;
}

/* Each returns 0, or -1 with errno set. */

/* Create a suspended context that will run entrypoint, which must not return, and store its id. */
static inline int wasix_context_create(wasix_context_id_t *id, void (*entrypoint)(void))
{
    return wasix_context_result(wasix_32v1_context_create(id, entrypoint));
}

/* Suspend this context and resume that one. Returns when another context switches back. */
static inline int wasix_context_switch(wasix_context_id_t id)
{
    return wasix_context_result(wasix_32v1_context_switch(id));
}

/* Destroy a suspended context. An unknown id is not an error. */
static inline int wasix_context_destroy(wasix_context_id_t id)
{
    return wasix_context_result(wasix_32v1_context_destroy(id));
}

#endif
