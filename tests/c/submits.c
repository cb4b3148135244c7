// Submits: exactly one completion for each that was accepted, however it ends.
#include "check.h"

#include <poll.h>
#include <stdatomic.h>

static const char CONFIG[] = "{\"provider\": {\"type\": \"memory\", \"topic\": \"submits\", \"discard\": true}}";
// Nobody listens on port 1: what is submitted stays under way.
static const char NOWHERE[] = "{\"provider\": {\"type\": \"kapokmq\", \"url\": \"ws://127.0.0.1:1\", \"topic\": \"t\","
                              " \"secret_key\": \"s\"}, \"connect\": \"lazy\", \"deadline\": \"20s\"}";

enum { MANY = 2000 };
static unsigned char seen[MANY];

static size_t take(ceiba_queue *queue, ceiba_completions **batch, size_t max, int64_t timeout_ms, int32_t code) {
    CHECK_OK(ceiba_queue_poll(queue, max, timeout_ms, batch, &E));
    size_t count = ceiba_completions_count(*batch);
    CHECK(count <= max);
    const uint64_t *tokens = ceiba_completions_tokens(*batch);
    const int32_t *codes = ceiba_completions_codes(*batch);
    for (size_t i = 0; i < count; i++) {
        CHECK(tokens[i] < MANY);
        CHECK(seen[tokens[i]]++ == 0);
        CHECK(codes[i] == code);
        CHECK(ceiba_error_code(ceiba_completions_error(*batch, i)) == code);
        CHECK((ceiba_completions_receipt(*batch, i) != NULL) == (code == CEIBA_OK));
    }
    CHECK(ceiba_completions_error(*batch, count) == NULL && ceiba_completions_receipt(*batch, count) == NULL);
    return count;
}

static void all_seen(size_t count) {
    for (size_t i = 0; i < MANY; i++) {
        CHECK(seen[i] == (i < count));
    }
    memset(seen, 0, sizeof seen);
}

static void each_has_one_completion(ceiba_queue *queue) {
    ceiba_completions *batch = NULL;
    for (uint64_t token = 0; token < MANY; token++) {
        CHECK_OK(ceiba_producer_submit(S("fast"), S("body"), 0, token, &E));
    }
    size_t got = 0;
    while (got < MANY) {
        got += take(queue, &batch, 100, 5000, CEIBA_OK);
    }
    CHECK(same(ceiba_receipt_provider(ceiba_completions_receipt(batch, 0)), "memory"));
    CHECK(take(queue, &batch, 100, 0, CEIBA_OK) == 0);
    CHECK(take(queue, &batch, 100, 20, CEIBA_OK) == 0);
    CHECK(ceiba_completions_tokens(batch) == NULL && ceiba_completions_codes(batch) == NULL);
    all_seen(MANY);
    ceiba_completions_free(batch);
}

static void many_at_once(ceiba_queue *queue) {
    ceiba_slice bodies[300];
    for (size_t i = 0; i < 300; i++) {
        bodies[i] = (ceiba_slice){(const uint8_t *)"0123456789", i % 11};
    }
    bodies[0].data = NULL;
    size_t accepted = 0;
    CHECK_OK(ceiba_producer_submit_many(S("fast"), bodies, 300, 0, 0, &accepted, &E));
    CHECK(accepted == 300);
    ceiba_completions *batch = NULL;
    size_t got = 0;
    while (got < 300) {
        got += take(queue, &batch, 1000, -1, CEIBA_OK);
    }
    all_seen(300);
    CHECK_OK(ceiba_producer_submit_many(S("fast"), NULL, 0, 0, 0, &accepted, &E));
    CHECK(accepted == 0);

    ceiba_message *message = ceiba_message_new();
    CHECK_OK(ceiba_message_set_body(message, S("m"), &E));
    CHECK_OK(ceiba_producer_submit_message(S("fast"), message, -1, 0, &E));
    CHECK_OK(ceiba_message_add_recipient(message, S("r"), &E));
    CHECK(take(queue, &batch, 10, 5000, CEIBA_OK) == 1);
    all_seen(1);
    CHECK_OK(ceiba_producer_submit_message(S("fast"), message, 1000, 0, &E));
    ceiba_message_free(message);
    CHECK(take(queue, &batch, 10, 5000, CEIBA_ERR_UNSUPPORTED) == 1);
    CHECK(contains(ceiba_error_message(ceiba_completions_error(batch, 0)), "recipients"));
    all_seen(1);
    ceiba_completions_free(batch);
}

static bool readable(int fd, int timeout_ms) {
    struct pollfd watched = {.fd = fd, .events = POLLIN};
    int count = poll(&watched, 1, timeout_ms);
    CHECK(count >= 0);
    return count == 1;
}

