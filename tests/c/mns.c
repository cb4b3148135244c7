// The administration of MNS, which needs a server for more than this: every argument wrong, and nobody there. C and C++.
#include "check.h"

static void refuses(int32_t code, const char *part, const char *config, const char *command) {
    ceiba_string *json = NULL;
    CHECK_FAILS(code, part, ceiba_mns_admin(L(config), L(command), 5000, &json, &E));
    CHECK(json == NULL);
}

int main(void) {
    const char *account = "mns://id:hunter2@127.0.0.1:1";
    const char *get = "{\"get_queue\": {\"queue\": \"q\"}}";
    refuses(CEIBA_ERR_INVALID_CONFIG, "", "", get);
    refuses(CEIBA_ERR_INVALID_CONFIG, "mns", "{\"provider\": {\"type\": \"memory\", \"topic\": \"t\"}}", get);
    refuses(CEIBA_ERR_INVALID_CONFIG, "access_key_id", "mns://127.0.0.1:1", get);
    refuses(CEIBA_ERR_INVALID_ARGUMENT, "JSON", account, "");
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
    CHECK_OK(ceiba_shutdown(5000, &json, &E));
    ceiba_string_free(json);
    return 0;
}
