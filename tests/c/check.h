// What the tests in C share: checks that end the program, and short forms of arguments.
#ifndef CHECK_H
#define CHECK_H

#include <ceiba.h>

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

// The error of the call under check: every call in CHECK_OK and CHECK_FAILS names it as its last argument.
#ifdef __cplusplus
static thread_local ceiba_error *E;
#else
static _Thread_local ceiba_error *E;
#endif

// A text as pointer and length.
#define S(text) (text), (sizeof(text) - 1)
#define L(text) (text), strlen(text)

#define CHECK(condition)                                                                        \
    do {                                                                                        \
        if (!(condition)) {                                                                     \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);             \
            _exit(1);                                                                           \
        }                                                                                       \
    } while (0)

#define CHECK_OK(call) check_ok((call), #call, __FILE__, __LINE__)
#define CHECK_FAILS(code, text, call) check_fails((call), (code), (text), #call, __FILE__, __LINE__)

static inline void check_ok(int32_t code, const char *call, const char *file, int line) {
    if (code != CEIBA_OK) {
        ceiba_slice text = ceiba_error_message(E);
        fprintf(stderr, "%s:%d: %s gave %d: %.*s\n", file, line, call, code, (int)text.len, text.data);
        _exit(1);
    }
    if (E != NULL) {
        fprintf(stderr, "%s:%d: %s succeeded and wrote an error\n", file, line, call);
        _exit(1);
    }
}

static inline bool contains(ceiba_slice text, const char *part) {
    size_t len = strlen(part);
    for (size_t at = 0; at + len <= text.len; at++) {
        if (memcmp(text.data + at, part, len) == 0) {
            return true;
        }
    }
    return false;
}

static inline bool same(ceiba_slice text, const char *other) {
    return text.len == strlen(other) && memcmp(text.data, other, text.len) == 0;
}

// The call must fail with this code, and the text of its error contain `text`.
static inline void check_fails(int32_t code, int32_t wanted, const char *text, const char *call, const char *file,
                               int line) {
    ceiba_slice message = ceiba_error_message(E);
    if (code != wanted || ceiba_error_code(E) != code) {
        fprintf(stderr, "%s:%d: %s gave %d, not %d: %.*s\n", file, line, call, code, wanted, (int)message.len,
                message.data);
        _exit(1);
    }
    if (!contains(message, text)) {
        fprintf(stderr, "%s:%d: the error does not say `%s`: %.*s\n", file, line, text, (int)message.len,
                message.data);
        _exit(1);
    }
    ceiba_error_free(E);
    E = NULL;
}

static inline double now_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static inline void sleep_ms(long ms) {
    struct timespec wait = {ms / 1000, (ms % 1000) * 1000000L};
    while (nanosleep(&wait, &wait) != 0 && errno == EINTR) {
    }
}

// Ends a test that hangs. CEIBA_SLOW multiplies the time, for runs under a memory checker.
static inline void within_seconds(unsigned seconds) {
    const char *slow = getenv("CEIBA_SLOW");
    unsigned times = slow == NULL ? 1 : (unsigned)strtoul(slow, NULL, 10);
    alarm(times > 1 ? seconds * times : seconds);
}

#endif
