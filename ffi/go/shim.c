#include "shim.h"

#include <stdlib.h>

#include "_cgo_export.h"

shim_failure shim_error_view(const ceiba_error *error) {
    shim_failure failure;
    failure.code = ceiba_error_code(error);
    failure.outcome = ceiba_error_outcome(error);
    failure.retry_after_ms = ceiba_error_retry_after_ms(error);
    failure.attempts = ceiba_error_attempts(error);
    failure.retryable = ceiba_error_retryable(error);
    failure.parts = ceiba_error_part_count(error);
    failure.message = ceiba_error_message(error);
    failure.provider = ceiba_error_provider(error);
    return failure;
}

shim_queue_made shim_queue_new(size_t capacity, size_t max) {
    shim_queue_made made = {NULL, NULL};
    shim_queue *queue = calloc(1, sizeof *queue);
    shim_done *done = calloc(max, sizeof *done);
    if (queue == NULL || done == NULL || ceiba_queue_new(capacity, &queue->queue, &made.error) != CEIBA_OK) {
        free(done);
        free(queue);
        return made;
    }
    queue->done = done;
    queue->max = max;
    made.queue = queue;
    return made;
}

void shim_queue_free(shim_queue *queue) {
    ceiba_completions_free(queue->batch);
    ceiba_queue_free(queue->queue);
    free(queue->done);
    free(queue);
}

static void receipt_view(const ceiba_receipt *receipt, shim_done *done) {
    done->message_id = ceiba_receipt_message_id(receipt);
    done->code = ceiba_receipt_code(receipt);
    done->provider = ceiba_receipt_provider(receipt);
    done->warning = ceiba_receipt_warning(receipt);
    done->attempts = ceiba_receipt_attempts(receipt);
    done->stored = ceiba_receipt_stored(receipt);
    done->parts = ceiba_receipt_part_count(receipt);
    done->receipt = receipt;
}

size_t shim_queue_poll(shim_queue *queue) {
    if (ceiba_queue_poll(queue->queue, queue->max, 0, &queue->batch, NULL) != CEIBA_OK) {
        return 0;
    }
    size_t count = ceiba_completions_count(queue->batch);
    const uint64_t *tokens = ceiba_completions_tokens(queue->batch);
    const int32_t *codes = ceiba_completions_codes(queue->batch);
    for (size_t i = 0; i < count; i++) {
        shim_done *done = &queue->done[i];
        done->token = tokens[i];
        if (codes[i] == CEIBA_OK) {
            done->error = NULL;
            receipt_view(ceiba_completions_receipt(queue->batch, i), done);
        } else {
            done->error = ceiba_completions_error(queue->batch, i);
        }
    }
    return count;
}

ceiba_error *shim_producer_open(const char *id, size_t id_len, const char *config, size_t config_len,
                                shim_queue *queue) {
    ceiba_error *error = NULL;
    ceiba_producer_open(id, id_len, config, config_len, queue->queue, &error);
    return error;
}

ceiba_error *shim_producer_submit(const char *id, size_t id_len, const uint8_t *data, size_t data_len,
                                  int64_t delay_seconds, uint64_t token) {
    ceiba_error *error = NULL;
    ceiba_producer_submit(id, id_len, data, data_len, delay_seconds, token, &error);
    return error;
}

ceiba_error *shim_producer_submit_within(const char *id, size_t id_len, const uint8_t *data, size_t data_len,
                                         int64_t delay_ms, int64_t timeout_ms, uint64_t token) {
    ceiba_message *message = ceiba_message_new();
    ceiba_error *error = shim_message_body(message, data, data_len, delay_ms);
    if (error == NULL) {
        ceiba_producer_submit_message(id, id_len, message, timeout_ms, token, &error);
    }
    ceiba_message_free(message);
    return error;
}

