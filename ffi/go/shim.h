/* What Go needs beside ceiba.h: calls whose results come back by value, so that no Go memory has to hold
 * C pointers, and loops that would cost a crossing per step. Go calls these and nothing else. */
#ifndef CEIBA_GO_SHIM_H
#define CEIBA_GO_SHIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ceiba.h"


/* An error taken apart. The slices are views of it. */
typedef struct shim_failure {
    int32_t code;
    int32_t outcome;
    int64_t retry_after_ms;
    uint32_t attempts;
    bool retryable;
    size_t parts;
    ceiba_slice message;
    ceiba_slice provider;
} shim_failure;

/* One finished call. `error` is NULL where it succeeded. */
typedef struct shim_done {
    uint64_t token;
    const ceiba_error *error;
    ceiba_slice message_id;
    ceiba_slice code;
    ceiba_slice provider;
    ceiba_slice warning;
    uint32_t attempts;
    bool stored;
    size_t parts;
    const ceiba_receipt *receipt;
} shim_done;

/* A queue with the memory that polls fill. */
typedef struct shim_queue {
    ceiba_queue *queue;
    ceiba_completions *batch;
    shim_done *done;
    size_t max;
} shim_queue;

typedef struct shim_delivery {
    ceiba_slice body;
    ceiba_slice code;
    ceiba_slice topic;
    ceiba_slice key;
    ceiba_slice tag;
    ceiba_slice content_type;
    int64_t created_ms;
    uint32_t attempt;
    size_t attributes;
} shim_delivery;

/* Results by value: `error` is NULL on success, and then the rest is set. */
typedef struct shim_queue_made {
    shim_queue *queue;
    ceiba_error *error;
} shim_queue_made;

typedef struct shim_text {
    ceiba_string *text;
    ceiba_error *error;
} shim_text;

typedef struct shim_sent {
    ceiba_receipt *receipt;
    shim_done done;
    ceiba_error *error;
} shim_sent;

typedef struct shim_received {
    ceiba_deliveries *deliveries;
    shim_delivery *items;
    size_t count;
    ceiba_error *error;
} shim_received;

typedef struct shim_broker_started {
    ceiba_broker *broker;
    ceiba_slice address;
    ceiba_error *error;
} shim_broker_started;

typedef struct shim_settled {
    ceiba_results *results;
    ceiba_error *error;
} shim_settled;

shim_failure shim_error_view(const ceiba_error *error);

shim_queue_made shim_queue_new(size_t capacity, size_t max);
void shim_queue_free(shim_queue *queue);
/* Takes up to `max` completions into `done`; returns how many. Never waits. */
size_t shim_queue_poll(shim_queue *queue);

ceiba_error *shim_producer_open(const char *id, size_t id_len, const char *config, size_t config_len,
                                shim_queue *queue);
ceiba_error *shim_producer_submit(const char *id, size_t id_len, const uint8_t *data, size_t data_len,
                                  int64_t delay_seconds, uint64_t token);
ceiba_error *shim_producer_submit_within(const char *id, size_t id_len, const uint8_t *data, size_t data_len,
                                         int64_t delay_ms, int64_t timeout_ms, uint64_t token);
ceiba_error *shim_producer_submit_message(const char *id, size_t id_len, const ceiba_message *message,
                                          int64_t timeout_ms, uint64_t token);
void shim_producer_cancel(const char *id, size_t id_len, uint64_t token);
shim_sent shim_producer_send(const char *id, size_t id_len, const uint8_t *data, size_t data_len,
                             int64_t delay_seconds);
ceiba_error *shim_producer_flush(const char *id, size_t id_len, int64_t timeout_ms);
ceiba_error *shim_producer_close(const char *id, size_t id_len, int64_t timeout_ms);
shim_text shim_producer_status(const char *id, size_t id_len);

/* Fields of a message, by the number of its setter. */
enum { SHIM_CONTENT_TYPE, SHIM_KEY, SHIM_TAG, SHIM_TOPIC, SHIM_TEMPLATE, SHIM_ARGS, SHIM_RECIPIENT };
ceiba_error *shim_message_body(ceiba_message *message, const uint8_t *data, size_t len, int64_t delay_ms);
ceiba_error *shim_message_field(ceiba_message *message, int field, const char *text, size_t len);
ceiba_error *shim_message_attribute(ceiba_message *message, const char *name, size_t name_len,
                                    const char *value, size_t value_len);
ceiba_error *shim_message_attachment(ceiba_message *message, const char *name, size_t name_len,
                                     const char *type, size_t type_len, const uint8_t *data, size_t len);

ceiba_error *shim_consumer_open(const char *id, size_t id_len, const char *config, size_t config_len);
shim_received shim_consumer_receive(const char *id, size_t id_len, size_t max, int64_t timeout_ms);
void shim_received_free(ceiba_deliveries *deliveries, shim_delivery *items);
ceiba_error *shim_consumer_ack(const char *id, size_t id_len, const char *code, size_t code_len);
ceiba_error *shim_consumer_nack(const char *id, size_t id_len, const char *code, size_t code_len,
                                int64_t delay_ms);
/* `codes` stand one after the other; `ends` are the offsets of their ends. */
shim_settled shim_consumer_settle(const char *id, size_t id_len, const char *codes, const size_t *ends,
                                  size_t count, bool ack, int64_t delay_ms);
ceiba_error *shim_consumer_close(const char *id, size_t id_len, int64_t timeout_ms);
shim_text shim_consumer_status(const char *id, size_t id_len);

shim_text shim_open_file(const char *path, size_t path_len, shim_queue *queue);
shim_broker_started shim_broker_start(const char *config, size_t config_len);
shim_text shim_broker_status(const ceiba_broker *broker);
ceiba_error *shim_broker_stop(ceiba_broker *broker, int64_t timeout_ms);
ceiba_error *shim_set_workers(uint32_t workers);
shim_text shim_shutdown(int64_t timeout_ms);
shim_text shim_producer_control(const char *id, size_t id_len, const char *command, size_t command_len);

/* The calls on an outbox that take options. */
enum {
    SHIM_OUTBOX_LIST,
    SHIM_OUTBOX_SHOW,
    SHIM_OUTBOX_RETRY,
    SHIM_OUTBOX_RETRY_ALL,
    SHIM_OUTBOX_DROP,
    SHIM_OUTBOX_EXPORT,
    SHIM_OUTBOX_IMPORT,
    SHIM_OUTBOX_STATS,
    SHIM_OUTBOX_PURGE
};
shim_text shim_outbox(int operation, const char *target, size_t target_len, const char *options, size_t options_len,
                      int64_t timeout_ms);
shim_text shim_outbox_drain(const char *target, size_t target_len, int64_t timeout_ms);
shim_text shim_mns_admin(const char *config, size_t config_len, const char *command, size_t command_len,
                         int64_t timeout_ms);

/* `handle` comes back to Go's functions with each call and at the release. */
ceiba_error *shim_callback_register(const char *name, size_t name_len, uintptr_t handle);
ceiba_error *shim_callback_unregister(const char *name, size_t name_len);
shim_text shim_call_fields(const ceiba_call *call);

/* `handle` comes back to Go's functions with each line and at the release; 0 turns the log off. */
ceiba_error *shim_log_set(uintptr_t handle, int32_t max_level);

#endif
