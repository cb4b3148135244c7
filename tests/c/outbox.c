// The rows of an outbox, by a producer's id and by the address of its store; every argument wrong. C and C++.
#include "check.h"

#include <sys/wait.h>

typedef int32_t (*operation)(const char *, size_t, const char *, size_t, int64_t, ceiba_string **, ceiba_error **);

static const operation OPERATIONS[] = {
    ceiba_outbox_list,   ceiba_outbox_show,   ceiba_outbox_retry, ceiba_outbox_retry_all, ceiba_outbox_drop,
    ceiba_outbox_export, ceiba_outbox_import, ceiba_outbox_stats, ceiba_outbox_purge,
};
enum { COUNT = sizeof OPERATIONS / sizeof OPERATIONS[0] };

static char folder[] = "/tmp/ceiba-c-outbox-XXXXXX";
static char store[128], config[512];

static void text_of(ceiba_string *json, char *out, size_t size) {
    ceiba_slice text = ceiba_string_value(json);
    CHECK(text.len < size);
    memcpy(out, text.data, text.len);
    out[text.len] = 0;
    ceiba_string_free(json);
}

// What the operation answers, which must contain `part`.
static void answers(operation call, const char *target, const char *options, const char *part) {
    ceiba_string *json = NULL;
    CHECK_OK(call(L(target), L(options), -1, &json, &E));
    if (!contains(ceiba_string_value(json), part)) {
        ceiba_slice text = ceiba_string_value(json);
        fprintf(stderr, "`%s` is not in %.*s\n", part, (int)text.len, text.data);
        _exit(1);
    }
    ceiba_string_free(json);
}

static void refuses(operation call, int32_t code, const char *part, const char *target, const char *options) {
    ceiba_string *json = NULL;
    CHECK_FAILS(code, part, call(L(target), L(options), -1, &json, &E));
    CHECK(json == NULL);
}

static bool stored(const char *body) {
    ceiba_receipt *receipt = NULL;
    CHECK_OK(ceiba_producer_send(S("shop"), L(body), 0, &receipt, &E));
    bool stored = ceiba_receipt_stored(receipt);
    ceiba_string *json = ceiba_receipt_json(receipt);
    CHECK(contains(ceiba_string_value(json), stored ? "\"stored\":true" : "\"stored\":false"));
    ceiba_string_free(json);
    ceiba_receipt_free(receipt);
    return stored;
}

static void received(const char *body) {
    const char topic[] = "{\"provider\": {\"type\": \"memory\", \"topic\": \"c-outbox\"}}";
    CHECK_OK(ceiba_consumer_open(S("in"), S(topic), &E));
    ceiba_deliveries *deliveries = NULL;
    CHECK_OK(ceiba_consumer_receive(S("in"), 1, 20000, &deliveries, &E));
    CHECK(ceiba_deliveries_count(deliveries) == 1 && same(ceiba_deliveries_body(deliveries, 0), body));
    ceiba_slice code = ceiba_deliveries_code(deliveries, 0);
    CHECK_OK(ceiba_consumer_ack(S("in"), (const char *)code.data, code.len, &E));
    ceiba_deliveries_free(deliveries);
    CHECK_OK(ceiba_consumer_close(S("in"), -1, &E));
}