ceiba_error *shim_producer_submit_message(const char *id, size_t id_len, const ceiba_message *message,
                                          int64_t timeout_ms, uint64_t token) {
    ceiba_error *error = NULL;
    ceiba_producer_submit_message(id, id_len, message, timeout_ms, token, &error);
    return error;
}

void shim_producer_cancel(const char *id, size_t id_len, uint64_t token) {
    /* A producer that is gone has ended the call already. */
    ceiba_producer_cancel(id, id_len, token, NULL);
}

shim_sent shim_producer_send(const char *id, size_t id_len, const uint8_t *data, size_t data_len,
                             int64_t delay_seconds) {
    shim_sent sent = {0};
    if (ceiba_producer_send(id, id_len, data, data_len, delay_seconds, &sent.receipt, &sent.error) == CEIBA_OK) {
        receipt_view(sent.receipt, &sent.done);
    }
    return sent;
}

ceiba_error *shim_producer_flush(const char *id, size_t id_len, int64_t timeout_ms) {
    ceiba_error *error = NULL;
    ceiba_producer_flush(id, id_len, timeout_ms, &error);
    return error;
}

ceiba_error *shim_producer_close(const char *id, size_t id_len, int64_t timeout_ms) {
    ceiba_error *error = NULL;
    ceiba_producer_close(id, id_len, timeout_ms, &error);
    return error;
}

shim_text shim_producer_status(const char *id, size_t id_len) {
    shim_text status = {NULL, NULL};
    ceiba_producer_status(id, id_len, &status.text, &status.error);
    return status;
}

ceiba_error *shim_message_body(ceiba_message *message, const uint8_t *data, size_t len, int64_t delay_ms) {
    ceiba_error *error = NULL;
    if (ceiba_message_set_body(message, data, len, &error) == CEIBA_OK) {
        ceiba_message_set_delay_ms(message, delay_ms, &error);
    }
    return error;
}

ceiba_error *shim_message_field(ceiba_message *message, int field, const char *text, size_t len) {
    ceiba_error *error = NULL;
    switch (field) {
    case SHIM_CONTENT_TYPE:
        ceiba_message_set_content_type(message, text, len, &error);
        break;
    case SHIM_KEY:
        ceiba_message_set_key(message, text, len, &error);
        break;
    case SHIM_TAG:
        ceiba_message_set_tag(message, text, len, &error);
        break;
    case SHIM_TOPIC:
        ceiba_message_set_topic(message, text, len, &error);
        break;
    case SHIM_TEMPLATE:
        ceiba_message_set_template(message, text, len, &error);
        break;
    case SHIM_ARGS:
        ceiba_message_set_args(message, text, len, &error);
        break;
    case SHIM_RECIPIENT:
        ceiba_message_add_recipient(message, text, len, &error);
        break;
    }
    return error;
}

ceiba_error *shim_message_attribute(ceiba_message *message, const char *name, size_t name_len,
                                    const char *value, size_t value_len) {
    ceiba_error *error = NULL;
    ceiba_message_set_attribute(message, name, name_len, value, value_len, &error);
    return error;
}

ceiba_error *shim_message_attachment(ceiba_message *message, const char *name, size_t name_len,
                                     const char *type, size_t type_len, const uint8_t *data, size_t len) {
    ceiba_error *error = NULL;
    ceiba_message_add_attachment(message, name, name_len, type, type_len, data, len, &error);
    return error;
}

ceiba_error *shim_consumer_open(const char *id, size_t id_len, const char *config, size_t config_len) {
    ceiba_error *error = NULL;
    ceiba_consumer_open(id, id_len, config, config_len, &error);
    return error;
}

