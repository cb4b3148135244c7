// Wrong input at every boundary: a code, a text that names what is wrong, and a process that lives on.
#include "check.h"

#include <limits.h>

static const char CONFIG[] = "{\"provider\": {\"type\": \"memory\", \"topic\": \"input\"}}";

static void numbers_and_names(void) {
    CHECK(ceiba_abi_version() == CEIBA_ABI_VERSION);
    CHECK(strlen(ceiba_version()) > 0);
    CHECK(same(ceiba_error_name(0), "ok"));
    CHECK(same(ceiba_error_name(CEIBA_ERR_UNKNOWN_ID), "unknown_id"));
    CHECK(same(ceiba_error_name(CEIBA_ERR_INTERNAL), "internal"));
    CHECK(ceiba_error_name(26).len == 0 && ceiba_error_name(-1).len == 0);
    CHECK(ceiba_error_name(26).data != NULL);
    for (int32_t code = 0; code <= CEIBA_ERR_INTERNAL; code++) {
        CHECK(ceiba_error_name(code).len > 0);
    }
}

static void nothing_is_freed_and_asked(void) {
    ceiba_error_free(NULL);
    ceiba_receipt_free(NULL);
    ceiba_message_free(NULL);
    ceiba_results_free(NULL);
    ceiba_deliveries_free(NULL);
    ceiba_queue_free(NULL);
    ceiba_completions_free(NULL);
    ceiba_broker_free(NULL);
    ceiba_string_free(NULL);
    CHECK(ceiba_error_code(NULL) == CEIBA_OK);
    CHECK(ceiba_error_outcome(NULL) == CEIBA_OUTCOME_NOT_SENT);
    CHECK(!ceiba_error_retryable(NULL));
    CHECK(ceiba_error_retry_after_ms(NULL) == -1);
    CHECK(ceiba_error_attempts(NULL) == 0);
    CHECK(ceiba_error_message(NULL).len == 0 && ceiba_error_provider(NULL).len == 0);
    CHECK(ceiba_receipt_attempts(NULL) == 0 && !ceiba_receipt_stored(NULL));
    CHECK(ceiba_receipt_message_id(NULL).len == 0 && ceiba_receipt_provider(NULL).len == 0);
    CHECK(ceiba_receipt_warning(NULL).len == 0);
    CHECK(ceiba_receipt_code(NULL).len == 0);
    CHECK(ceiba_results_count(NULL) == 0 && ceiba_results_error(NULL, 0) == NULL);
    CHECK(ceiba_results_receipt(NULL, 0) == NULL);
    CHECK(ceiba_results_code(NULL, 0) == CEIBA_ERR_INVALID_ARGUMENT);
    CHECK(ceiba_deliveries_count(NULL) == 0 && ceiba_deliveries_body(NULL, 0).len == 0);
    CHECK(ceiba_deliveries_created_ms(NULL, 0) == -1 && ceiba_deliveries_attempt(NULL, 0) == 0);
    CHECK(ceiba_deliveries_attribute_count(NULL, 0) == 0);
    CHECK(!ceiba_deliveries_get_attribute(NULL, 0, S("a"), NULL));
    CHECK(ceiba_queue_fd(NULL) == -1 && ceiba_queue_capacity(NULL) == 0 && ceiba_queue_length(NULL) == 0);
    CHECK(ceiba_completions_count(NULL) == 0 && ceiba_completions_tokens(NULL) == NULL);
    CHECK(ceiba_completions_codes(NULL) == NULL && ceiba_completions_error(NULL, 0) == NULL);
    CHECK(ceiba_completions_receipt(NULL, 0) == NULL);
    CHECK(ceiba_string_value(NULL).len == 0);
    CHECK(ceiba_broker_address(NULL).len == 0);
}

