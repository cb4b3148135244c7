// Files of clients, the report of a shutdown, and log records.
#include "check.h"

#include <stdatomic.h>

static void write_file(char *path, const char *text) {
    int fd = mkstemp(path);
    CHECK(fd >= 0);
    CHECK(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
}

static void files(void) {
    char path[] = "/tmp/ceiba-life-XXXXXX";
    write_file(path, "{\"clients\": ["
                     "{\"id\": \"a\", \"provider\": {\"type\": \"memory\", \"topic\": \"life\"}},"
                     "{\"id\": \"b\", \"role\": \"consumer\", \"provider\": {\"type\": \"memory\", \"topic\": \"life\"}}]}");
    ceiba_queue *queue = NULL;
    CHECK_OK(ceiba_queue_new(10, &queue, &E));
    ceiba_string *ids = NULL;
    CHECK_OK(ceiba_open_file(L(path), queue, &ids, &E));
    CHECK(same(ceiba_string_value(ids),
               "[{\"id\":\"a\",\"role\":\"producer\"},{\"id\":\"b\",\"role\":\"consumer\"}]"));
    ceiba_string_free(ids);
    CHECK_OK(ceiba_producer_submit(S("a"), S("x"), 0, 3, &E));
    ceiba_completions *batch = NULL;
    CHECK_OK(ceiba_queue_poll(queue, 1, 5000, &batch, &E));
    CHECK(ceiba_completions_count(batch) == 1);
    ceiba_deliveries *got = NULL;
    CHECK_OK(ceiba_consumer_receive(S("b"), 1, 5000, &got, &E));
    CHECK(ceiba_deliveries_count(got) == 1);
    ceiba_deliveries_free(got);
    // Again: an id is taken, and nothing else changes.
    ids = NULL;
    CHECK_FAILS(CEIBA_ERR_ALREADY_OPEN, "`a`", ceiba_open_file(L(path), NULL, &ids, &E));
    CHECK(ids == NULL);
    unlink(path);

    // All or none.
    char half[] = "/tmp/ceiba-life-XXXXXX";
    write_file(half, "{\"clients\": ["
                     "{\"id\": \"c\", \"provider\": {\"type\": \"memory\", \"topic\": \"life\"}},"
                     "{\"id\": \"d\", \"provider\": {\"type\": \"nothing\"}}]}");
    CHECK_FAILS(CEIBA_ERR_INVALID_CONFIG, "`d`", ceiba_open_file(L(half), NULL, &ids, &E));
    CHECK_FAILS(CEIBA_ERR_UNKNOWN_ID, "`c`", ceiba_producer_send(S("c"), S("x"), 0, NULL, &E));
    unlink(half);
    char binary[] = "/tmp/ceiba-life-XXXXXX";
    write_file(binary, "\xff\xfe");
    CHECK_FAILS(CEIBA_ERR_INVALID_CONFIG, binary, ceiba_open_file(L(binary), NULL, &ids, &E));
    unlink(binary);

    ceiba_string *report = NULL;
    CHECK_OK(ceiba_shutdown(5000, &report, &E));
    CHECK(same(ceiba_string_value(report), "{\"clean\":2,\"failed\":0,\"forced\":0}"));
    ceiba_string_free(report);
    CHECK_FAILS(CEIBA_ERR_UNKNOWN_ID, "`a`", ceiba_producer_send(S("a"), S("x"), 0, NULL, &E));
    report = NULL;
    CHECK_OK(ceiba_shutdown(0, &report, &E));
    CHECK(same(ceiba_string_value(report), "{\"clean\":0,\"failed\":0,\"forced\":0}"));
    ceiba_string_free(report);
    ceiba_completions_free(batch);
    ceiba_queue_free(queue);
}

static void forced(void) {
    static const char NOWHERE[] =
        "{\"provider\": {\"type\": \"kapokmq\", \"url\": \"ws://127.0.0.1:1\", \"topic\": \"t\","
        " \"secret_key\": \"s\"}, \"connect\": \"lazy\", \"deadline\": \"60s\"}";
    ceiba_queue *queue = NULL;
    CHECK_OK(ceiba_queue_new(10, &queue, &E));
    CHECK_OK(ceiba_producer_open(S("stuck"), S(NOWHERE), queue, &E));
    CHECK_OK(ceiba_producer_open(S("free"), S("{\"provider\": {\"type\": \"memory\", \"topic\": \"f\"}}"), queue, &E));
    CHECK_OK(ceiba_producer_submit(S("stuck"), S("x"), 0, 1, &E));
    double start = now_seconds();
    ceiba_string *report = NULL;
    CHECK_OK(ceiba_shutdown(200, &report, &E));
    CHECK(now_seconds() - start < 5);
    CHECK(same(ceiba_string_value(report), "{\"clean\":1,\"failed\":0,\"forced\":1}"));
    ceiba_string_free(report);
    ceiba_completions *batch = NULL;
    CHECK_OK(ceiba_queue_poll(queue, 10, 5000, &batch, &E));
    CHECK(ceiba_completions_count(batch) == 1 && ceiba_completions_codes(batch)[0] != CEIBA_OK);
    ceiba_completions_free(batch);
    ceiba_queue_free(queue);
}

static atomic_int records, releases, secrets, forged;

static void take_record(void *user, int32_t level, ceiba_slice target, ceiba_slice message) {
    CHECK(user == &records && atomic_load(&releases) == 0);
    CHECK(level >= CEIBA_LOG_ERROR && level <= CEIBA_LOG_DEBUG);
    CHECK(target.len >= 5 && memcmp(target.data, "ceiba", 5) == 0);
    CHECK(message.len > 0);
    for (size_t i = 0; i < message.len; i++) {
        CHECK((unsigned char)message.data[i] >= ' ');
    }
    CHECK(!contains(message, "\xe2\x80\xae"));
    if (contains(message, "id=x\\r\\nforged\\x1b\\u202e")) {
        atomic_fetch_add(&forged, 1);
    }
    if (contains(message, "hunter2")) {
        atomic_fetch_add(&secrets, 1);
    }
    // A callback may call: it is not on a thread of the runtime.
    ceiba_string *json = NULL;
    CHECK(ceiba_producer_status(S("nobody"), &json, NULL) == CEIBA_ERR_UNKNOWN_ID);
    CHECK(ceiba_producer_send(S("nobody"), S("x"), 0, NULL, NULL) == CEIBA_ERR_UNKNOWN_ID);
    atomic_fetch_add(&records, 1);
}

static void release(void *user) {
    CHECK(user == &records);
    atomic_fetch_add(&releases, 1);
}

static void wait_for(atomic_int *number, int value) {
    for (int i = 0; i < 5000 && atomic_load(number) < value; i++) {
        sleep_ms(1);
    }
    CHECK(atomic_load(number) >= value);
}

static void broker_up_and_down(void) {
    ceiba_broker *broker = NULL;
    CHECK_OK(ceiba_broker_start(S("{\"secret_key\": \"hunter2\"}"), &broker, &E));
    CHECK_OK(ceiba_broker_stop(broker, -1, &E));
    CHECK_OK(ceiba_broker_stop(broker, -1, &E));
    ceiba_broker_free(broker);
}

// A client with a wrong key, whose id would be a line of its own.
static void forge(void) {
    ceiba_broker *broker = NULL;
    CHECK_OK(ceiba_broker_start(S("{\"secret_key\": \"hunter2\"}"), &broker, &E));
    ceiba_slice address = ceiba_broker_address(broker);
    char config[400];
    snprintf(config, sizeof config,
             "{\"provider\": {\"type\": \"kapokmq\", \"url\": \"ws://%.*s\", \"topic\": \"t\","
             " \"secret_key\": \"wrong\", \"client_id\": \"x\\r\\nforged\\u001b\\u202e\"}, \"connect_timeout\": \"20s\"}",
             (int)address.len, address.data);
    CHECK_FAILS(CEIBA_ERR_AUTHENTICATION, "", ceiba_producer_open(S("forger"), L(config), NULL, &E));
    wait_for(&forged, 1);
    ceiba_broker_free(broker);
}

static void logs(void) {
    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "max_level", ceiba_log_set(take_record, &records, release, 9, &E));
    CHECK(atomic_load(&releases) == 1);
    atomic_store(&releases, 0);
    broker_up_and_down();
    CHECK(atomic_load(&records) == 0);

    CHECK_OK(ceiba_log_set(take_record, &records, release, CEIBA_LOG_DEBUG, &E));
    broker_up_and_down();
    wait_for(&records, 2);
    forge();
    // In place of it, one that wants errors only.
    CHECK_OK(ceiba_log_set(take_record, &records, NULL, CEIBA_LOG_ERROR, &E));
    wait_for(&releases, 1);
    atomic_store(&releases, 0);
    int before = atomic_load(&records);
    broker_up_and_down();
    sleep_ms(20);
    CHECK(atomic_load(&records) == before);
    CHECK_OK(ceiba_log_set(take_record, &records, release, CEIBA_LOG_INFO, &E));
    broker_up_and_down();
    wait_for(&records, before + 2);
    CHECK_OK(ceiba_log_set(NULL, NULL, NULL, 0, &E));
    wait_for(&releases, 1);
    before = atomic_load(&records);
    broker_up_and_down();
    sleep_ms(20);
    CHECK(atomic_load(&records) == before && atomic_load(&releases) == 1 && atomic_load(&secrets) == 0);
}

int main(void) {
    within_seconds(60);
    files();
    forced();
    logs();
    return 0;
}
