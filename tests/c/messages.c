// Sends, receives and acks over the memory provider: what comes out is what went in.
#include "check.h"

static const char CONFIG[] =
    "{\"provider\": {\"type\": \"memory\", \"topic\": \"messages\"}, \"deadline\": \"5s\"}";

static ceiba_deliveries *receive(size_t max, int64_t timeout_ms) {
    ceiba_deliveries *deliveries = NULL;
    CHECK_OK(ceiba_consumer_receive(S("in"), max, timeout_ms, &deliveries, &E));
    CHECK(deliveries != NULL);
    return deliveries;
}

static void ack(const ceiba_deliveries *deliveries, size_t index) {
    ceiba_slice code = ceiba_deliveries_code(deliveries, index);
    CHECK_OK(ceiba_consumer_ack(S("in"), (const char *)code.data, code.len, &E));
}

static void a_body_of_any_bytes(void) {
    const unsigned char body[] = {0, 255, 'a', 0, 128};
    ceiba_receipt *receipt = NULL;
    CHECK_OK(ceiba_producer_send(S("out"), body, sizeof body, 0, &receipt, &E));
    CHECK(same(ceiba_receipt_provider(receipt), "memory"));
    CHECK(ceiba_receipt_attempts(receipt) == 1 && !ceiba_receipt_stored(receipt));
    CHECK(ceiba_receipt_message_id(receipt).len > 0 && ceiba_receipt_warning(receipt).len == 0);
    ceiba_receipt_free(receipt);

    ceiba_deliveries *got = receive(10, -1);
    CHECK(ceiba_deliveries_count(got) == 1);
    ceiba_slice view = ceiba_deliveries_body(got, 0);
    CHECK(view.len == sizeof body && memcmp(view.data, body, sizeof body) == 0);
    CHECK(same(ceiba_deliveries_topic(got, 0), "messages"));
    CHECK(ceiba_deliveries_attempt(got, 0) == 1);
    int64_t created = ceiba_deliveries_created_ms(got, 0);
    CHECK(created / 1000 <= (int64_t)time(NULL) + 1 && created / 1000 >= (int64_t)time(NULL) - 60);
    CHECK(ceiba_deliveries_body(got, 1).len == 0 && ceiba_deliveries_code(got, 1).len == 0);
    CHECK(ceiba_deliveries_key(got, 0).len == 0 && ceiba_deliveries_tag(got, 0).len == 0);
    ack(got, 0);
    // A second ack of the same code is told apart.
    ceiba_slice code = ceiba_deliveries_code(got, 0);
    CHECK_FAILS(CEIBA_ERR_NOT_FOUND, "code", ceiba_consumer_ack(S("in"), (const char *)code.data, code.len, &E));
    ceiba_deliveries_free(got);

    CHECK_OK(ceiba_producer_send(S("out"), NULL, 0, 0, NULL, &E));
    got = receive(1, -1);
    CHECK(ceiba_deliveries_body(got, 0).len == 0 && ceiba_deliveries_body(got, 0).data != NULL);
    ack(got, 0);
    ceiba_deliveries_free(got);
}