static void ids(void) {
    // A place for the error may be left out.
    CHECK(ceiba_producer_send(S("nobody"), S("x"), 0, NULL, NULL) == CEIBA_ERR_UNKNOWN_ID);

    CHECK_FAILS(CEIBA_ERR_UNKNOWN_ID, "nobody", ceiba_producer_send(S("nobody"), S("x"), 0, NULL, &E));
    CHECK_FAILS(CEIBA_ERR_UNKNOWN_ID, "nobody", ceiba_producer_submit(S("nobody"), S("x"), 0, 1, &E));
    CHECK_FAILS(CEIBA_ERR_UNKNOWN_ID, "nobody", ceiba_producer_cancel(S("nobody"), 1, &E));
    CHECK_FAILS(CEIBA_ERR_UNKNOWN_ID, "nobody", ceiba_producer_flush(S("nobody"), -1, &E));
    CHECK_FAILS(CEIBA_ERR_UNKNOWN_ID, "nobody", ceiba_producer_close(S("nobody"), -1, &E));
    CHECK_FAILS(CEIBA_ERR_UNKNOWN_ID, "nobody", ceiba_consumer_close(S("nobody"), -1, &E));
    CHECK_FAILS(CEIBA_ERR_UNKNOWN_ID, "nobody", ceiba_consumer_ack(S("nobody"), S("c"), &E));
    CHECK_FAILS(CEIBA_ERR_UNKNOWN_ID, "nobody", ceiba_consumer_nack(S("nobody"), S("c"), 0, &E));
    ceiba_string *json = NULL;
    CHECK_FAILS(CEIBA_ERR_UNKNOWN_ID, "nobody", ceiba_producer_status(S("nobody"), &json, &E));
    CHECK_FAILS(CEIBA_ERR_UNKNOWN_ID, "nobody", ceiba_consumer_status(S("nobody"), &json, &E));
    CHECK(json == NULL);

    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "id", ceiba_producer_open(NULL, 0, S(CONFIG), NULL, &E));
    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "`id` is NULL", ceiba_producer_open(NULL, 3, S(CONFIG), NULL, &E));
    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "UTF-8", ceiba_producer_open(S("a\xff"), S(CONFIG), NULL, &E));
    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "control", ceiba_producer_open(S("a\nb"), S(CONFIG), NULL, &E));
    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "UTF-8", ceiba_producer_send(S("\xc0\xaf"), S("x"), 0, NULL, &E));
    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "length", ceiba_producer_send("a", SIZE_MAX, S("x"), 0, NULL, &E));
    char endless[300];
    memset(endless, 'a', sizeof endless);
    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "256",
                ceiba_producer_open(endless, sizeof endless, S(CONFIG), NULL, &E));

    CHECK_OK(ceiba_producer_open(S("a"), S(CONFIG), NULL, &E));
    CHECK_FAILS(CEIBA_ERR_ALREADY_OPEN, "`a`", ceiba_producer_open(S("a"), S(CONFIG), NULL, &E));
    CHECK_FAILS(CEIBA_ERR_UNKNOWN_ID, "`a`", ceiba_consumer_close(S("a"), -1, &E));
    CHECK_OK(ceiba_producer_send(S("a"), S("x"), 0, NULL, &E));
    CHECK_OK(ceiba_producer_close(S("a"), -1, &E));
    CHECK_FAILS(CEIBA_ERR_UNKNOWN_ID, "`a`", ceiba_producer_send(S("a"), S("x"), 0, NULL, &E));
    CHECK_FAILS(CEIBA_ERR_UNKNOWN_ID, "`a`", ceiba_producer_close(S("a"), -1, &E));
    CHECK_OK(ceiba_producer_open(S("a"), S(CONFIG), NULL, &E));
    CHECK_OK(ceiba_producer_close(S("a"), -1, &E));
    // An empty id takes the configuration's; two that differ are refused.
    CHECK_OK(ceiba_producer_open(NULL, 0, S("{\"id\": \"own\", \"provider\": {\"type\": \"memory\", \"topic\": \"t\"}}"),
                                 NULL, &E));
    CHECK_OK(ceiba_producer_close(S("own"), -1, &E));
    CHECK_FAILS(CEIBA_ERR_INVALID_CONFIG, "own",
                ceiba_producer_open(S("other"), S("{\"id\": \"own\", \"provider\": {\"type\": \"memory\"}}"), NULL, &E));
}

static void configurations(void) {
    CHECK_FAILS(CEIBA_ERR_INVALID_CONFIG, "", ceiba_producer_open(S("a"), NULL, 0, NULL, &E));
    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "`config` is NULL", ceiba_producer_open(S("a"), NULL, 9, NULL, &E));
    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "UTF-8", ceiba_producer_open(S("a"), S("{\xff}"), NULL, &E));
    CHECK_FAILS(CEIBA_ERR_INVALID_CONFIG, "line 1", ceiba_producer_open(S("a"), S("{"), NULL, &E));
    CHECK_FAILS(CEIBA_ERR_INVALID_CONFIG, "`deadline`",
                ceiba_producer_open(S("a"), S("{\"provider\": {\"type\": \"memory\", \"topic\": \"t\"}, \"dedline\": \"1s\"}"),
                                    NULL, &E));
    CHECK_FAILS(CEIBA_ERR_INVALID_CONFIG, "`topic`",
                ceiba_consumer_open(S("a"), S("{\"provider\": {\"type\": \"memory\", \"topik\": \"t\"}}"), &E));
    CHECK_FAILS(CEIBA_ERR_INVALID_CONFIG, "kapokmq",
                ceiba_producer_open(S("a"), S("{\"provider\": {\"type\": \"kapokmk\"}}"), NULL, &E));
    // A secret in broken JSON is not quoted.
    ceiba_error *error = NULL;
    CHECK(ceiba_producer_open(S("a"), S("{\"provider\": {\"secret_key\": \"hunter2"), NULL, &error) ==
          CEIBA_ERR_INVALID_CONFIG);
    CHECK(!contains(ceiba_error_message(error), "hunter2"));
    ceiba_error_free(error);
}