static void the_descriptor_tells(ceiba_queue *queue) {
    int fd = ceiba_queue_fd(queue);
    CHECK(fd >= 0 && !readable(fd, 0));
    ceiba_completions *batch = NULL;
    // In many rounds, since the descriptor is set by another thread than the one that clears it.
    for (int round = 0; round < 300; round++) {
        CHECK_OK(ceiba_producer_submit(S("fast"), S("x"), 0, 0, &E));
        CHECK_OK(ceiba_producer_submit(S("fast"), S("x"), 0, 1, &E));
        size_t got = 0;
        while (got < 2) {
            CHECK(readable(fd, 5000));
            got += take(queue, &batch, 1, 0, CEIBA_OK);
        }
        CHECK(!readable(fd, 0));
        all_seen(2);
    }
    ceiba_completions_free(batch);
}

static atomic_int calls, releases;

static void count_call(void *user) {
    CHECK(user == &calls && atomic_load(&releases) == 0);
    atomic_fetch_add(&calls, 1);
}

static void count_release(void *user) {
    CHECK(user == &calls);
    atomic_fetch_add(&releases, 1);
}

static void wait_for(atomic_int *number, int value) {
    for (int i = 0; i < 5000 && atomic_load(number) < value; i++) {
        sleep_ms(1);
    }
    CHECK(atomic_load(number) >= value);
}

static void the_callback_tells(ceiba_queue *queue) {
    ceiba_completions *batch = NULL;
    CHECK_OK(ceiba_queue_set_callback(queue, count_call, &calls, count_release, &E));
    for (int round = 1; round <= 20; round++) {
        CHECK_OK(ceiba_producer_submit(S("fast"), S("x"), 0, 0, &E));
        wait_for(&calls, round);
        CHECK(take(queue, &batch, 10, 0, CEIBA_OK) == 1);
        all_seen(1);
    }
    // Set while a completion waits: told at once.
    CHECK_OK(ceiba_producer_submit(S("fast"), S("x"), 0, 0, &E));
    wait_for(&calls, 21);
    CHECK_OK(ceiba_queue_set_callback(queue, NULL, NULL, NULL, &E));
    wait_for(&releases, 1);
    atomic_store(&releases, 0);
    CHECK_OK(ceiba_queue_set_callback(queue, count_call, &calls, count_release, &E));
    wait_for(&calls, 22);
    CHECK(take(queue, &batch, 10, 0, CEIBA_OK) == 1);
    all_seen(1);
    CHECK_OK(ceiba_queue_set_callback(queue, count_call, &calls, count_release, &E));
    wait_for(&releases, 1);
    atomic_store(&releases, 0);
    ceiba_completions_free(batch);
}

static void a_full_queue_refuses(void) {
    ceiba_queue *queue = NULL;
    CHECK_OK(ceiba_queue_new(10, &queue, &E));
    CHECK_OK(ceiba_producer_open(S("narrow"), S(CONFIG), queue, &E));
    CHECK(ceiba_queue_capacity(queue) == 10);
    for (uint64_t token = 0; token < 10; token++) {
        CHECK_OK(ceiba_producer_submit(S("narrow"), S("x"), 0, token, &E));
    }
    for (int i = 0; i < 5; i++) {
        CHECK_FAILS(CEIBA_ERR_QUEUE_FULL, "full", ceiba_producer_submit(S("narrow"), S("x"), 0, 99, &E));
    }
    CHECK(ceiba_queue_length(queue) == 10);
    ceiba_completions *batch = NULL;
    size_t got = 0;
    while (got < 4) {
        got += take(queue, &batch, 4 - got, 5000, CEIBA_OK);
    }
    ceiba_slice bodies[6] = {{(const uint8_t *)"x", 1}, {(const uint8_t *)"x", 1}, {(const uint8_t *)"x", 1},
                             {(const uint8_t *)"x", 1}, {(const uint8_t *)"x", 1}, {(const uint8_t *)"x", 1}};
    size_t accepted = 0;
    CHECK_OK(ceiba_producer_submit_many(S("narrow"), bodies, 6, 0, 10, &accepted, &E));
    CHECK(accepted == 4);
    CHECK_FAILS(CEIBA_ERR_QUEUE_FULL, "full",
                ceiba_producer_submit_many(S("narrow"), bodies, 6, 0, 50, &accepted, &E));
    CHECK(accepted == 4);
    while (got < 14) {
        got += take(queue, &batch, 100, 5000, CEIBA_OK);
    }
    all_seen(14);
    CHECK(ceiba_queue_length(queue) == 0);
    CHECK_OK(ceiba_producer_close(S("narrow"), -1, &E));
    ceiba_completions_free(batch);
    ceiba_queue_free(queue);
}

