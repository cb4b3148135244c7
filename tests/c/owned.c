// Bodies that are lent: each is released exactly once, also when the call fails.
#include "check.h"

#include <stdatomic.h>

static const char CONFIG[] = "{\"provider\": {\"type\": \"memory\", \"topic\": \"owned\", \"discard\": true}}";
static const char NOWHERE[] = "{\"provider\": {\"type\": \"kapokmq\", \"url\": \"ws://127.0.0.1:1\", \"topic\": \"t\","
                              " \"secret_key\": \"s\"}, \"connect\": \"lazy\", \"deadline\": \"200ms\"}";

enum { BODIES = 64 };
static atomic_int released[BODIES];
static char *body[BODIES];

static void release(void *user) {
    size_t index = (size_t)(uintptr_t)user;
    CHECK(index < BODIES);
    CHECK(atomic_fetch_add(&released[index], 1) == 0);
    // A use after the release is seen by a memory checker.
    free(body[index]);
}

static void *number(size_t index) {
    body[index] = malloc(100);
    CHECK(body[index] != NULL);
    memset(body[index], 'b', 100);
    return (void *)(uintptr_t)index;
}

static void wait_released(size_t index) {
    for (int i = 0; i < 5000 && atomic_load(&released[index]) == 0; i++) {
        sleep_ms(1);
    }
    CHECK(atomic_load(&released[index]) == 1);
}

int main(void) {
    within_seconds(60);
    size_t next = 0;
    void *user;
    CHECK_OK(ceiba_producer_open(S("a"), S(CONFIG), NULL, &E));

    for (; next < 20; next++) {
        user = number(next);
        ceiba_receipt *receipt = NULL;
        CHECK_OK(ceiba_producer_send_owned(S("a"), body[next], 100, 0, release, user, &receipt, &E));
        CHECK(receipt != NULL);
        ceiba_receipt_free(receipt);
        wait_released(next);
    }

    user = number(next);
    CHECK_FAILS(CEIBA_ERR_UNKNOWN_ID, "", ceiba_producer_send_owned(S("b"), body[next], 100, 0, release, user, NULL, &E));
    wait_released(next++);
    user = number(next);
    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "delay",
                ceiba_producer_send_owned(S("a"), body[next], 100, -1, release, user, NULL, &E));
    wait_released(next++);
    user = number(next);
    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "`data` is NULL",
                ceiba_producer_send_owned(S("a"), NULL, 100, 0, release, user, NULL, &E));
    wait_released(next++);
    user = number(next);
    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "UTF-8",
                ceiba_producer_send_owned(S("\xff"), body[next], 100, 0, release, user, NULL, &E));
    wait_released(next++);
    user = number(next);
    CHECK_OK(ceiba_producer_send_owned(S("a"), NULL, 0, 0, release, user, NULL, &E));
    wait_released(next++);
    // Data that lasts needs no release.
    CHECK_OK(ceiba_producer_send_owned(S("a"), S("static"), 0, NULL, NULL, NULL, &E));

    // The deadline passes with the body in the library's hands.
    CHECK_OK(ceiba_producer_open(S("stuck"), S(NOWHERE), NULL, &E));
    user = number(next);
    int32_t code = ceiba_producer_send_owned(S("stuck"), body[next], 100, 0, release, user, NULL, &E);
    CHECK(code == CEIBA_ERR_TIMEOUT || code == CEIBA_ERR_UNAVAILABLE);
    CHECK(ceiba_error_outcome(E) == CEIBA_OUTCOME_NOT_SENT && ceiba_error_retryable(E));
    ceiba_error_free(E);
    E = NULL;
    wait_released(next++);
    CHECK_OK(ceiba_producer_close(S("stuck"), -1, &E));

    // In a message: released when neither the message nor a send has it.
    ceiba_message *message = ceiba_message_new();
    user = number(next);
    CHECK_OK(ceiba_message_set_body_owned(message, body[next], 100, release, user, &E));
    CHECK_OK(ceiba_producer_send_message(S("a"), message, -1, NULL, &E));
    CHECK(atomic_load(&released[next]) == 0);
    user = number(next + 1);
    CHECK_OK(ceiba_message_set_body_owned(message, body[next + 1], 100, release, user, &E));
    wait_released(next++);
    CHECK(atomic_load(&released[next]) == 0);
    ceiba_message_free(message);
    wait_released(next++);
    user = number(next);
    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "`message` is NULL",
                ceiba_message_set_body_owned(NULL, body[next], 100, release, user, &E));
    wait_released(next++);

    CHECK_OK(ceiba_producer_close(S("a"), -1, &E));
    user = number(next);
    CHECK_FAILS(CEIBA_ERR_UNKNOWN_ID, "", ceiba_producer_send_owned(S("a"), body[next], 100, 0, release, user, NULL, &E));
    wait_released(next++);
    for (size_t i = 0; i < BODIES; i++) {
        CHECK(atomic_load(&released[i]) == (i < next));
    }
    return 0;
}