static void bodies_and_delays(void) {
    CHECK_OK(ceiba_producer_open(S("b"), S(CONFIG), NULL, &E));
    ceiba_receipt *receipt = NULL;
    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "`data` is NULL", ceiba_producer_send(S("b"), NULL, 5, 0, &receipt, &E));
    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "length", ceiba_producer_send(S("b"), "x", SIZE_MAX, 0, &receipt, &E));
    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "delay_seconds", ceiba_producer_send(S("b"), S("x"), -1, &receipt, &E));
    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "delay_seconds",
                ceiba_producer_send(S("b"), S("x"), INT64_MIN, &receipt, &E));
    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "delay", ceiba_producer_send(S("b"), S("x"), INT64_MAX, &receipt, &E));
    CHECK(receipt == NULL);
    CHECK_OK(ceiba_producer_send(S("b"), NULL, 0, 0, &receipt, &E));
    CHECK(receipt != NULL);
    ceiba_receipt_free(receipt);

    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "queue", ceiba_producer_submit(S("b"), S("x"), 0, 1, &E));
    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "delay_seconds", ceiba_producer_submit(S("b"), S("x"), -2, 1, &E));
    size_t accepted = 77;
    ceiba_slice slices[2] = {{(const uint8_t *)"x", 1}, {NULL, 4}};
    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "bodies[1]",
                ceiba_producer_submit_many(S("b"), slices, 2, 0, 1, &accepted, &E));
    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "`bodies` is NULL",
                ceiba_producer_submit_many(S("b"), NULL, 2, 0, 1, &accepted, &E));
    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "`accepted` is NULL",
                ceiba_producer_submit_many(S("b"), slices, 1, 0, 1, NULL, &E));
    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "count",
                ceiba_producer_submit_many(S("b"), slices, SIZE_MAX, 0, 1, &accepted, &E));
    CHECK(accepted == 77);

    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "`message` is NULL",
                ceiba_producer_send_message(S("b"), NULL, -1, NULL, &E));
    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "`message` is NULL",
                ceiba_producer_submit_message(S("b"), NULL, -1, 1, &E));
    const ceiba_message *none[1] = {NULL};
    ceiba_results *results = NULL;
    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "messages[0]",
                ceiba_producer_send_batch(S("b"), none, 1, -1, &results, &E));
    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "`results` is NULL",
                ceiba_producer_send_batch(S("b"), NULL, 0, -1, NULL, &E));
    CHECK(results == NULL);
    CHECK_OK(ceiba_producer_close(S("b"), -1, &E));
}

static void messages(void) {
    ceiba_message *message = ceiba_message_new();
    CHECK(message != NULL);
    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "`message` is NULL", ceiba_message_set_body(NULL, S("x"), &E));
    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "`data` is NULL", ceiba_message_set_body(message, NULL, 1, &E));
    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "delay_ms", ceiba_message_set_delay_ms(message, -1, &E));
    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "UTF-8", ceiba_message_set_key(message, S("\xff"), &E));
    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "JSON", ceiba_message_set_args(message, S("{"), &E));
    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "`name`", ceiba_message_set_attribute(message, S(""), S("v"), &E));
    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "`name`",
                ceiba_message_add_attachment(message, NULL, 0, S("text/plain"), S("x"), &E));
    char deep[20001];
    memset(deep, '[', sizeof deep - 1);
    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "JSON", ceiba_message_set_args(message, deep, sizeof deep - 1, &E));
    ceiba_message_free(message);
}