static void a_full_message(void) {
    ceiba_message *message = ceiba_message_new();
    CHECK_OK(ceiba_message_set_body(message, S("first"), &E));
    CHECK_OK(ceiba_message_set_body(message, S("full"), &E));
    CHECK_OK(ceiba_message_set_content_type(message, S("text/plain"), &E));
    CHECK_OK(ceiba_message_set_key(message, S("k\xc3\xa9y"), &E));
    CHECK_OK(ceiba_message_set_tag(message, S("red"), &E));
    CHECK_OK(ceiba_message_set_topic(message, S("messages"), &E));
    CHECK_OK(ceiba_message_set_attribute(message, S("b"), S("old"), &E));
    CHECK_OK(ceiba_message_set_attribute(message, S("b"), S("2"), &E));
    CHECK_OK(ceiba_message_set_attribute(message, S("a"), S(""), &E));
    ceiba_receipt *receipt = NULL;
    CHECK_OK(ceiba_producer_send_message(S("out"), message, 1000, &receipt, &E));
    ceiba_receipt_free(receipt);
    // The message is still the caller's, and can be sent again.
    CHECK_OK(ceiba_message_set_delay_ms(message, 100, &E));
    double start = now_seconds();
    CHECK_OK(ceiba_producer_send_message(S("out"), message, -1, NULL, &E));
    ceiba_message_free(message);

    ceiba_deliveries *got = receive(1, -1);
    CHECK(same(ceiba_deliveries_body(got, 0), "full"));
    CHECK(same(ceiba_deliveries_content_type(got, 0), "text/plain"));
    CHECK(same(ceiba_deliveries_key(got, 0), "k\xc3\xa9y"));
    CHECK(same(ceiba_deliveries_tag(got, 0), "red"));
    CHECK(ceiba_deliveries_attribute_count(got, 0) == 2);
    CHECK(same(ceiba_deliveries_attribute_name(got, 0, 0), "a"));
    CHECK(same(ceiba_deliveries_attribute_name(got, 0, 1), "b"));
    CHECK(ceiba_deliveries_attribute_name(got, 0, 2).len == 0);
    ceiba_slice value = {NULL, 7};
    CHECK(!ceiba_deliveries_get_attribute(got, 0, S("c"), &value) && value.len == 7);
    CHECK(ceiba_deliveries_get_attribute(got, 0, S("b"), &value) && same(value, "2"));
    CHECK(ceiba_deliveries_get_attribute(got, 0, S("a"), NULL));
    ack(got, 0);
    ceiba_deliveries_free(got);

    got = receive(1, -1);
    CHECK(now_seconds() - start >= 0.1);
    ack(got, 0);
    ceiba_deliveries_free(got);
}

static void a_field_that_cannot_be_honoured(void) {
    ceiba_message *message = ceiba_message_new();
    CHECK_OK(ceiba_message_add_recipient(message, S("a@example.org"), &E));
    CHECK_FAILS(CEIBA_ERR_UNSUPPORTED, "recipients", ceiba_producer_send_message(S("out"), message, -1, NULL, &E));
    ceiba_message_free(message);
    message = ceiba_message_new();
    CHECK_OK(ceiba_message_set_template(message, S("welcome"), &E));
    CHECK_OK(ceiba_message_set_args(message, S("{\"name\": \"A\"}"), &E));
    CHECK_FAILS(CEIBA_ERR_UNSUPPORTED, "template", ceiba_producer_send_message(S("out"), message, -1, NULL, &E));
    ceiba_message_free(message);
    message = ceiba_message_new();
    CHECK_OK(ceiba_message_add_attachment(message, S("a.txt"), S("text/plain"), S("x"), &E));
    ceiba_error *error = NULL;
    CHECK(ceiba_producer_send_message(S("out"), message, -1, NULL, &error) == CEIBA_ERR_UNSUPPORTED);
    CHECK(ceiba_error_outcome(error) == CEIBA_OUTCOME_NOT_SENT && !ceiba_error_retryable(error));
    CHECK(same(ceiba_error_provider(error), "memory"));
    ceiba_error_free(error);
    ceiba_message_free(message);
}

