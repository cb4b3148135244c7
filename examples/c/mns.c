// Publishes to a topic of MNS, keeps what cannot be published, tries that again by the clock, and tells people of what
// failed for the fifth time. All of that is in the config: see mns.json.
//
//   ./mns mns.json send     publishes one message
//   ./mns mns.json retry    tries what is stored, until standard input ends
#include <ceiba.h>
#include <stdio.h>
#include <string.h>

#define TEXT(text) (text), strlen(text)

static int failed(ceiba_error *error) {
    ceiba_slice kind = ceiba_error_name(ceiba_error_code(error)), text = ceiba_error_message(error);
    fprintf(stderr, "%.*s: %.*s\n", (int)kind.len, (const char *)kind.data, (int)text.len, (const char *)text.data);
    ceiba_error_free(error);
    ceiba_shutdown(5000, NULL, NULL);
    return 1;
}

static int send(void) {
    ceiba_error *error = NULL;
    ceiba_receipt *receipt = NULL;
    const char *body = "{\"task_id\": \"7\", \"game_id\": \"123\"}";
    if (ceiba_producer_send(TEXT("MyTopic"), TEXT(body), 0, &receipt, &error)) return failed(error);
    ceiba_slice id = ceiba_receipt_message_id(receipt), why = ceiba_receipt_warning(receipt);
    if (ceiba_receipt_stored(receipt)) {
        printf("stored as row %.*s: %.*s\n", (int)id.len, (const char *)id.data, (int)why.len, (const char *)why.data);
    } else {
        printf("sent: %.*s\n", (int)id.len, (const char *)id.data);
    }
    ceiba_receipt_free(receipt);
    return 0;
}

int main(int count, char **arguments) {
    ceiba_error *error = NULL;
    const char *task = count == 3 ? arguments[2] : "";
    if (strcmp(task, "send") != 0 && strcmp(task, "retry") != 0) {
        fputs("usage: mns CONFIG send|retry\n", stderr);
        return 2;
    }
    if (ceiba_open_file(TEXT(arguments[1]), NULL, NULL, &error)) return failed(error);
    if (strcmp(task, "send") == 0) {
        if (send()) return 1;
    } else {
        while (getchar() != EOF) {
        }
    }
    if (ceiba_shutdown(5000, NULL, &error)) return failed(error);
    return 0;
}
