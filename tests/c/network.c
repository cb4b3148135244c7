// The KapokMQ provider against the embedded broker, through the C interface.
#include "check.h"

static ceiba_broker *broker;
static char url[64];

static const char *config(const char *topic, const char *secret, const char *more) {
    static char text[512];
    // A connection may take long under a memory checker.
    snprintf(text, sizeof text,
             "{\"provider\": {\"type\": \"kapokmq\", \"url\": \"%s\", \"topic\": \"%s\", \"secret_key\": \"%s\"}, \"connect_timeout\": \"60s\"%s}", url,
             topic, secret, more);
    return text;
}

static void start(const char *settings) {
    broker = NULL;
    CHECK_OK(ceiba_broker_start(L(settings), &broker, &E));
    ceiba_slice address = ceiba_broker_address(broker);
    CHECK(contains(address, "127.0.0.1:"));
    snprintf(url, sizeof url, "ws://%.*s", (int)address.len, address.data);
}

static void send_receive_ack(void) {
    enum { COUNT = 500 };
    CHECK_OK(ceiba_producer_open(S("orders"), L(config("orders", "test", "")), NULL, &E));
    CHECK_OK(ceiba_consumer_open(S("orders"), L(config("orders", "test", "")), &E));
    static unsigned char seen[COUNT];
    for (int i = 0; i < COUNT; i++) {
        char body[32];
        int len = snprintf(body, sizeof body, "order \xe2\x82\xac %d", i);
        ceiba_receipt *receipt = NULL;
        CHECK_OK(ceiba_producer_send(S("orders"), body, (size_t)len, 0, &receipt, &E));
        CHECK(same(ceiba_receipt_provider(receipt), "kapokmq") && ceiba_receipt_attempts(receipt) >= 1);
        ceiba_receipt_free(receipt);
    }
    int next = 0;
    while (next < COUNT) {
        ceiba_deliveries *got = NULL;
        CHECK_OK(ceiba_consumer_receive(S("orders"), 100, 5000, &got, &E));
        size_t count = ceiba_deliveries_count(got);
        CHECK(count > 0);
        for (size_t i = 0; i < count; i++) {
            char body[32];
            snprintf(body, sizeof body, "order \xe2\x82\xac %d", next);
            CHECK(same(ceiba_deliveries_body(got, i), body));
            CHECK(seen[next++]++ == 0);
            ceiba_slice code = ceiba_deliveries_code(got, i);
            CHECK_OK(ceiba_consumer_ack(S("orders"), (const char *)code.data, code.len, &E));
        }
        ceiba_deliveries_free(got);
    }
    CHECK_OK(ceiba_producer_close(S("orders"), -1, &E));
    CHECK_OK(ceiba_consumer_close(S("orders"), -1, &E));
    ceiba_string *json = NULL;
    CHECK_OK(ceiba_broker_status(broker, &json, &E));
    CHECK(contains(ceiba_string_value(json), "\"accepted\":500"));
    CHECK(contains(ceiba_string_value(json), "\"acknowledged\":500"));
    CHECK(!contains(ceiba_string_value(json), "test"));
    ceiba_string_free(json);
}

static void never_early(void) {
    CHECK_OK(ceiba_producer_open(S("later"), L(config("later", "test", "")), NULL, &E));
    CHECK_OK(ceiba_consumer_open(S("later"), L(config("later", "test", "")), &E));
    double start = now_seconds();
    CHECK_OK(ceiba_producer_send(S("later"), S("x"), 1, NULL, &E));
    ceiba_deliveries *got = NULL;
    CHECK_OK(ceiba_consumer_receive(S("later"), 1, 10000, &got, &E));
    CHECK(ceiba_deliveries_count(got) == 1 && now_seconds() - start >= 1.0);
    ceiba_slice code = ceiba_deliveries_code(got, 0);
    CHECK_OK(ceiba_consumer_ack(S("later"), (const char *)code.data, code.len, &E));
    ceiba_deliveries_free(got);
    CHECK_OK(ceiba_producer_close(S("later"), -1, &E));
    CHECK_OK(ceiba_consumer_close(S("later"), -1, &E));
}

static void stop(void) {
    CHECK_OK(ceiba_shutdown(-1, NULL, &E));
    CHECK_OK(ceiba_broker_stop(broker, -1, &E));
    ceiba_broker_free(broker);
}

static void again_without_an_ack(void) {
    CHECK_OK(ceiba_producer_open(S("again"), L(config("again", "test", "")), NULL, &E));
    CHECK_OK(ceiba_consumer_open(S("again"), L(config("again", "test", "")), &E));
    CHECK_OK(ceiba_producer_send(S("again"), S("x"), 0, NULL, &E));
    for (int round = 0; round < 2; round++) {
        ceiba_deliveries *got = NULL;
        CHECK_OK(ceiba_consumer_receive(S("again"), 1, 10000, &got, &E));
        CHECK(ceiba_deliveries_count(got) == 1 && same(ceiba_deliveries_body(got, 0), "x"));
        if (round == 1) {
            ceiba_slice code = ceiba_deliveries_code(got, 0);
            CHECK_OK(ceiba_consumer_ack(S("again"), (const char *)code.data, code.len, &E));
        }
        ceiba_deliveries_free(got);
    }
}

