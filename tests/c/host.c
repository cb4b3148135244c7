// Producers that the host implements: answered at once, later, never, with an error; strategies around them.
#include "check.h"

#include <stdatomic.h>

static atomic_int calls, releases, abandons;
static ceiba_call *_Atomic kept;
static _Atomic uint64_t left;
static atomic_bool held = true;

static void wait_for(atomic_int *count, int wanted) {
    for (int i = 0; i < 5000 && atomic_load(count) < wanted; i++) {
        sleep_ms(1);
    }
    CHECK(atomic_load(count) == wanted);
}

static void release(void *user) {
    CHECK(user == &calls);
    atomic_fetch_add(&releases, 1);
}

static void abandoned(void *user, uint64_t number) {
    CHECK(user == &calls);
    atomic_store(&left, number);
    atomic_fetch_add(&abandons, 1);
}

// Blocking calls of other ids, and the whole life of a producer.
static void call_inside(ceiba_call *call) {
    CHECK_OK(ceiba_producer_send(S("other"), S("now"), 0, NULL, &E));
    CHECK_OK(ceiba_producer_flush(S("other"), 5000, &E));
    CHECK_OK(ceiba_producer_open(S("inner"), S("{\"provider\": {\"type\": \"memory\", \"topic\": \"inner\"}}"), NULL, &E));
    CHECK_OK(ceiba_producer_send(S("inner"), S("x"), 0, NULL, &E));
    CHECK_OK(ceiba_producer_close(S("inner"), 5000, &E));
    ceiba_call_sent(call, S("inside"));
}

static void *answer_later(void *call) {
    sleep_ms(20);
    ceiba_call_sent(call, S("later"));
    return NULL;
}

// What it does stands in the body.
static void take(void *user, ceiba_call *call) {
    CHECK(user == &calls);
    atomic_fetch_add(&calls, 1);
    ceiba_slice body = ceiba_call_body(call);
    if (contains(body, "now")) {
        ceiba_call_sent(call, S("id-7"));
    } else if (contains(body, "later")) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, answer_later, call) == 0);
        pthread_detach(thread);
    } else if (contains(body, "never")) {
        atomic_store(&kept, call);
    } else if (contains(body, "fields")) {
        ceiba_string *json = NULL;
        CHECK_OK(ceiba_call_fields(call, &json, &E));
        ceiba_slice text = ceiba_string_value(json);
        CHECK(contains(text, "\"template\":\"welcome\"") && contains(text, "\"recipients\":[\"a@example.com\"]"));
        CHECK(contains(text, "\"args\":{\"name\":\"Ada\"}"));
        ceiba_string_free(json);
        CHECK(ceiba_call_remaining_ms(call) > 0 && !ceiba_call_abandoned(call));
        ceiba_call_sent(call, NULL, 0);
    } else if (contains(body, "busy")) {
        ceiba_call_failed(call, CEIBA_ERR_THROTTLED, CEIBA_OUTCOME_NOT_SENT, -1, 5, S("come back"));
    } else if (contains(body, "refused")) {
        ceiba_call_failed(call, CEIBA_ERR_UNAVAILABLE, CEIBA_OUTCOME_NOT_SENT, 0, -1, S("for good"));
    } else if (contains(body, "inside")) {
        call_inside(call);
    } else if (contains(body, "stuck")) {
        while (atomic_load(&held)) {
            sleep_ms(1);
        }
        ceiba_call_sent(call, NULL, 0);
    } else {
        ceiba_call_failed(call, 4711, CEIBA_OUTCOME_UNKNOWN, -1, -1, S("bad\xff"));
    }
}

static void send(const char *id, const char *body, int32_t code, const char *part) {
    if (code == CEIBA_OK) {
        CHECK_OK(ceiba_producer_send(L(id), L(body), 0, NULL, &E));
    } else {
        CHECK_FAILS(code, part, ceiba_producer_send(L(id), L(body), 0, NULL, &E));
    }
}

