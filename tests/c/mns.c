// The administration of MNS: against the embedded broker, with every argument wrong, and with nobody there.
#include "check.h"

static void refuses(int32_t code, const char *part, const char *config, const char *command) {
    ceiba_string *json = NULL;
    CHECK_FAILS(code, part, ceiba_mns_admin(L(config), L(command), 5000, &json, &E));
    CHECK(json == NULL);
}

static char account_here[128];

// The address of the account of a broker in this process.
static void address_of(ceiba_broker *broker) {
    const char key[] = "\"mns_address\":\"";
    ceiba_string *json = NULL;
    CHECK_OK(ceiba_broker_status(broker, &json, &E));
    ceiba_slice text = ceiba_string_value(json);
    for (size_t at = 0; at + sizeof key < text.len; at++) {
        const char *here = (const char *)text.data + at;
        if (memcmp(here, key, sizeof key - 1) == 0) {
            const char *address = here + sizeof key - 1;
            size_t left = text.len - at - (sizeof key - 1);
            const char *end = (const char *)memchr(address, '"', left);
            CHECK(end != NULL);
            snprintf(account_here, sizeof account_here, "mns://id:secret@%.*s", (int)(end - address), address);
        }
    }
    ceiba_string_free(json);
    CHECK(account_here[0] != 0);
}

static void answers(const char *part, const char *command) {
    ceiba_string *json = NULL;
    CHECK_OK(ceiba_mns_admin(L(account_here), L(command), -1, &json, &E));
    ceiba_slice text = ceiba_string_value(json);
    if (!contains(text, part)) {
        fprintf(stderr, "`%s` is not in %.*s\n", part, (int)text.len, (const char *)text.data);
        _exit(1);
    }
    ceiba_string_free(json);
}

static void with_a_broker(void) {
    ceiba_broker *broker = NULL;
    const char config[] = "{\"secret_key\": \"s\", \"mns\": {\"keys\": {\"id\": \"secret\"}}}";
    CHECK_OK(ceiba_broker_start(S(config), &broker, &E));
    address_of(broker);
    const char *make = "{\"create_queue\": {\"queue\": \"q\", \"attributes\": {\"visibility_timeout\": 40}}}";
    answers("{\"created\":true}", make);
    answers("{\"created\":false}", make);
    answers("\"visibility_timeout\":40", "{\"get_queue\": {\"queue\": \"q\"}}");
    char config_of[256];
    snprintf(config_of, sizeof config_of, "%s/queues/q", account_here);
    CHECK_OK(ceiba_producer_open(S("p"), L(config_of), NULL, &E));
    CHECK_OK(ceiba_producer_send(S("p"), S("hello"), 0, NULL, &E));
    answers("\"body\":\"hello\"", "{\"peek\": {\"queue\": \"q\", \"limit\": 16}}");
    answers("\"name\":\"q\"", "{\"list_queues\": {}}");
    answers("{\"created\":true}", "{\"create_topic\": {\"topic\": \"t\"}}");
    answers("{\"created\":true}",
            "{\"subscribe\": {\"topic\": \"t\", \"subscription\": \"s\", \"attributes\": {\"endpoint\": "
            "\"acs:mns:here:1:queues/q\"}}}");
    answers("\"next\":null", "{\"list_subscriptions\": {\"topic\": \"t\"}}");
    // What is delayed is taken back by the code of its receipt.
    ceiba_receipt *late = NULL;
    CHECK_OK(ceiba_producer_send(S("p"), S("late"), 600, &late, &E));
    answers("\"delay_messages\":1", "{\"get_queue\": {\"queue\": \"q\"}}");
    CHECK_OK(ceiba_consumer_open(S("c"), L(config_of), &E));
    ceiba_slice code = ceiba_receipt_code(late);
    CHECK(code.len > 0);
    CHECK_OK(ceiba_consumer_ack(S("c"), (const char *)code.data, code.len, &E));
    ceiba_receipt_free(late);
    answers("\"delay_messages\":0", "{\"get_queue\": {\"queue\": \"q\"}}");
    CHECK_OK(ceiba_consumer_close(S("c"), 5000, &E));
    answers("{}", "{\"delete_queue\": {\"queue\": \"q\"}}");
    refuses(CEIBA_ERR_NOT_FOUND, "QueueNotExist", account_here, "{\"get_queue\": {\"queue\": \"q\"}}");
    CHECK_OK(ceiba_producer_close(S("p"), 5000, &E));
    CHECK_OK(ceiba_broker_stop(broker, 5000, &E));
    ceiba_broker_free(broker);
}

