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

// Bodies whose release calls back into the library. Those of the first round are cancelled one by one, each
// by the release of the one before; each lends another in its turn, which the close ends; and what those
// lend is refused.
enum { LENT = 40, ROUNDS = 3 };
static const char PATIENT[] = "{\"provider\": {\"type\": \"kapokmq\", \"url\": \"ws://127.0.0.1:1\", \"topic\": \"t\","
                              " \"secret_key\": \"s\"}, \"connect\": \"lazy\", \"deadline\": \"40s\"}";
static struct lent {
    atomic_int released;
    char *body;
} lent[ROUNDS * LENT];
static atomic_int accepted[ROUNDS], refused[ROUNDS], returned;

static void call_back(void *user);

// The message is freed at once: the submit alone holds the body.
static void lend(size_t index) {
    lent[index].body = malloc(100);
    CHECK(lent[index].body != NULL);
    memset(lent[index].body, 'b', 100);
    ceiba_error *error = NULL;
    ceiba_message *message = ceiba_message_new();
    CHECK(ceiba_message_set_body_owned(message, lent[index].body, 100, call_back, &lent[index], &error) == CEIBA_OK);
    int32_t code = ceiba_producer_submit_message(S("nosy"), message, -1, index, &error);
    if (code == CEIBA_OK) {
        atomic_fetch_add(&accepted[index / LENT], 1);
    } else {
        CHECK(code == CEIBA_ERR_CLOSED || code == CEIBA_ERR_UNKNOWN_ID);
        ceiba_error_free(error);
        atomic_fetch_add(&refused[index / LENT], 1);
    }
    ceiba_message_free(message);
}

static void call_back(void *user) {
    struct lent *me = user;
    size_t index = (size_t)(me - lent);
    CHECK(atomic_fetch_add(&me->released, 1) == 0);
    free(me->body);
    ceiba_error *error = NULL;
    // One that waits, and one of the client that this body was lent to.
    CHECK(ceiba_producer_send(S("side"), S("x"), 0, NULL, &error) == CEIBA_OK);
    bool first = index < LENT;
    int32_t code = ceiba_producer_cancel(S("nosy"), first && index + 1 < LENT ? index + 1 : 4711, &error);
    CHECK(code == CEIBA_OK || (!first && (code == CEIBA_ERR_CLOSED || code == CEIBA_ERR_UNKNOWN_ID)));
    ceiba_error_free(error);
    if (index + LENT < ROUNDS * LENT) {
        lend(index + LENT);
    }
    atomic_fetch_add(&returned, 1);
}

static void wait_returned(int count) {
    for (int i = 0; i < 10000 && atomic_load(&returned) < count; i++) {
        sleep_ms(1);
    }
    CHECK(atomic_load(&returned) == count);
}

// Takes the completions of one round, each of which comes once.
static void take_round(ceiba_queue *queue, size_t round, bool cancelled) {
    unsigned char seen[LENT] = {0};
    ceiba_completions *batch = NULL;
    for (size_t got = 0; got < LENT;) {
        CHECK_OK(ceiba_queue_poll(queue, LENT - got, 5000, &batch, &E));
        size_t count = ceiba_completions_count(batch);
        CHECK(count > 0);
        for (size_t i = 0; i < count; i++) {
            uint64_t token = ceiba_completions_tokens(batch)[i];
            CHECK(token / LENT == round && seen[token % LENT]++ == 0);
            int32_t code = ceiba_completions_codes(batch)[i];
            CHECK(cancelled ? code == CEIBA_ERR_CANCELLED : code != CEIBA_OK);
        }
        got += count;
    }
    ceiba_completions_free(batch);
}

static void a_release_may_call_the_library(void) {
    ceiba_queue *queue = NULL;
    CHECK_OK(ceiba_queue_new(ROUNDS * LENT, &queue, &E));
    CHECK_OK(ceiba_producer_open(S("side"), S(CONFIG), NULL, &E));
    CHECK_OK(ceiba_producer_open(S("nosy"), S(PATIENT), queue, &E));
    for (size_t i = 0; i < LENT; i++) {
        lend(i);
    }
    CHECK(atomic_load(&accepted[0]) == LENT && atomic_load(&lent[0].released) == 0);
    CHECK_OK(ceiba_producer_cancel(S("nosy"), 0, &E));
    take_round(queue, 0, true);
    wait_returned(LENT);
    CHECK(atomic_load(&accepted[1]) == LENT && atomic_load(&refused[1]) == 0);
    CHECK(ceiba_queue_length(queue) == LENT);

    double start = now_seconds();
    CHECK_FAILS(CEIBA_ERR_TIMEOUT, "", ceiba_producer_close(S("nosy"), 50, &E));
    CHECK(now_seconds() - start < 20);
    take_round(queue, 1, false);
    wait_returned(ROUNDS * LENT);
    CHECK(atomic_load(&accepted[2]) == 0 && atomic_load(&refused[2]) == LENT);
    CHECK(ceiba_queue_length(queue) == 0);
    CHECK_OK(ceiba_producer_close(S("side"), -1, &E));
    ceiba_queue_free(queue);
    for (size_t i = 0; i < ROUNDS * LENT; i++) {
        CHECK(atomic_load(&lent[i].released) == 1);
    }
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
    a_release_may_call_the_library();
    return 0;
}
