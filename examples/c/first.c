// A first program: send a message, receive it, acknowledge it.
//
//   CEIBA_CONFIG=kapokmq://:SECRET@127.0.0.1:8011/greetings ./first
#include <ceiba.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT(text) (text), strlen(text)

static int failed(ceiba_error *error) {
    ceiba_slice kind = ceiba_error_name(ceiba_error_code(error)), text = ceiba_error_message(error);
    fprintf(stderr, "%.*s: %.*s\n", (int)kind.len, (const char *)kind.data, (int)text.len, (const char *)text.data);
    ceiba_error_free(error);
    return 1;
}

int main(int count, char **arguments) {
    const char *config = count > 1 ? arguments[1] : getenv("CEIBA_CONFIG");
    ceiba_error *error = NULL;
    ceiba_deliveries *got = NULL;
    if (config == NULL) {
        fputs("name a config: CEIBA_CONFIG=kapokmq://:SECRET@HOST:PORT/TOPIC\n", stderr);
        return 2;
    }
    if (ceiba_producer_open(TEXT("p"), TEXT(config), NULL, &error)) return failed(error);
    if (ceiba_consumer_open(TEXT("c"), TEXT(config), &error)) return failed(error);
    if (ceiba_producer_send(TEXT("p"), TEXT("hello from C"), 0, NULL, &error)) return failed(error);
    if (ceiba_consumer_receive(TEXT("c"), 1, 5000, &got, &error)) return failed(error);
    size_t received = ceiba_deliveries_count(got);
    for (size_t i = 0; i < received; i++) {
        ceiba_slice body = ceiba_deliveries_body(got, i), code = ceiba_deliveries_code(got, i);
        printf("%.*s\n", (int)body.len, (const char *)body.data);
        if (ceiba_consumer_ack(TEXT("c"), (const char *)code.data, code.len, &error)) return failed(error);
    }
    ceiba_deliveries_free(got);
    if (ceiba_shutdown(5000, NULL, &error)) return failed(error);
    if (received == 0) fputs("nothing came within 5 seconds\n", stderr);
    return received == 0;
}