static void wrong_arguments(void) {
    ceiba_string *json = NULL;
    for (size_t i = 0; i < COUNT; i++) {
        operation call = OPERATIONS[i];
        CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "`target` is NULL", call(NULL, 3, S("{}"), -1, &json, &E));
        CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "`target` is not UTF-8", call(S("a\xff"), S("{}"), -1, &json, &E));
        CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "length", call("a", SIZE_MAX, S("{}"), -1, &json, &E));
        CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "`options_json` is NULL", call(S("shop"), NULL, 2, -1, &json, &E));
        CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "UTF-8", call(S("shop"), S("\xc0\xaf"), -1, &json, &E));
        CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "not valid JSON at column 1", call(S("shop"), S("{"), -1, &json, &E));
        CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "", call(S("shop"), S("[]"), -1, &json, &E));
        CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "unknown", call(S("shop"), S("{\"unknown\": 1}"), -1, &json, &E));
        CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "`json` is NULL", call(S("shop"), S("{}"), -1, NULL, &E));
        CHECK(call(S("shop"), S("{"), -1, &json, NULL) == CEIBA_ERR_INVALID_ARGUMENT);
        const char *options = call == ceiba_outbox_show ? "{\"id\": \"1\"}"
                              : call == ceiba_outbox_retry || call == ceiba_outbox_drop ? "{\"ids\": []}"
                              : call == ceiba_outbox_import                            ? "{\"lines\": []}"
                              : call == ceiba_outbox_purge                             ? "{\"older\": \"7d\"}"
                                                                                       : "";
        refuses(call, CEIBA_ERR_UNKNOWN_ID, "nobody", "nobody", options);
        refuses(call, CEIBA_ERR_UNKNOWN_ID, "", "", options);
        refuses(call, CEIBA_ERR_UNSUPPORTED, "no outbox", "plain", options);
        refuses(call, CEIBA_ERR_INVALID_ARGUMENT, "sqlite:FILE", "sqlite:", options);
        refuses(call, CEIBA_ERR_STORAGE, "", "sqlite:/dev/null/outbox.db", options);
    }
    CHECK(json == NULL);
    refuses(ceiba_outbox_list, CEIBA_ERR_INVALID_ARGUMENT, "limit", "shop", "{\"limit\": 1001}");
    refuses(ceiba_outbox_list, CEIBA_ERR_INVALID_ARGUMENT, "state", "shop", "{\"state\": \"gone\"}");
    refuses(ceiba_outbox_list, CEIBA_ERR_INVALID_ARGUMENT, "another producer", "shop", "{\"producer\": \"other\"}");
    refuses(ceiba_outbox_show, CEIBA_ERR_INVALID_ARGUMENT, "id", "shop", "{}");
    refuses(ceiba_outbox_show, CEIBA_ERR_INVALID_ARGUMENT, "number", "shop", "{\"id\": \"x\"}");
    refuses(ceiba_outbox_show, CEIBA_ERR_NOT_FOUND, "99", "shop", "{\"id\": \"99\"}");
    refuses(ceiba_outbox_import, CEIBA_ERR_INVALID_ARGUMENT, "line 1", "shop", "{\"lines\": [\"{}\"]}");
    refuses(ceiba_outbox_purge, CEIBA_ERR_INVALID_ARGUMENT, "still to be sent", "shop",
            "{\"older\": \"7d\", \"state\": \"pending\"}");
    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "`target` is NULL", ceiba_outbox_drain(NULL, 1, -1, &json, &E));
    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "UTF-8", ceiba_outbox_drain(S("\xff"), -1, &json, &E));
    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "`json` is NULL", ceiba_outbox_drain(S("shop"), -1, NULL, &E));
    CHECK_FAILS(CEIBA_ERR_UNKNOWN_ID, "nobody", ceiba_outbox_drain(S("nobody"), -1, &json, &E));
    CHECK_FAILS(CEIBA_ERR_UNSUPPORTED, "no outbox", ceiba_outbox_drain(S("plain"), -1, &json, &E));
    CHECK_FAILS(CEIBA_ERR_UNSUPPORTED, "open producer", ceiba_outbox_drain(L(store), -1, &json, &E));
    CHECK(json == NULL);
}

// The text behind `"key":"` in an answer.
static void field(const char *text, const char *key, char *out) {
    const char *at = strstr(text, key);
    CHECK(at != NULL);
    at += strlen(key);
    size_t length = strcspn(at, "\"");
    CHECK(length < 32);
    memcpy(out, at, length);
    out[length] = 0;
}