static void submits(void) {
    enum { COUNT = 5000 };
    ceiba_queue *queue = NULL;
    CHECK_OK(ceiba_queue_new(COUNT, &queue, &E));
    CHECK_OK(ceiba_producer_open(S("fast"), L(config("fast", "test", "")), queue, &E));
    for (uint64_t token = 0; token < COUNT; token++) {
        CHECK_OK(ceiba_producer_submit(S("fast"), S("0123456789"), 0, token, &E));
    }
    static unsigned char seen[COUNT];
    ceiba_completions *batch = NULL;
    for (size_t got = 0; got < COUNT; got += ceiba_completions_count(batch)) {
        CHECK_OK(ceiba_queue_poll(queue, 1000, 10000, &batch, &E));
        CHECK(ceiba_completions_count(batch) > 0);
        for (size_t i = 0; i < ceiba_completions_count(batch); i++) {
            CHECK(ceiba_completions_codes(batch)[i] == CEIBA_OK);
            CHECK(seen[ceiba_completions_tokens(batch)[i]]++ == 0);
        }
    }
    CHECK_OK(ceiba_producer_close(S("fast"), -1, &E));
    ceiba_completions_free(batch);
    ceiba_queue_free(queue);
}

static void what_cannot_be_sent(void) {
    CHECK_OK(ceiba_producer_open(S("out"), L(config("out", "test", "")), NULL, &E));
    CHECK_FAILS(CEIBA_ERR_UNSUPPORTED, "UTF-8", ceiba_producer_send(S("out"), S("\xff\xfe"), 0, NULL, &E));
    ceiba_message *message = ceiba_message_new();
    CHECK_OK(ceiba_message_set_topic(message, S("elsewhere"), &E));
    CHECK_FAILS(CEIBA_ERR_UNSUPPORTED, "`out`", ceiba_producer_send_message(S("out"), message, -1, NULL, &E));
    ceiba_message_free(message);
    size_t large = (size_t)65 << 20;
    char *body = malloc(large);
    CHECK(body != NULL);
    memset(body, 'x', large);
    CHECK_FAILS(CEIBA_ERR_TOO_LARGE, "", ceiba_producer_send(S("out"), body, large, 0, NULL, &E));
    free(body);
    CHECK_OK(ceiba_producer_send(S("out"), S("goes on"), 0, NULL, &E));
    CHECK_OK(ceiba_producer_close(S("out"), -1, &E));
}

static void wrong_keys_and_hosts(void) {
    ceiba_error *error = NULL;
    CHECK(ceiba_producer_open(S("wrong"), L(config("t", "hunter2", "")), NULL, &error) == CEIBA_ERR_AUTHENTICATION);
    CHECK(!contains(ceiba_error_message(error), "hunter2"));
    CHECK(same(ceiba_error_provider(error), "kapokmq") && !ceiba_error_retryable(error));
    ceiba_error_free(error);
    CHECK_FAILS(CEIBA_ERR_AUTHENTICATION, "", ceiba_consumer_open(S("wrong"), L(config("t", "hunter2", "")), &E));
    CHECK_FAILS(CEIBA_ERR_INVALID_CONFIG, "topic", ceiba_producer_open(S("none"), L(config("", "test", "")), NULL, &E));

    double start = now_seconds();
    CHECK_FAILS(CEIBA_ERR_UNAVAILABLE, "127.0.0.1:1",
                ceiba_producer_open(S("nowhere"),
                                    S("{\"provider\": {\"type\": \"kapokmq\", \"url\": \"ws://127.0.0.1:1\", \"topic\": \"t\","
                                      " \"secret_key\": \"s\"}, \"connect_timeout\": \"300ms\"}"),
                                    NULL, &E));
    CHECK(now_seconds() - start < 5);
}

static void the_broker_goes(void) {
    CHECK_OK(ceiba_producer_open(S("left"), L(config("left", "test", ", \"deadline\": \"400ms\"")), NULL, &E));
    CHECK_OK(ceiba_producer_send(S("left"), S("x"), 0, NULL, &E));
    CHECK_OK(ceiba_broker_stop(broker, 1000, &E));
    ceiba_error *error = NULL;
    double start = now_seconds();
    int32_t code = ceiba_producer_send(S("left"), S("y"), 0, NULL, &error);
    CHECK(code == CEIBA_ERR_TIMEOUT || code == CEIBA_ERR_UNAVAILABLE);
    CHECK(now_seconds() - start < 5);
    ceiba_error_free(error);
    ceiba_broker_free(broker);
    CHECK_OK(ceiba_shutdown(1000, NULL, &E));
}

int main(void) {
    within_seconds(120);
    start("{\"secret_key\": \"test\", \"redeliver_after\": \"1s\"}");
    again_without_an_ack();
    stop();
    start("{\"secret_key\": \"test\"}");
    send_receive_ack();
    never_early();
    submits();
    what_cannot_be_sent();
    wrong_keys_and_hosts();
    the_broker_goes();
    return 0;
}