static void consumers(void) {
    CHECK_OK(ceiba_consumer_open(S("c"), S("{\"provider\": {\"type\": \"memory\", \"topic\": \"empty\"}}"), &E));
    ceiba_deliveries *deliveries = NULL;
    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "0", ceiba_consumer_receive(S("c"), 0, 10, &deliveries, &E));
    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "`deliveries` is NULL", ceiba_consumer_receive(S("c"), 1, 10, NULL, &E));
    CHECK(deliveries == NULL);
    CHECK_OK(ceiba_consumer_receive(S("c"), SIZE_MAX, 10, &deliveries, &E));
    CHECK(ceiba_deliveries_count(deliveries) == 0);
    ceiba_deliveries_free(deliveries);
    CHECK_FAILS(CEIBA_ERR_NOT_FOUND, "code", ceiba_consumer_ack(S("c"), S("nothing"), &E));
    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "`code` is NULL", ceiba_consumer_ack(S("c"), NULL, 3, &E));
    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "delay_ms", ceiba_consumer_nack(S("c"), S("nothing"), -1, &E));
    ceiba_slice codes[2] = {{(const uint8_t *)"x", 1}, {(const uint8_t *)"\xff", 1}};
    ceiba_results *results = NULL;
    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "codes[1]", ceiba_consumer_ack_many(S("c"), codes, 2, &results, &E));
    CHECK(results == NULL);
    CHECK_OK(ceiba_consumer_ack_many(S("c"), codes, 1, &results, &E));
    CHECK(ceiba_results_count(results) == 1 && ceiba_results_code(results, 0) == CEIBA_ERR_NOT_FOUND);
    CHECK(ceiba_error_code(ceiba_results_error(results, 0)) == CEIBA_ERR_NOT_FOUND);
    CHECK(ceiba_results_receipt(results, 0) == NULL);
    CHECK(ceiba_results_code(results, 1) == CEIBA_ERR_INVALID_ARGUMENT && ceiba_results_error(results, 1) == NULL);
    ceiba_results_free(results);
    CHECK_OK(ceiba_consumer_ack_many(S("c"), NULL, 0, &results, &E));
    CHECK(ceiba_results_count(results) == 0);
    ceiba_results_free(results);
    CHECK_OK(ceiba_consumer_close(S("c"), -1, &E));
}

static void queues_and_the_rest(void) {
    ceiba_queue *queue = NULL;
    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "capacity", ceiba_queue_new(0, &queue, &E));
    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "capacity", ceiba_queue_new(SIZE_MAX, &queue, &E));
    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "`queue` is NULL", ceiba_queue_new(8, NULL, &E));
    CHECK(queue == NULL);
    CHECK_OK(ceiba_queue_new(8, &queue, &E));
    ceiba_completions *batch = NULL;
    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "`max`", ceiba_queue_poll(queue, 0, 0, &batch, &E));
    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "`queue`", ceiba_queue_poll(NULL, 1, 0, &batch, &E));
    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "`completions`", ceiba_queue_poll(queue, 1, 0, NULL, &E));
    CHECK(batch == NULL);
    ceiba_queue_free(queue);

    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "workers", ceiba_runtime_set_workers(0, &E));
    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "started", ceiba_runtime_set_workers(2, &E));
    CHECK_FAILS(CEIBA_ERR_INVALID_CONFIG, "/no/such/file", ceiba_open_file(S("/no/such/file"), NULL, NULL, &E));
    CHECK_FAILS(CEIBA_ERR_INVALID_CONFIG, "/tmp", ceiba_open_file(S("/tmp"), NULL, NULL, &E));

    ceiba_broker *broker = NULL;
    CHECK_FAILS(CEIBA_ERR_INVALID_CONFIG, "secret_key", ceiba_broker_start(S("{}"), &broker, &E));
    CHECK_FAILS(CEIBA_ERR_INVALID_CONFIG, "`fsync` needs a folder for the messages: name one in `data`",
                ceiba_broker_start(S("{\"secret_key\": \"s\", \"durability\": \"fsync\"}"), &broker, &E));
    CHECK_FAILS(CEIBA_ERR_INVALID_CONFIG, "`delivery`",
                ceiba_broker_start(S("{\"secret_key\": \"s\", \"delivry\": 1}"), &broker, &E));
    CHECK_FAILS(CEIBA_ERR_INVALID_CONFIG, "publish_subscribe",
                ceiba_broker_start(S("{\"secret_key\": \"s\", \"delivery\": \"publish\"}"), &broker, &E));
    CHECK_FAILS(CEIBA_ERR_INVALID_CONFIG, "nodes",
                ceiba_broker_start(S("{\"secret_key\": \"s\", \"nodes\": [\"nowhere\"]}"), &broker, &E));
    CHECK_FAILS(CEIBA_ERR_UNAVAILABLE, "192.0.2.1",
                ceiba_broker_start(S("{\"secret_key\": \"s\", \"listen\": \"192.0.2.1:1\"}"), &broker, &E));
    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "`broker` is NULL", ceiba_broker_stop(NULL, 0, &E));
    CHECK(broker == NULL);
}

int main(void) {
    within_seconds(60);
    numbers_and_names();
    nothing_is_freed_and_asked();
    ids();
    configurations();
    bodies_and_delays();
    messages();
    consumers();
    queues_and_the_rest();
    CHECK_OK(ceiba_shutdown(-1, NULL, &E));
    return 0;
}