shim_received shim_consumer_receive(const char *id, size_t id_len, size_t max, int64_t timeout_ms) {
    shim_received received = {NULL, NULL, 0, NULL};
    if (ceiba_consumer_receive(id, id_len, max, timeout_ms, &received.deliveries, &received.error) != CEIBA_OK) {
        return received;
    }
    size_t count = ceiba_deliveries_count(received.deliveries);
    if (count == 0) {
        return received;
    }
    received.items = calloc(count, sizeof *received.items);
    if (received.items == NULL) {
        return received;
    }
    received.count = count;
    for (size_t i = 0; i < count; i++) {
        shim_delivery *item = &received.items[i];
        item->body = ceiba_deliveries_body(received.deliveries, i);
        item->code = ceiba_deliveries_code(received.deliveries, i);
        item->topic = ceiba_deliveries_topic(received.deliveries, i);
        item->key = ceiba_deliveries_key(received.deliveries, i);
        item->tag = ceiba_deliveries_tag(received.deliveries, i);
        item->content_type = ceiba_deliveries_content_type(received.deliveries, i);
        item->created_ms = ceiba_deliveries_created_ms(received.deliveries, i);
        item->attempt = ceiba_deliveries_attempt(received.deliveries, i);
        item->attributes = ceiba_deliveries_attribute_count(received.deliveries, i);
    }
    return received;
}

void shim_received_free(ceiba_deliveries *deliveries, shim_delivery *items) {
    free(items);
    ceiba_deliveries_free(deliveries);
}

ceiba_error *shim_consumer_ack(const char *id, size_t id_len, const char *code, size_t code_len) {
    ceiba_error *error = NULL;
    ceiba_consumer_ack(id, id_len, code, code_len, &error);
    return error;
}

ceiba_error *shim_consumer_nack(const char *id, size_t id_len, const char *code, size_t code_len,
                                int64_t delay_ms) {
    ceiba_error *error = NULL;
    ceiba_consumer_nack(id, id_len, code, code_len, delay_ms, &error);
    return error;
}

shim_settled shim_consumer_settle(const char *id, size_t id_len, const char *codes, const size_t *ends,
                                  size_t count, bool ack, int64_t delay_ms) {
    shim_settled settled = {NULL, NULL};
    ceiba_slice *slices = calloc(count, sizeof *slices);
    if (slices == NULL) {
        return settled;
    }
    size_t start = 0;
    for (size_t i = 0; i < count; i++) {
        slices[i].data = (const uint8_t *)codes + start;
        slices[i].len = ends[i] - start;
        start = ends[i];
    }
    if (ack) {
        ceiba_consumer_ack_many(id, id_len, slices, count, &settled.results, &settled.error);
    } else {
        ceiba_consumer_nack_many(id, id_len, slices, count, delay_ms, &settled.results, &settled.error);
    }
    free(slices);
    return settled;
}

ceiba_error *shim_consumer_close(const char *id, size_t id_len, int64_t timeout_ms) {
    ceiba_error *error = NULL;
    ceiba_consumer_close(id, id_len, timeout_ms, &error);
    return error;
}

shim_text shim_consumer_status(const char *id, size_t id_len) {
    shim_text status = {NULL, NULL};
    ceiba_consumer_status(id, id_len, &status.text, &status.error);
    return status;
}

shim_text shim_open_file(const char *path, size_t path_len, shim_queue *queue) {
    shim_text ids = {NULL, NULL};
    ceiba_open_file(path, path_len, queue->queue, &ids.text, &ids.error);
    return ids;
}

shim_broker_started shim_broker_start(const char *config, size_t config_len) {
    shim_broker_started started = {0};
    if (ceiba_broker_start(config, config_len, &started.broker, &started.error) == CEIBA_OK) {
        started.address = ceiba_broker_address(started.broker);
    }
    return started;
}

shim_text shim_broker_status(const ceiba_broker *broker) {
    shim_text status = {NULL, NULL};
    ceiba_broker_status(broker, &status.text, &status.error);
    return status;
}

ceiba_error *shim_broker_stop(ceiba_broker *broker, int64_t timeout_ms) {
    ceiba_error *error = NULL;
    ceiba_broker_stop(broker, timeout_ms, &error);
    return error;
}