static void rows(void) {
    // The topic has room for one message.
    CHECK(!stored("first"));
    CHECK(stored("second") && stored("third"));
    answers(ceiba_outbox_stats, "shop", "", "\"pending\":2");
    answers(ceiba_outbox_stats, store, "{\"producer\": \"shop\"}", "\"store\":\"sqlite\"");
    static char text[65536], options[131072], id[32];
    ceiba_string *json = NULL;
    CHECK_OK(ceiba_outbox_list(S("shop"), S("{\"limit\": 1}"), 5000, &json, &E));
    text_of(json, text, sizeof text);
    CHECK(strstr(text, "\"state\":\"pending\"") != NULL && strstr(text, "third") == NULL);
    field(text, "\"id\":\"", id);
    snprintf(options, sizeof options, "{\"after\": \"%s\", \"state\": \"pending\"}", id);
    answers(ceiba_outbox_list, store, options, "third");
    snprintf(options, sizeof options, "{\"id\": \"%s\"}", id);
    answers(ceiba_outbox_show, "shop", options, "\"body\":\"second\"");

    json = NULL;
    CHECK_OK(ceiba_outbox_export(L(store), NULL, 0, -1, &json, &E));
    text_of(json, text, sizeof text);
    CHECK(strstr(text, "\"next\":null") != NULL);
    char *end = strstr(text, ",\"next\"");
    CHECK(end != NULL);
    *end = 0;
    snprintf(options, sizeof options, "%s}", text);
    answers(ceiba_outbox_import, store, options, "{\"imported\":0,\"known\":2}");

    json = NULL;
    CHECK_OK(ceiba_outbox_drain(S("shop"), -1, &json, &E));
    CHECK(same(ceiba_string_value(json), "{\"failed\":2,\"given_up\":2,\"sent\":0}"));
    ceiba_string_free(json);
    received("first");
    snprintf(options, sizeof options, "{\"ids\": [\"%s\"]}", id);
    answers(ceiba_outbox_retry, "shop", options, "{\"retried\":1}");
    received("second");
    answers(ceiba_outbox_retry_all, "shop", "", "{\"retried\":1}");
    received("third");
    snprintf(options, sizeof options, "{\"ids\": [\"%s\", \"99\"]}", id);
    json = NULL;
    CHECK_OK(ceiba_producer_flush(S("shop"), -1, &E));
    answers(ceiba_outbox_purge, "shop", "{\"older\": \"7d\"}", "{\"purged\":0}");
    answers(ceiba_outbox_drop, "shop", options, "\"unknown\":[\"99\"]");

    ceiba_string *metrics = ceiba_metrics();
    CHECK(contains(ceiba_string_value(metrics), "ceiba_strategy_stored_total{id=\"shop\""));
    CHECK(contains(ceiba_string_value(metrics), "ceiba_strategy_rows_dead{id=\"shop\""));
    ceiba_string_free(metrics);
}

// In a child: SQLite cannot be used there while the parent had a store open, and is used well otherwise.
static void forked(bool refused) {
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        within_seconds(30);
        if (refused) {
            refuses(ceiba_outbox_stats, CEIBA_ERR_FORKED, "after the fork", store, "");
            CHECK_FAILS(CEIBA_ERR_FORKED, "after the fork", ceiba_producer_open(S("own"), L(config), NULL, &E));
        } else {
            answers(ceiba_outbox_stats, store, "", "\"producers\":[");
            CHECK_OK(ceiba_producer_open(S("own"), L(config), NULL, &E));
            CHECK_OK(ceiba_shutdown(-1, NULL, &E));
        }
        _exit(0);
    }
    int status = 1;
    CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int main(void) {
    within_seconds(120);
    CHECK(mkdtemp(folder) != NULL);
    snprintf(store, sizeof store, "sqlite:%s/outbox.db", folder);
    snprintf(config, sizeof config,
             "{\"provider\": {\"type\": \"memory\", \"topic\": \"c-outbox\", \"capacity\": 1}, \"strategies\": "
             "[{\"type\": \"outbox\", \"url\": \"%s\", \"max_attempts\": 1, \"keep_done\": \"1h\"}]}",
             store);
    CHECK_OK(ceiba_producer_open(S("shop"), L(config), NULL, &E));
    CHECK_OK(ceiba_producer_open(S("plain"), S("{\"provider\": {\"type\": \"memory\", \"topic\": \"c-plain\"}}"), NULL,
                                 &E));
    wrong_arguments();
    rows();
    forked(true);
    CHECK_OK(ceiba_shutdown(-1, NULL, &E));
    // It waited for the file.
    forked(false);
    refuses(ceiba_outbox_list, CEIBA_ERR_UNKNOWN_ID, "shop", "shop", "");
    // The rows are there without the producer.
    answers(ceiba_outbox_stats, store, "", "\"producers\":[");
    char file[160];
    const char *ends[] = {"", "-wal", "-shm"};
    for (size_t i = 0; i < 3; i++) {
        snprintf(file, sizeof file, "%s%s", store + strlen("sqlite:"), ends[i]);
        unlink(file);
    }
    rmdir(folder);
    return 0;
}