static void cancelled_and_closed(void) {
    ceiba_queue *queue = NULL;
    CHECK_OK(ceiba_queue_new(MANY, &queue, &E));
    CHECK_OK(ceiba_producer_open(S("stuck"), S(NOWHERE), queue, &E));
    for (uint64_t token = 0; token < 50; token++) {
        CHECK_OK(ceiba_producer_submit(S("stuck"), S("x"), 0, token, &E));
    }
    ceiba_completions *batch = NULL;
    CHECK(take(queue, &batch, 10, 30, CEIBA_OK) == 0);
    for (uint64_t token = 0; token < 20; token++) {
        CHECK_OK(ceiba_producer_cancel(S("stuck"), token, &E));
        CHECK_OK(ceiba_producer_cancel(S("stuck"), token, &E));
    }
    CHECK_OK(ceiba_producer_cancel(S("stuck"), 4711, &E));
    size_t got = 0;
    while (got < 20) {
        got += take(queue, &batch, 100, 5000, CEIBA_ERR_CANCELLED);
    }
    all_seen(20);
    // A message's own deadline ends it alone.
    ceiba_message *message = ceiba_message_new();
    CHECK_OK(ceiba_producer_submit_message(S("stuck"), message, 50, 0, &E));
    ceiba_message_free(message);
    CHECK_OK(ceiba_queue_poll(queue, 10, 5000, &batch, &E));
    CHECK(ceiba_completions_count(batch) == 1 && ceiba_completions_tokens(batch)[0] == 0);
    int32_t late = ceiba_completions_codes(batch)[0];
    CHECK(late == CEIBA_ERR_TIMEOUT || late == CEIBA_ERR_UNAVAILABLE);
    CHECK(ceiba_error_outcome(ceiba_completions_error(batch, 0)) == CEIBA_OUTCOME_NOT_SENT);
    // The rest end with the close, each once; the queue can be polled afterwards.
    CHECK_FAILS(CEIBA_ERR_TIMEOUT, "", ceiba_producer_close(S("stuck"), 100, &E));
    CHECK_FAILS(CEIBA_ERR_UNKNOWN_ID, "stuck", ceiba_producer_submit(S("stuck"), S("x"), 0, 1, &E));
    got = 0;
    while (got < 30) {
        CHECK_OK(ceiba_queue_poll(queue, 100, 5000, &batch, &E));
        size_t count = ceiba_completions_count(batch);
        CHECK(count > 0);
        for (size_t i = 0; i < count; i++) {
            uint64_t token = ceiba_completions_tokens(batch)[i];
            CHECK(token >= 20 && token < 50 && seen[token]++ == 0);
            CHECK(ceiba_completions_codes(batch)[i] != CEIBA_OK);
            CHECK(ceiba_error_outcome(ceiba_completions_error(batch, i)) == CEIBA_OUTCOME_NOT_SENT);
        }
        got += count;
    }
    CHECK_OK(ceiba_queue_poll(queue, 100, 50, &batch, &E));
    CHECK(ceiba_completions_count(batch) == 0 && ceiba_queue_length(queue) == 0);
    memset(seen, 0, sizeof seen);
    ceiba_completions_free(batch);
    ceiba_queue_free(queue);
}

static void *wait_without_end(void *queue) {
    ceiba_completions *batch = NULL;
    ceiba_error *error = NULL;
    int32_t code = ceiba_queue_poll(queue, 10, -1, &batch, &error);
    CHECK(code == CEIBA_ERR_CLOSED && batch == NULL);
    ceiba_error_free(error);
    return NULL;
}

static void closed_and_freed(void) {
    ceiba_queue *queue = NULL;
    CHECK_OK(ceiba_queue_new(100, &queue, &E));
    pthread_t waiter;
    CHECK(pthread_create(&waiter, NULL, wait_without_end, queue) == 0);
    sleep_ms(30);
    CHECK_OK(ceiba_queue_close(queue, &E));
    CHECK(pthread_join(waiter, NULL) == 0);
    ceiba_queue_free(queue);

    // Freed under an open producer: it lives on inside, and refuses when it is full.
    queue = NULL;
    atomic_store(&calls, 0);
    CHECK_OK(ceiba_queue_new(3, &queue, &E));
    CHECK_OK(ceiba_queue_set_callback(queue, count_call, &calls, count_release, &E));
    CHECK_OK(ceiba_producer_open(S("orphan"), S(CONFIG), queue, &E));
    ceiba_queue_free(queue);
    wait_for(&releases, 1);
    for (uint64_t token = 0; token < 3; token++) {
        CHECK_OK(ceiba_producer_submit(S("orphan"), S("x"), 0, token, &E));
    }
    CHECK_FAILS(CEIBA_ERR_QUEUE_FULL, "full", ceiba_producer_submit(S("orphan"), S("x"), 0, 3, &E));
    CHECK_OK(ceiba_producer_send(S("orphan"), S("x"), 0, NULL, &E));
    CHECK_OK(ceiba_producer_close(S("orphan"), -1, &E));
    CHECK(atomic_load(&calls) == 0 && atomic_load(&releases) == 1);
}

int main(void) {
    within_seconds(120);
    ceiba_queue *queue = NULL;
    CHECK_OK(ceiba_queue_new(MANY, &queue, &E));
    CHECK_OK(ceiba_producer_open(S("fast"), S(CONFIG), queue, &E));
    each_has_one_completion(queue);
    many_at_once(queue);
    the_descriptor_tells(queue);
    the_callback_tells(queue);
    CHECK_OK(ceiba_producer_close(S("fast"), -1, &E));
    ceiba_queue_free(queue);
    wait_for(&releases, 1);
    atomic_store(&releases, 0);
    a_full_queue_refuses();
    cancelled_and_closed();
    closed_and_freed();
    CHECK_OK(ceiba_shutdown(-1, NULL, &E));
    return 0;
}