ceiba_error *shim_set_workers(uint32_t workers) {
    ceiba_error *error = NULL;
    ceiba_runtime_set_workers(workers, &error);
    return error;
}

shim_text shim_shutdown(int64_t timeout_ms) {
    shim_text report = {NULL, NULL};
    ceiba_shutdown(timeout_ms, &report.text, &report.error);
    return report;
}

shim_text shim_producer_control(const char *id, size_t id_len, const char *command, size_t command_len) {
    shim_text given = {0};
    ceiba_producer_control(id, id_len, command, command_len, &given.text, &given.error);
    return given;
}

shim_text shim_outbox(int operation, const char *target, size_t target_len, const char *options, size_t options_len,
                      int64_t timeout_ms) {
    static int32_t (*const calls[])(const char *, size_t, const char *, size_t, int64_t, ceiba_string **,
                                    ceiba_error **) = {
        [SHIM_OUTBOX_LIST] = ceiba_outbox_list,     [SHIM_OUTBOX_SHOW] = ceiba_outbox_show,
        [SHIM_OUTBOX_RETRY] = ceiba_outbox_retry,   [SHIM_OUTBOX_RETRY_ALL] = ceiba_outbox_retry_all,
        [SHIM_OUTBOX_DROP] = ceiba_outbox_drop,     [SHIM_OUTBOX_EXPORT] = ceiba_outbox_export,
        [SHIM_OUTBOX_IMPORT] = ceiba_outbox_import, [SHIM_OUTBOX_STATS] = ceiba_outbox_stats,
        [SHIM_OUTBOX_PURGE] = ceiba_outbox_purge,
    };
    shim_text given = {NULL, NULL};
    calls[operation](target, target_len, options, options_len, timeout_ms, &given.text, &given.error);
    return given;
}

shim_text shim_outbox_drain(const char *target, size_t target_len, int64_t timeout_ms) {
    shim_text given = {NULL, NULL};
    ceiba_outbox_drain(target, target_len, timeout_ms, &given.text, &given.error);
    return given;
}

shim_text shim_mns_admin(const char *config, size_t config_len, const char *command, size_t command_len,
                         int64_t timeout_ms) {
    shim_text given = {NULL, NULL};
    ceiba_mns_admin(config, config_len, command, command_len, timeout_ms, &given.text, &given.error);
    return given;
}

static void host_send(void *user, ceiba_call *call) { ceibaGoSend((uintptr_t)user, call); }

static void host_abandoned(void *user, uint64_t number) { ceibaGoSendAbandoned((uintptr_t)user, number); }

static void host_release(void *user) { ceibaGoSendRelease((uintptr_t)user); }

ceiba_error *shim_callback_register(const char *name, size_t name_len, uintptr_t handle) {
    ceiba_error *error = NULL;
    ceiba_callback_register(name, name_len, host_send, host_abandoned, host_release, (void *)handle, &error);
    return error;
}

ceiba_error *shim_callback_unregister(const char *name, size_t name_len) {
    ceiba_error *error = NULL;
    ceiba_callback_unregister(name, name_len, &error);
    return error;
}

shim_text shim_call_fields(const ceiba_call *call) {
    shim_text given = {0};
    ceiba_call_fields(call, &given.text, &given.error);
    return given;
}

static void log_line(void *user, int32_t level, ceiba_slice target, ceiba_slice message) {
    ceibaGoLog((uintptr_t)user, level, (void *)target.data, target.len, (void *)message.data, message.len);
}

static void log_release(void *user) { ceibaGoLogRelease((uintptr_t)user); }

ceiba_error *shim_log_set(uintptr_t handle, int32_t max_level) {
    ceiba_error *error = NULL;
    if (handle == 0) {
        ceiba_log_set(NULL, NULL, NULL, CEIBA_LOG_ERROR, &error);
    } else {
        ceiba_log_set(log_line, (void *)handle, log_release, max_level, &error);
    }
    return error;
}
