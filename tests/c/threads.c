// Open, close and shutdown while other threads are in calls with the id: each call ends once, with a code that
// fits, and nothing is lost or counted twice.
#include "check.h"

#include <stdatomic.h>

static const char CONFIG[] =
    "{\"provider\": {\"type\": \"memory\", \"topic\": \"threads\"}, \"deadline\": \"5s\"}";
enum { SENDERS = 4, ROUNDS = 20 };

static atomic_bool stop;
static atomic_ulong sent, refused, received, accepted, completed, failed;
static ceiba_queue *queue;

static bool fits(int32_t code) {
    return code == CEIBA_OK || code == CEIBA_ERR_UNKNOWN_ID || code == CEIBA_ERR_CLOSED;
}

static void *sending(void *unused) {
    (void)unused;
    while (!atomic_load(&stop)) {
        ceiba_receipt *receipt = NULL;
        ceiba_error *error = NULL;
        int32_t code = ceiba_producer_send(S("out"), S("body"), 0, &receipt, &error);
        CHECK(fits(code));
        CHECK((code == CEIBA_OK) == (receipt != NULL) && (code == CEIBA_OK) == (error == NULL));
        atomic_fetch_add(code == CEIBA_OK ? &sent : &refused, 1);
        ceiba_receipt_free(receipt);
        ceiba_error_free(error);
        code = ceiba_producer_submit(S("out"), S("body"), 0, 1, NULL);
        CHECK(fits(code) || code == CEIBA_ERR_QUEUE_FULL);
        if (code == CEIBA_OK) {
            atomic_fetch_add(&accepted, 1);
        }
        ceiba_string *json = NULL;
        code = ceiba_producer_status(S("out"), &json, NULL);
        CHECK(fits(code));
        ceiba_string_free(json);
        code = ceiba_producer_cancel(S("out"), 77, NULL);
        CHECK(fits(code));
    }
    return NULL;
}

static void *polling(void *unused) {
    (void)unused;
    ceiba_completions *batch = NULL;
    int32_t code;
    while ((code = ceiba_queue_poll(queue, 100, 5, &batch, NULL)) == CEIBA_OK) {
        size_t count = ceiba_completions_count(batch);
        atomic_fetch_add(&completed, count);
        for (size_t i = 0; i < count; i++) {
            int32_t one = ceiba_completions_codes(batch)[i];
            CHECK(fits(one));
            atomic_fetch_add(&failed, one != CEIBA_OK);
        }
    }
    CHECK(code == CEIBA_ERR_CLOSED);
    ceiba_completions_free(batch);
    return NULL;
}

static void *receiving(void *unused) {
    (void)unused;
    while (!atomic_load(&stop)) {
        ceiba_deliveries *got = NULL;
        int32_t code = ceiba_consumer_receive(S("in"), 10, 5, &got, NULL);
        CHECK(fits(code));
        for (size_t i = 0; i < ceiba_deliveries_count(got); i++) {
            ceiba_slice ack = ceiba_deliveries_code(got, i);
            code = ceiba_consumer_ack(S("in"), (const char *)ack.data, ack.len, NULL);
            // What was given back by a close can be received and acknowledged by another.
            CHECK(fits(code) || code == CEIBA_ERR_NOT_FOUND);
            if (code == CEIBA_OK) {
                atomic_fetch_add(&received, 1);
            }
        }
        ceiba_deliveries_free(got);
    }
    return NULL;
}

int main(void) {
    within_seconds(120);
    CHECK_OK(ceiba_queue_new(100000, &queue, &E));
    pthread_t senders[SENDERS], poller, receivers[2];
    for (int i = 0; i < SENDERS; i++) {
        CHECK(pthread_create(&senders[i], NULL, sending, NULL) == 0);
    }
    CHECK(pthread_create(&poller, NULL, polling, NULL) == 0);
    for (int i = 0; i < 2; i++) {
        CHECK(pthread_create(&receivers[i], NULL, receiving, NULL) == 0);
    }
    for (int round = 0; round < ROUNDS; round++) {
        CHECK_OK(ceiba_producer_open(S("out"), S(CONFIG), queue, &E));
        CHECK_OK(ceiba_consumer_open(S("in"), S(CONFIG), &E));
        sleep_ms(10);
        if (round % 2 == 0) {
            CHECK_OK(ceiba_producer_close(S("out"), -1, &E));
            CHECK_OK(ceiba_consumer_close(S("in"), -1, &E));
        } else {
            ceiba_string *report = NULL;
            CHECK_OK(ceiba_shutdown(5000, &report, &E));
            CHECK(contains(ceiba_string_value(report), "\"clean\":2"));
            CHECK(contains(ceiba_string_value(report), "\"forced\":0"));
            ceiba_string_free(report);
        }
    }
    atomic_store(&stop, true);
    for (int i = 0; i < SENDERS; i++) {
        CHECK(pthread_join(senders[i], NULL) == 0);
    }
    for (int i = 0; i < 2; i++) {
        CHECK(pthread_join(receivers[i], NULL) == 0);
    }
    // Every producer is closed: all completions are there.
    CHECK_OK(ceiba_queue_close(queue, &E));
    CHECK(pthread_join(poller, NULL) == 0);
    CHECK(atomic_load(&accepted) == atomic_load(&completed));
    CHECK(ceiba_queue_length(queue) == 0);
    ceiba_queue_free(queue);

    // What is left in the topic was sent and not yet acknowledged.
    CHECK_OK(ceiba_consumer_open(S("in"), S(CONFIG), &E));
    for (;;) {
        ceiba_deliveries *got = NULL;
        CHECK_OK(ceiba_consumer_receive(S("in"), 1000, 50, &got, &E));
        size_t count = ceiba_deliveries_count(got);
        for (size_t i = 0; i < count; i++) {
            ceiba_slice ack = ceiba_deliveries_code(got, i);
            CHECK_OK(ceiba_consumer_ack(S("in"), (const char *)ack.data, ack.len, &E));
        }
        ceiba_deliveries_free(got);
        if (count == 0) {
            break;
        }
        atomic_fetch_add(&received, count);
    }
    unsigned long succeeded = atomic_load(&sent) + atomic_load(&completed) - atomic_load(&failed);
    printf("%lu sends, %lu refused, %lu submits (%lu failed), %lu received\n", atomic_load(&sent), atomic_load(&refused),
           atomic_load(&accepted), atomic_load(&failed), atomic_load(&received));
    fflush(stdout);
    CHECK(atomic_load(&sent) > 0 && atomic_load(&refused) > 0);
    CHECK(atomic_load(&received) == succeeded);
    CHECK_OK(ceiba_shutdown(-1, NULL, &E));
    return 0;
}