int main(void) {
    within_seconds(60);
    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "send", ceiba_callback_register(S("mine"), NULL, abandoned, release, &calls, &E));
    CHECK(atomic_load(&releases) == 1);
    CHECK_OK(ceiba_callback_register(S("mine"), take, abandoned, release, &calls, &E));
    CHECK_FAILS(CEIBA_ERR_ALREADY_OPEN, "mine", ceiba_callback_register(S("mine"), take, abandoned, release, &calls, &E));
    CHECK(atomic_load(&releases) == 2);
    CHECK_FAILS(CEIBA_ERR_INVALID_CONFIG, "did you mean `mine`",
                ceiba_producer_open(S("p"), S("{\"provider\": {\"type\": \"callback\", \"name\": \"mina\"}}"), NULL, &E));

    CHECK_OK(ceiba_producer_open(S("p"), S("{\"provider\": {\"type\": \"callback\", \"name\": \"mine\"}, \"deadline\": \"20s\"}"),
                                 NULL, &E));
    ceiba_receipt *receipt = NULL;
    CHECK_OK(ceiba_producer_send(S("p"), S("now"), 0, &receipt, &E));
    CHECK(contains(ceiba_receipt_message_id(receipt), "id-7"));
    ceiba_receipt_free(receipt);
    send("p", "later", CEIBA_OK, "");
    send("p", "busy", CEIBA_ERR_THROTTLED, "come back");
    send("p", "?", CEIBA_ERR_UNAVAILABLE, "the callback failed");

    ceiba_message *message = ceiba_message_new();
    CHECK_OK(ceiba_message_set_body(message, "fields", 6, &E));
    CHECK_OK(ceiba_message_set_template(message, S("welcome"), &E));
    CHECK_OK(ceiba_message_set_args(message, S("{\"name\": \"Ada\"}"), &E));
    CHECK_OK(ceiba_message_add_recipient(message, S("a@example.com"), &E));
    CHECK_OK(ceiba_producer_send_message(S("p"), message, 9000, NULL, &E));
    ceiba_message_free(message);

    // A retry around it, and the error that holds each attempt.
    CHECK_OK(ceiba_producer_open(S("tried"),
                                 S("{\"provider\": {\"type\": \"callback\", \"name\": \"mine\"},"
                                   " \"strategies\": [{\"type\": \"retry\", \"max_attempts\": 3}]}"),
                                 NULL, &E));
    int before = atomic_load(&calls);
    ceiba_error *error = NULL;
    CHECK(ceiba_producer_send(S("tried"), S("busy"), 0, NULL, &error) == CEIBA_ERR_THROTTLED);
    CHECK(atomic_load(&calls) == before + 3 && ceiba_error_attempts(error) == 3);
    ceiba_string *json = ceiba_error_json(error);
    CHECK(contains(ceiba_string_value(json), "\"of\":\"attempt\"") && contains(ceiba_string_value(json), "come back"));
    ceiba_string_free(json);
    CHECK(ceiba_error_part_count(error) == 3);
    ceiba_error_free(error);
    before = atomic_load(&calls);
    send("tried", "refused", CEIBA_ERR_UNAVAILABLE, "for good");
    CHECK(atomic_load(&calls) == before + 1);
    CHECK(ceiba_error_json(NULL) == NULL && ceiba_error_part_count(NULL) == 0);

    // A receipt tells of each member.
    CHECK_OK(ceiba_producer_open(S("both"),
                                 S("{\"strategies\": [{\"type\": \"fan_out\", \"members\": ["
                                   "{\"provider\": {\"type\": \"memory\", \"topic\": \"c-one\"}},"
                                   "{\"provider\": {\"type\": \"memory\", \"topic\": \"c-two\"}}]}]}"),
                                 NULL, &E));
    receipt = NULL;
    CHECK_OK(ceiba_producer_send(S("both"), S("x"), 0, &receipt, &E));
    CHECK(ceiba_receipt_part_count(receipt) == 2);
    json = ceiba_receipt_json(receipt);
    CHECK(contains(ceiba_string_value(json), "\"of\":\"member\"") && contains(ceiba_string_value(json), "\"stored\":false"));
    ceiba_string_free(json);
    ceiba_receipt_free(receipt);
    ceiba_string *metrics = ceiba_metrics();
    CHECK(contains(ceiba_string_value(metrics), "ceiba_member_sent_total{id=\"both\",role=\"producer\",provider=\"memory\""));
    ceiba_string_free(metrics);
    CHECK(ceiba_receipt_json(NULL) == NULL && ceiba_receipt_part_count(NULL) == 0);

    // One that never answers is bounded; its late answer harms nobody.
    CHECK_OK(ceiba_producer_open(S("bounded"),
                                 S("{\"provider\": {\"type\": \"callback\", \"name\": \"mine\"},"
                                   " \"strategies\": [{\"type\": \"timeout\", \"after\": \"50ms\"}]}"),
                                 NULL, &E));
    send("bounded", "never", CEIBA_ERR_TIMEOUT, "");
    CHECK(ceiba_call_abandoned(atomic_load(&kept)));
    wait_for(&abandons, 1);
    CHECK(atomic_load(&left) == ceiba_call_number(atomic_load(&kept)) && ceiba_call_number(NULL) == 0);
    ceiba_call_sent(atomic_load(&kept), NULL, 0);
    ceiba_call_sent(NULL, NULL, 0);
    ceiba_call_failed(NULL, 1, 0, -1, -1, NULL, 0);

    // The host calls the library while it sends.
    CHECK_OK(ceiba_producer_open(S("other"), S("{\"provider\": {\"type\": \"callback\", \"name\": \"mine\"}}"), NULL, &E));
    send("p", "inside", CEIBA_OK, "");

    // One that is stuck: reported at its deadline, bounded by `threads`, and waited for by the close until its own
    // deadline; others go on, and the id is free when it has returned.
    const char *one = "{\"provider\": {\"type\": \"callback\", \"name\": \"mine\", \"threads\": 1}, \"deadline\": \"50ms\"}";
    CHECK_OK(ceiba_producer_open(S("stuck"), L(one), NULL, &E));
    send("stuck", "stuck", CEIBA_ERR_TIMEOUT, "");
    send("stuck", "now", CEIBA_ERR_QUEUE_FULL, "stayed busy");
    CHECK_FAILS(CEIBA_ERR_TIMEOUT, "1 calls of the callback `mine`", ceiba_producer_close(S("stuck"), 50, &E));
    CHECK_FAILS(CEIBA_ERR_ALREADY_OPEN, "being closed", ceiba_producer_open(S("stuck"), L(one), NULL, &E));
    send("p", "now", CEIBA_OK, "");
    atomic_store(&held, false);
    int opened = CEIBA_ERR_ALREADY_OPEN;
    for (int i = 0; i < 5000 && opened == CEIBA_ERR_ALREADY_OPEN; i++) {
        sleep_ms(1);
        opened = ceiba_producer_open(S("stuck"), L(one), NULL, NULL);
    }
    CHECK(opened == CEIBA_OK);

    // Members by id: held, shown, and moved by hand.
    CHECK_OK(ceiba_producer_open(S("pair"),
                                 S("{\"strategies\": [{\"type\": \"failover\", \"members\": [\"p\", \"tried\"]}]}"), NULL, &E));
    CHECK_FAILS(CEIBA_ERR_IN_USE, "pair", ceiba_producer_close(S("p"), -1, &E));
    send("pair", "now", CEIBA_OK, "");
    CHECK_OK(ceiba_producer_control(S("pair"), S("{\"strategy\": \"failover\", \"current\": \"tried\"}"), &json, &E));
    CHECK(contains(ceiba_string_value(json), "\"current\":1"));
    ceiba_string_free(json);
    CHECK_OK(ceiba_producer_status(S("pair"), &json, &E));
    CHECK(contains(ceiba_string_value(json), "\"current_member\":\"tried\""));
    ceiba_string_free(json);
    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "command", ceiba_producer_control(S("pair"), S("{"), NULL, &E));
    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "p, tried",
                ceiba_producer_control(S("pair"), S("{\"strategy\": \"failover\", \"current\": 5}"), NULL, &E));

    CHECK_OK(ceiba_callback_unregister(S("mine"), &E));
    CHECK_FAILS(CEIBA_ERR_UNKNOWN_ID, "mine", ceiba_callback_unregister(S("mine"), &E));
    CHECK(atomic_load(&releases) == 2);
    send("p", "now", CEIBA_OK, "");
    CHECK_OK(ceiba_shutdown(5000, NULL, &E));
    wait_for(&releases, 3);
    puts("a host's producer, its errors and its end");
    return 0;
}