static void batches(void) {
    enum { COUNT = 100 };
    ceiba_message *messages[COUNT];
    for (int i = 0; i < COUNT; i++) {
        char body[16];
        int len = snprintf(body, sizeof body, "m%d", i);
        messages[i] = ceiba_message_new();
        CHECK_OK(ceiba_message_set_body(messages[i], body, (size_t)len, &E));
    }
    CHECK_OK(ceiba_message_add_recipient(messages[7], S("nobody"), &E));
    ceiba_results *results = NULL;
    CHECK_OK(ceiba_producer_send_batch(S("out"), (const ceiba_message *const *)messages, COUNT, -1, &results, &E));
    CHECK(ceiba_results_count(results) == COUNT);
    for (size_t i = 0; i < COUNT; i++) {
        bool wrong = i == 7;
        CHECK(ceiba_results_code(results, i) == (wrong ? CEIBA_ERR_UNSUPPORTED : CEIBA_OK));
        CHECK((ceiba_results_error(results, i) != NULL) == wrong);
        CHECK((ceiba_results_receipt(results, i) == NULL) == wrong);
        ceiba_message_free(messages[i]);
    }
    CHECK(contains(ceiba_error_message(ceiba_results_error(results, 7)), "recipients"));
    ceiba_results_free(results);

    ceiba_slice codes[COUNT];
    ceiba_deliveries *got[COUNT];
    size_t lists = 0, count = 0;
    while (count < COUNT - 1) {
        got[lists] = receive(40, -1);
        size_t here = ceiba_deliveries_count(got[lists]);
        CHECK(here >= 1 && here <= 40);
        for (size_t i = 0; i < here; i++) {
            char body[16];
            snprintf(body, sizeof body, "m%zu", count < 7 ? count : count + 1);
            CHECK(same(ceiba_deliveries_body(got[lists], i), body));
            codes[count++] = ceiba_deliveries_code(got[lists], i);
        }
        lists++;
    }
    codes[count] = (ceiba_slice){(const uint8_t *)"zz", 2};
    CHECK_OK(ceiba_consumer_ack_many(S("in"), codes, count + 1, &results, &E));
    for (size_t i = 0; i < count; i++) {
        CHECK(ceiba_results_code(results, i) == CEIBA_OK && ceiba_results_receipt(results, i) == NULL);
    }
    CHECK(ceiba_results_code(results, count) == CEIBA_ERR_NOT_FOUND);
    ceiba_results_free(results);
    while (lists > 0) {
        ceiba_deliveries_free(got[--lists]);
    }
}

static void given_back(void) {
    CHECK_OK(ceiba_producer_send(S("out"), S("again"), 0, NULL, &E));
    ceiba_deliveries *got = receive(1, -1);
    ceiba_slice code = ceiba_deliveries_code(got, 0);
    CHECK_OK(ceiba_consumer_nack(S("in"), (const char *)code.data, code.len, 0, &E));
    ceiba_deliveries_free(got);
    got = receive(1, -1);
    CHECK(same(ceiba_deliveries_body(got, 0), "again") && ceiba_deliveries_attempt(got, 0) == 2);
    code = ceiba_deliveries_code(got, 0);
    ceiba_results *results = NULL;
    double start = now_seconds();
    CHECK_OK(ceiba_consumer_nack_many(S("in"), &code, 1, 80, &results, &E));
    CHECK(ceiba_results_code(results, 0) == CEIBA_OK);
    ceiba_results_free(results);
    ceiba_deliveries_free(got);
    got = receive(1, 10);
    CHECK(ceiba_deliveries_count(got) == 0);
    ceiba_deliveries_free(got);
    got = receive(1, -1);
    CHECK(now_seconds() - start >= 0.08);
    CHECK(ceiba_deliveries_attempt(got, 0) == 3);
    ack(got, 0);
    ceiba_deliveries_free(got);
}

static void states(void) {
    ceiba_string *json = NULL;
    CHECK_OK(ceiba_producer_status(S("out"), &json, &E));
    CHECK(contains(ceiba_string_value(json), "\"provider\":\"memory\""));
    CHECK(contains(ceiba_string_value(json), "\"under_way\":0"));
    ceiba_string_free(json);
    json = NULL;
    CHECK_OK(ceiba_consumer_status(S("in"), &json, &E));
    CHECK(contains(ceiba_string_value(json), "\"id\":\"in\""));
    ceiba_string_free(json);
    CHECK_OK(ceiba_producer_flush(S("out"), 1000, &E));
}

int main(void) {
    within_seconds(60);
    CHECK_OK(ceiba_runtime_set_workers(2, &E));
    CHECK_OK(ceiba_producer_open(S("out"), S(CONFIG), NULL, &E));
    CHECK_OK(ceiba_consumer_open(S("in"), S(CONFIG), &E));
    a_body_of_any_bytes();
    a_full_message();
    a_field_that_cannot_be_honoured();
    batches();
    given_back();
    states();
    CHECK_OK(ceiba_producer_close(S("out"), -1, &E));
    CHECK_OK(ceiba_consumer_close(S("in"), -1, &E));
    return 0;
}