int main(void) {
    const char *account = "mns://id:hunter2@127.0.0.1:1";
    with_a_broker();
    const char *get = "{\"get_queue\": {\"queue\": \"q\"}}";
    refuses(CEIBA_ERR_INVALID_CONFIG, "", "", get);
    refuses(CEIBA_ERR_INVALID_CONFIG, "mns", "{\"provider\": {\"type\": \"memory\", \"topic\": \"t\"}}", get);
    refuses(CEIBA_ERR_INVALID_CONFIG, "access_key_id", "mns://127.0.0.1:1", get);
    refuses(CEIBA_ERR_INVALID_ARGUMENT, "JSON", account, "");
    refuses(CEIBA_ERR_INVALID_ARGUMENT, "JSON at line 2, column 1", account,
            "{\"get_queue\": {\"queue\": \"q\"}}\n{\"get_queue\": {\"queue\": \"r\"}}");
    refuses(CEIBA_ERR_INVALID_ARGUMENT, "JSON at line 2, column 12", account, "{\"get_queue\":\n {\"queue\": q}}");
    refuses(CEIBA_ERR_INVALID_ARGUMENT, "JSON at line 2, column 0", account, "{\"get_queue\":\n");
    refuses(CEIBA_ERR_INVALID_ARGUMENT, "one key", account, "[]");
    refuses(CEIBA_ERR_INVALID_ARGUMENT, "has 0", account, "{}");
    refuses(CEIBA_ERR_INVALID_ARGUMENT, "has 2", account, "{\"get_queue\": {}, \"get_topic\": {}}");
    refuses(CEIBA_ERR_INVALID_ARGUMENT, "get_queue", account, "{\"get_queu\": {\"queue\": \"q\"}}");
    refuses(CEIBA_ERR_INVALID_ARGUMENT, "queue", account, "{\"get_queue\": {}}");
    refuses(CEIBA_ERR_INVALID_ARGUMENT, "limit", account, "{\"get_queue\": {\"queue\": \"q\", \"limit\": 1}}");
    refuses(CEIBA_ERR_INVALID_ARGUMENT, "attributes.visibility_timeout", account,
            "{\"create_queue\": {\"queue\": \"q\", \"attributes\": {\"visibility_timeout\": \"soon\"}}}");
    refuses(CEIBA_ERR_INVALID_ARGUMENT, "visibility_timeout", account,
            "{\"create_queue\": {\"queue\": \"q\", \"attributes\": {\"visibilty_timeout\": 1}}}");
    refuses(CEIBA_ERR_INVALID_ARGUMENT, "name", account, "{\"get_queue\": {\"queue\": \"a b\"}}");
    refuses(CEIBA_ERR_INVALID_ARGUMENT, "limit", account, "{\"peek\": {\"queue\": \"q\", \"limit\": 17}}");
    refuses(CEIBA_ERR_INVALID_ARGUMENT, "1000", account, "{\"list_queues\": {\"limit\": 1001}}");
    refuses(CEIBA_ERR_UNSUPPORTED, "cannot empty", account, "{\"purge_queue\": {\"queue\": \"q\"}}");
    refuses(CEIBA_ERR_UNAVAILABLE, "127.0.0.1:1", account, get);

    ceiba_string *json = NULL;
    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "config", ceiba_mns_admin(NULL, 3, L(get), -1, &json, &E));
    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "command", ceiba_mns_admin(L(account), NULL, 3, -1, &json, &E));
    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "json", ceiba_mns_admin(L(account), L(get), -1, NULL, &E));
    CHECK_FAILS(CEIBA_ERR_INVALID_ARGUMENT, "UTF-8", ceiba_mns_admin(L(account), S("\xff"), -1, &json, &E));
    CHECK(ceiba_mns_admin(L(account), S("{}"), -1, &json, NULL) == CEIBA_ERR_INVALID_ARGUMENT);
    CHECK_OK(ceiba_shutdown(-1, NULL, &E));
    return 0;
}
