/*
 * ceiba: one library for sending and receiving messages over many systems, by id.
 *
 *     ceiba_producer_open("orders", 6, config, strlen(config), NULL, &error);
 *     ceiba_producer_send("orders", 6, "hello", 5, 0, NULL, &error);
 *
 * CONVENTIONS, which hold for every function unless its comment says otherwise
 *
 * Results. A function that can fail returns an int32_t: 0 (CEIBA_OK), or one of CEIBA_ERR_*. The numbers are
 * fixed for ever. It takes a `ceiba_error **error` as its last argument, which may be NULL; on failure it gets
 * an error that the caller frees with ceiba_error_free(). Outputs, and `*error` on success, are left as they
 * were: set them to NULL first. There is no last error to ask for afterwards. A function over many messages
 * or codes succeeds when it was carried out, and gives a result for each.
 *
 * Order of arguments. The id, inputs, outputs, the error.
 *
 * Ids. A client is known by the caller's own text, given as pointer and length. Producers and consumers have
 * separate ids. An id that is open cannot be opened again; after close it is free. A call with an id that is
 * not open gives CEIBA_ERR_UNKNOWN_ID.
 *
 * Inputs. A pointer and a length; both are borrowed for the time of the call, which copies what it keeps.
 * NULL is allowed with length 0 only, anything else is CEIBA_ERR_INVALID_ARGUMENT. Texts (`const char *`) are
 * UTF-8 and checked, and need no zero byte at the end. Bodies (`const void *`) are any bytes. A negative
 * timeout stands for the client's deadline, which is 30 seconds unless its configuration names one.
 *
 * Ownership. What a function returns is an opaque handle of the caller's, freed by the `_free` of its noun.
 * `_free(NULL)` does nothing. Accessors take NULL too: they give 0, NULL or an empty view. Views (ceiba_slice)
 * and borrowed pointers (`const ceiba_error *`, `const ceiba_receipt *` of a batch) belong to the handle they
 * were asked of and end with it. Nothing returned is to be freed with free().
 *
 * Threads. Every function may be called from any thread, by any number of threads at once. Handles: any number
 * of threads may read one; one thread at a time may change or free it. A client may be closed while other
 * threads are in calls with its id: each call ends with its one result. Calls that block say so; made on a
 * thread of the library's own runtime they give CEIBA_ERR_WOULD_DEADLOCK.
 *
 * Callbacks. Functions of the caller are called on up to four threads of the library's own, never on one that
 * does the library's work, with the caller's `user` pointer first; they may call any ceiba function except
 * close of the client they serve. With each registration comes a `release` function (may be NULL), called
 * exactly once, with `user`, when no call can follow, also when the registration fails. Neither may throw an
 * exception or leave by longjmp().
 *
 * Sends and submits. A send waits for its receipt or its error; the error's outcome tells whether the message
 * may have been sent all the same. A submit returns once the message is in a bounded window; it needs a
 * completion queue, given when the producer opens. Each accepted submit gives exactly one completion, on
 * cancel and on close too. A slot of the queue is taken at the submit and given back by the poll.
 *
 * Limits. Every queue inside is bounded. A full one makes a send wait until its deadline, and gives
 * CEIBA_ERR_QUEUE_FULL; a submit does not wait.
 *
 * Fork. In a child process, clients and queues of the parent give CEIBA_ERR_FORKED and are never touched; the
 * child opens its own. The parent goes on undisturbed. Handles of other kinds are plain memory and work.
 *
 * Faults. No call ends the process: a fault inside gives CEIBA_ERR_INTERNAL. The library cannot be unloaded.
 *
 * Configuration is JSON, or a URL for short. An unknown key is an error that names it and the nearest known
 * one. Secrets never appear in errors, logs or states.
 */


#ifndef CEIBA_H
#define CEIBA_H

/* Written by ffi/tests/header.rs from ffi/src: change those, then run `make header`. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/**
 * The version of the interface that this header describes. It goes up when a program built with an older
 * header could no longer run; compare it with ceiba_abi_version() at start.
 */
#define CEIBA_ABI_VERSION 1

/**
 * The call succeeded.
 */
#define CEIBA_OK 0

/**
 * An argument of the call is wrong; the message names it.
 */
#define CEIBA_ERR_INVALID_ARGUMENT 1

/**
 * The configuration is wrong; the message names the key.
 */
#define CEIBA_ERR_INVALID_CONFIG 2

/**
 * No client with this id is open.
 */
#define CEIBA_ERR_UNKNOWN_ID 3

/**
 * A client with this id is open already.
 */
#define CEIBA_ERR_ALREADY_OPEN 4

/**
 * The client is held by another one.
 */
#define CEIBA_ERR_IN_USE 5

/**
 * The client is being closed.
 */
#define CEIBA_ERR_CLOSED 6

/**
 * The other side refused the credentials.
 */
#define CEIBA_ERR_AUTHENTICATION 7

/**
 * The credentials do not allow this.
 */
#define CEIBA_ERR_PERMISSION 8

/**
 * The queue, topic or message does not exist on the other side.
 */
#define CEIBA_ERR_NOT_FOUND 9

/**
 * The provider cannot honour this; nothing was dropped in silence.
 */
#define CEIBA_ERR_UNSUPPORTED 10

/**
 * The message is over a limit of size.
 */
#define CEIBA_ERR_TOO_LARGE 11

/**
 * The deadline passed.
 */
#define CEIBA_ERR_TIMEOUT 12

/**
 * The caller cancelled.
 */
#define CEIBA_ERR_CANCELLED 13

/**
 * The other side cannot be reached or does not answer.
 */
#define CEIBA_ERR_UNAVAILABLE 14

/**
 * The other side asked for fewer calls.
 */
#define CEIBA_ERR_THROTTLED 15

/**
 * A rate limit of the configuration was met.
 */
#define CEIBA_ERR_LIMITED 16

/**
 * Some recipients failed; the others were sent.
 */
#define CEIBA_ERR_PARTIAL 17

/**
 * Every member of a failover failed.
 */
#define CEIBA_ERR_ALL_FAILED 18

/**
 * The circuit breaker is open.
 */
#define CEIBA_ERR_CIRCUIT_OPEN 19

/**
 * A bounded queue is full, or stayed full until the deadline.
 */
#define CEIBA_ERR_QUEUE_FULL 20

/**
 * The local store failed.
 */
#define CEIBA_ERR_STORAGE 21

/**
 * The other side broke the protocol.
 */
#define CEIBA_ERR_PROTOCOL 22

/**
 * A blocking call was made on a thread of the library's runtime.
 */
#define CEIBA_ERR_WOULD_DEADLOCK 23

/**
 * The client or queue belongs to the process that this one was forked from.
 */
#define CEIBA_ERR_FORKED 24

/**
 * A fault of the library.
 */
#define CEIBA_ERR_INTERNAL 25

/**
 * The message of the failed send did not reach the other side.
 */
#define CEIBA_OUTCOME_NOT_SENT 0

/**
 * The message of the failed send may have reached the other side.
 */
#define CEIBA_OUTCOME_UNKNOWN 1

/**
 * Something failed.
 */
#define CEIBA_LOG_ERROR 1

/**
 * Something is odd, or was mended.
 */
#define CEIBA_LOG_WARN 2

/**
 * What an operator wants to know: connections, brokers.
 */
#define CEIBA_LOG_INFO 3

/**
 * What a developer wants to know.
 */
#define CEIBA_LOG_DEBUG 4

/**
 * Every step.
 */
#define CEIBA_LOG_TRACE 5

/**
 * An embedded broker. It runs until ceiba_broker_stop() or ceiba_broker_free(). Any number of threads may
 * use it; one may free it, when no other does.
 */
typedef struct ceiba_broker ceiba_broker;

/**
 * One send for the host to make. It is ended, and freed, by ceiba_call_sent() or ceiba_call_failed(): once, at
 * once or later, on any thread.
 */
typedef struct ceiba_call ceiba_call;

/**
 * A batch of completions. The caller frees it with ceiba_completions_free(), or gives it to the next
 * poll. One thread at a time.
 */
typedef struct ceiba_completions ceiba_completions;

/**
 * Deliveries of one receive. The caller frees them with ceiba_deliveries_free(); the views that the
 * functions below return are valid until then.
 */
typedef struct ceiba_deliveries ceiba_deliveries;

/**
 * Why a call failed. One that came through a `ceiba_error **` is the caller's: free it with
 * ceiba_error_free(). One asked of results or completions belongs to them.
 */
typedef struct ceiba_error ceiba_error;

/**
 * A message to send. One thread at a time may change it; sending it changes nothing, so that many
 * threads may send one that nobody changes meanwhile. A send keeps what it needs: the message can be
 * changed or freed as soon as the call returns.
 */
typedef struct ceiba_message ceiba_message;

/**
 * A bounded queue of completions. Made by the caller, given to producers when they open, and freed with
 * ceiba_queue_free(). All functions but that may be called by any number of threads at once.
 */
typedef struct ceiba_queue ceiba_queue;

/**
 * What a finished send returned. One that came through a `ceiba_receipt **` is the caller's: free it
 * with ceiba_receipt_free(). One asked of results or completions belongs to them.
 */
typedef struct ceiba_receipt ceiba_receipt;

/**
 * How each of several calls ended, in their order. The caller frees it with ceiba_results_free().
 */
typedef struct ceiba_results ceiba_results;

/**
 * A text that a function returned. Free it with ceiba_string_free().
 */
typedef struct ceiba_string ceiba_string;

/**
 * A view of bytes: text, or the body of a message. It ends at `len`, not at a zero byte.
 *
 * A view that a function returns belongs to what it was asked of and is valid until that is freed; its
 * `data` is never NULL, also when `len` is 0.
 */
typedef struct ceiba_slice {
    /**
     * The first byte.
     */
    const uint8_t *data;
    /**
     * How many there are.
     */
    size_t len;
} ceiba_slice;

/**
 * A function that takes log records. `target` names the part of the library and `message` is one line, both
 * UTF-8 and valid for the time of the call.
 */
typedef void (*ceiba_log_fn)(void *user, int32_t level, struct ceiba_slice target, struct ceiba_slice message);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The version of the interface that the loaded library has.
 *
 * Any thread; never fails.
 */
uint32_t ceiba_abi_version(void);

/**
 * The version of the library, such as "0.1.0": a static text that ends with a zero byte.
 *
 * Any thread; never fails.
 */
const char *ceiba_version(void);

/**
 * The text, UTF-8: a view, valid until the string is freed. Empty for NULL.
 *
 * Any thread; never fails.
 */
struct ceiba_slice ceiba_string_value(const struct ceiba_string *string);

/**
 * Frees a string. NULL does nothing.
 */
void ceiba_string_free(struct ceiba_string *string);

/**
 * The code, one of CEIBA_ERR_*. CEIBA_OK for NULL.
 *
 * Any thread; never fails.
 */
int32_t ceiba_error_code(const struct ceiba_error *error);

/**
 * Whether the message may have reached the other side: CEIBA_OUTCOME_NOT_SENT or CEIBA_OUTCOME_UNKNOWN.
 *
 * Any thread; never fails.
 */
int32_t ceiba_error_outcome(const struct ceiba_error *error);

/**
 * Whether the same call may succeed later without a change by the caller.
 *
 * Any thread; never fails.
 */
bool ceiba_error_retryable(const struct ceiba_error *error);

/**
 * The least time in milliseconds to wait before a retry, where the other side named one; else -1.
 *
 * Any thread; never fails.
 */
int64_t ceiba_error_retry_after_ms(const struct ceiba_error *error);

/**
 * How many attempts were made: 0 when the call failed before the first.
 *
 * Any thread; never fails.
 */
uint32_t ceiba_error_attempts(const struct ceiba_error *error);

/**
 * The whole text on one line, UTF-8, with each cause: a view, valid until the error is freed.
 *
 * Any thread; never fails.
 */
struct ceiba_slice ceiba_error_message(const struct ceiba_error *error);

/**
 * Everything about the error as a JSON object, which the caller frees: `kind`, `code`, `outcome`, `retryable`,
 * `attempts`, `message`, where there is one `provider` and `retry_after_ms`, and as `parts` how each attempt of a
 * retry, member of a failover or recipient ended: `of`, `name`, and `message_id` or `error`. NULL for NULL.
 *
 * Any thread; never fails.
 */
struct ceiba_string *ceiba_error_json(const struct ceiba_error *error);

/**
 * How many attempts, members or recipients ceiba_error_json() tells of one by one; 0 where there was one alone.
 *
 * Any thread; never fails.
 */
size_t ceiba_error_part_count(const struct ceiba_error *error);

/**
 * The provider that failed, such as "kapokmq"; empty where none did. Valid until the error is freed.
 *
 * Any thread; never fails.
 */
struct ceiba_slice ceiba_error_provider(const struct ceiba_error *error);

/**
 * The name of a code in snake case, such as "unknown_id" for 3 and "ok" for 0: a static text. Empty for a
 * number that is no code.
 *
 * Any thread; never fails.
 */
struct ceiba_slice ceiba_error_name(int32_t code);

/**
 * Frees an error. NULL does nothing.
 */
void ceiba_error_free(struct ceiba_error *error);

/**
 * Sets how many threads run the clients: 1 to 1024, before the first client or broker opens. Without it
 * there is one per processor.
 *
 * Any thread; does not block. CEIBA_ERR_INVALID_ARGUMENT: the number is out of range, or it is too late.
 */
int32_t ceiba_runtime_set_workers(uint32_t workers, struct ceiba_error **error);

/**
 * Closes every producer and consumer within `timeout_ms` (negative: 30 seconds), as their close functions
 * do. Others can be opened afterwards.
 *
 * `report_json` may be NULL; else it gets a JSON object with how many clients ended how:
 * {"clean": 2, "forced": 0, "failed": 0}. Forced ones had sends that were ended with their outcome; failed
 * ones were not closed in time by another call that had begun to, or failed to close. The caller frees it.
 *
 * Any thread; blocks until all are closed. CEIBA_ERR_WOULD_DEADLOCK on a thread of the runtime.
 */
int32_t ceiba_shutdown(int64_t timeout_ms, struct ceiba_string **report_json, struct ceiba_error **error);

/**
 * What all open producers and consumers count, as Prometheus text: each number of their statuses with the client's
 * id, and those of strategies and members with their names. The caller frees it; empty text where nothing is open.
 *
 * Any thread; does not block. NULL when there is no memory.
 */
struct ceiba_string *ceiba_metrics(void);

/**
 * Has every log record up to `max_level` (CEIBA_LOG_*) handed to `function`, in place of the function set
 * before. NULL turns logging off, as it is at first.
 *
 * `function` is called on a thread of the library's own, by one thread at a time; it may call any ceiba
 * function. Up to 4096 records wait for it; what comes on top is dropped, and the next record says how
 * many. `release` (may be NULL) is called once with `user` when no call of `function` can follow: soon
 * after another function is set, and also when this call fails. Records never hold secrets.
 *
 * Any thread; does not block. CEIBA_ERR_INVALID_ARGUMENT: the level is none of CEIBA_LOG_*.
 */
int32_t ceiba_log_set(ceiba_log_fn function,
                      void *user,
                      void (*release)(void *user),
                      int32_t max_level,
                      struct ceiba_error **error);

/**
 * A new message with an empty body and no other field. The caller frees it with ceiba_message_free().
 * NULL only if there was a fault in the library.
 *
 * Any thread.
 */
struct ceiba_message *ceiba_message_new(void);

/**
 * Frees a message. NULL does nothing.
 */
void ceiba_message_free(struct ceiba_message *message);

/**
 * Sets the body to a copy of `data`: any bytes.
 *
 * One thread at a time. CEIBA_ERR_TOO_LARGE: no memory for the copy.
 */
int32_t ceiba_message_set_body(struct ceiba_message *message,
                               const void *data,
                               size_t data_len,
                               struct ceiba_error **error);

/**
 * Sets the body to `data` itself, without a copy: it must stay as it is until `release` is called with
 * `user`, exactly once, when neither the message nor a send needs it any more; also when this call fails.
 * The call may come on any thread, and before this function returns. `release` may be NULL for data that
 * lasts as long as the process.
 *
 * One thread at a time.
 */
int32_t ceiba_message_set_body_owned(struct ceiba_message *message,
                                     const void *data,
                                     size_t data_len,
                                     void (*release)(void *user),
                                     void *user,
                                     struct ceiba_error **error);

/**
 * Sets the delay, counted from when the message is accepted. A provider rounds it up to its own unit.
 *
 * One thread at a time. CEIBA_ERR_INVALID_ARGUMENT: the delay is negative.
 */
int32_t ceiba_message_set_delay_ms(struct ceiba_message *message,
                                   int64_t delay_ms,
                                   struct ceiba_error **error);

/**
 * Sets the MIME type of the body.
 *
 * One thread at a time.
 */
int32_t ceiba_message_set_content_type(struct ceiba_message *message,
                                       const char *value,
                                       size_t value_len,
                                       struct ceiba_error **error);

/**
 * Sets the key, for order and de-duplication.
 *
 * One thread at a time.
 */
int32_t ceiba_message_set_key(struct ceiba_message *message,
                              const char *value,
                              size_t value_len,
                              struct ceiba_error **error);

/**
 * Sets the tag, for filters.
 *
 * One thread at a time.
 */
int32_t ceiba_message_set_tag(struct ceiba_message *message,
                              const char *value,
                              size_t value_len,
                              struct ceiba_error **error);

/**
 * Sets the topic, where it differs from the client's.
 *
 * One thread at a time.
 */
int32_t ceiba_message_set_topic(struct ceiba_message *message,
                                const char *value,
                                size_t value_len,
                                struct ceiba_error **error);

/**
 * Sets the name or id of the template.
 *
 * One thread at a time.
 */
int32_t ceiba_message_set_template(struct ceiba_message *message,
                                   const char *value,
                                   size_t value_len,
                                   struct ceiba_error **error);

/**
 * Sets the arguments of the template, as JSON.
 *
 * One thread at a time. CEIBA_ERR_INVALID_ARGUMENT: the text is not JSON.
 */
int32_t ceiba_message_set_args(struct ceiba_message *message,
                               const char *json,
                               size_t json_len,
                               struct ceiba_error **error);

/**
 * Adds a recipient: an address, a number or a user id.
 *
 * One thread at a time.
 */
int32_t ceiba_message_add_recipient(struct ceiba_message *message,
                                    const char *value,
                                    size_t value_len,
                                    struct ceiba_error **error);

/**
 * Sets an attribute; one with the same name is replaced.
 *
 * One thread at a time. CEIBA_ERR_INVALID_ARGUMENT: the name is empty.
 */
int32_t ceiba_message_set_attribute(struct ceiba_message *message,
                                    const char *name,
                                    size_t name_len,
                                    const char *value,
                                    size_t value_len,
                                    struct ceiba_error **error);

/**
 * Adds a file that goes along: its name as the recipient sees it, its MIME type, and a copy of its content.
 *
 * One thread at a time. CEIBA_ERR_INVALID_ARGUMENT: the name is empty. CEIBA_ERR_TOO_LARGE: no memory for
 * the copy.
 */
int32_t ceiba_message_add_attachment(struct ceiba_message *message,
                                     const char *name,
                                     size_t name_len,
                                     const char *content_type,
                                     size_t content_type_len,
                                     const void *data,
                                     size_t data_len,
                                     struct ceiba_error **error);

/**
 * The other side's id of the message; empty where its wire gives none. Valid until the receipt is freed.
 *
 * Any thread; never fails.
 */
struct ceiba_slice ceiba_receipt_message_id(const struct ceiba_receipt *receipt);

/**
 * What a consumer of the same queue takes the message back by, with ceiba_consumer_ack(), before it was ever received:
 * MNS gives one for a delayed message. Empty where there is none. Valid until the receipt is freed.
 *
 * Any thread; never fails.
 */
struct ceiba_slice ceiba_receipt_code(const struct ceiba_receipt *receipt);

/**
 * The provider that sent it, such as "kapokmq". Valid until the receipt is freed.
 *
 * Any thread; never fails.
 */
struct ceiba_slice ceiba_receipt_provider(const struct ceiba_receipt *receipt);

/**
 * What the caller should know though the send succeeded; empty if nothing. Valid until the receipt is freed.
 *
 * Any thread; never fails.
 */
struct ceiba_slice ceiba_receipt_warning(const struct ceiba_receipt *receipt);

/**
 * How many attempts were made: at least 1. 0 for NULL.
 *
 * Any thread; never fails.
 */
uint32_t ceiba_receipt_attempts(const struct ceiba_receipt *receipt);

/**
 * Whether the message is stored, to be sent later, rather than sent.
 *
 * Any thread; never fails.
 */
bool ceiba_receipt_stored(const struct ceiba_receipt *receipt);

/**
 * How many recipients or members ceiba_receipt_json() tells of one by one; 0 where there was one alone.
 *
 * Any thread; never fails.
 */
size_t ceiba_receipt_part_count(const struct ceiba_receipt *receipt);

/**
 * Everything about the receipt as a JSON object, which the caller frees: `provider`, `attempts`, `stored`, where
 * there is one `message_id`, `code` and `warning`, and as `parts` how each recipient or member ended: `of`, `name`, and
 * `message_id` or `error`. NULL for NULL.
 *
 * Any thread; never fails.
 */
struct ceiba_string *ceiba_receipt_json(const struct ceiba_receipt *receipt);

/**
 * Frees a receipt. NULL does nothing.
 */
void ceiba_receipt_free(struct ceiba_receipt *receipt);

/**
 * How many results there are: one for each input.
 *
 * Any thread; never fails.
 */
size_t ceiba_results_count(const struct ceiba_results *results);

/**
 * The code of one: CEIBA_OK or one of CEIBA_ERR_*. CEIBA_ERR_INVALID_ARGUMENT when there is none at `index`.
 *
 * Any thread; never fails.
 */
int32_t ceiba_results_code(const struct ceiba_results *results, size_t index);

/**
 * The error of one, NULL where it succeeded. It belongs to the results.
 *
 * Any thread; never fails.
 */
const struct ceiba_error *ceiba_results_error(const struct ceiba_results *results, size_t index);

/**
 * The receipt of one; NULL where it failed, and for acks. It belongs to the results.
 *
 * Any thread; never fails.
 */
const struct ceiba_receipt *ceiba_results_receipt(const struct ceiba_results *results, size_t index);

/**
 * Frees results, with the errors and receipts in them. NULL does nothing.
 */
void ceiba_results_free(struct ceiba_results *results);

/**
 * Opens a producer under `id` with a configuration: a JSON object, or a URL such as
 * kapokmq://:SECRET@HOST:PORT/TOPIC. An empty `id` takes the `id` of the configuration.
 *
 * `queue` may be NULL; with one, the producer takes submits, and their completions come to that queue. It
 * stays alive inside for as long as the producer is open, also when the caller frees it.
 *
 * Any thread; blocks until the first connection stands (the configuration's `connect_timeout`), unless the
 * configuration says `"connect": "lazy"`. Errors: CEIBA_ERR_INVALID_CONFIG (the message names the key and
 * the nearest known one), CEIBA_ERR_ALREADY_OPEN, CEIBA_ERR_AUTHENTICATION, CEIBA_ERR_UNAVAILABLE,
 * CEIBA_ERR_TIMEOUT, CEIBA_ERR_FORKED (the queue is the parent's).
 */
int32_t ceiba_producer_open(const char *id,
                            size_t id_len,
                            const char *config,
                            size_t config_len,
                            const struct ceiba_queue *queue,
                            struct ceiba_error **error);

/**
 * Sends a copy of `data` and waits for its receipt, within the client's deadline. `delay_seconds` counts
 * from now; 0 is none.
 *
 * `receipt` may be NULL; else it gets a receipt that the caller frees. On an error,
 * ceiba_error_outcome() tells whether the message may have been sent all the same.
 *
 * Any thread; blocks. Errors: CEIBA_ERR_UNKNOWN_ID, CEIBA_ERR_INVALID_ARGUMENT (a negative delay, NULL with
 * a length), CEIBA_ERR_TOO_LARGE, CEIBA_ERR_UNSUPPORTED, CEIBA_ERR_TIMEOUT, CEIBA_ERR_UNAVAILABLE,
 * CEIBA_ERR_QUEUE_FULL, CEIBA_ERR_CLOSED (the id is being closed), CEIBA_ERR_FORKED,
 * CEIBA_ERR_WOULD_DEADLOCK, and what the provider adds.
 */
int32_t ceiba_producer_send(const char *id,
                            size_t id_len,
                            const void *data,
                            size_t data_len,
                            int64_t delay_seconds,
                            struct ceiba_receipt **receipt,
                            struct ceiba_error **error);

/**
 * As ceiba_producer_send(), without the copy: `data` must stay as it is until `release` is called with
 * `user`. That comes exactly once, also when this call fails; on any thread, before or after this call
 * returns. `release` may be NULL for data that lasts as long as the process.
 */
int32_t ceiba_producer_send_owned(const char *id,
                                  size_t id_len,
                                  const void *data,
                                  size_t data_len,
                                  int64_t delay_seconds,
                                  void (*release)(void *user),
                                  void *user,
                                  struct ceiba_receipt **receipt,
                                  struct ceiba_error **error);

/**
 * Sends a full message and waits for its receipt, within `timeout_ms` or, when that is negative, within the
 * client's deadline. The message stays the caller's.
 *
 * `receipt` may be NULL; else it gets a receipt that the caller frees. A field that the provider cannot
 * honour gives CEIBA_ERR_UNSUPPORTED, and nothing is sent.
 *
 * Any thread; blocks. Errors as those of ceiba_producer_send().
 */
int32_t ceiba_producer_send_message(const char *id,
                                    size_t id_len,
                                    const struct ceiba_message *message,
                                    int64_t timeout_ms,
                                    struct ceiba_receipt **receipt,
                                    struct ceiba_error **error);

/**
 * Sends `count` messages and waits for all. `results` gets a result for each, in their order, which the
 * caller frees; the call succeeds also when some, or all, of the sends failed.
 *
 * Any thread; blocks. Errors of the call: CEIBA_ERR_UNKNOWN_ID, CEIBA_ERR_INVALID_ARGUMENT,
 * CEIBA_ERR_CLOSED, CEIBA_ERR_FORKED, CEIBA_ERR_WOULD_DEADLOCK; then nothing was sent.
 */
int32_t ceiba_producer_send_batch(const char *id,
                                  size_t id_len,
                                  const struct ceiba_message *const *messages,
                                  size_t count,
                                  int64_t timeout_ms,
                                  struct ceiba_results **results,
                                  struct ceiba_error **error);

/**
 * Waits until every send and submit made before has ended, within `timeout_ms` or, when that is negative,
 * within the client's deadline. A send of another thread that still waits for room in the producer is not
 * waited for.
 *
 * Any thread; blocks. Errors: CEIBA_ERR_TIMEOUT, CEIBA_ERR_UNKNOWN_ID, CEIBA_ERR_CLOSED, CEIBA_ERR_FORKED,
 * CEIBA_ERR_WOULD_DEADLOCK.
 */
int32_t ceiba_producer_flush(const char *id, size_t id_len, int64_t timeout_ms, struct ceiba_error **error);

/**
 * Gives the live state as a JSON object, which the caller frees: `state`, `provider`, `under_way`, and what
 * the provider adds. New keys may come.
 *
 * Any thread; does not block. CEIBA_ERR_UNKNOWN_ID, CEIBA_ERR_CLOSED, CEIBA_ERR_FORKED.
 */
int32_t ceiba_producer_status(const char *id,
                              size_t id_len,
                              struct ceiba_string **json,
                              struct ceiba_error **error);

/**
 * Changes the live state of a strategy. `command` is a JSON object that names it, such as
 * `{"strategy": "failover", "current": 0}` or `{"strategy": "circuit_breaker", "state": "open"}`; `json`, which may be
 * NULL, gets the new state, and the caller frees it.
 *
 * Any thread; does not block. CEIBA_ERR_INVALID_ARGUMENT, CEIBA_ERR_NOT_FOUND and CEIBA_ERR_UNSUPPORTED: no strategy
 * of that name takes commands. CEIBA_ERR_UNKNOWN_ID, CEIBA_ERR_CLOSED, CEIBA_ERR_FORKED.
 */
int32_t ceiba_producer_control(const char *id,
                               size_t id_len,
                               const char *command,
                               size_t command_len,
                               struct ceiba_string **json,
                               struct ceiba_error **error);

/**
 * Closes a producer: it takes no more sends, those under way end within `timeout_ms` (negative: the
 * client's deadline), and the rest are ended with their outcome. Every submit has its completion, and the
 * id is free, when this returns; while a call is stuck in the host (see ceiba_callback_register()), the id stays
 * taken until that returns. Other threads may be in calls with the id.
 *
 * Any thread; blocks. CEIBA_ERR_TIMEOUT: some sends had to be ended; the producer is closed all the same.
 * CEIBA_ERR_CLOSED: another thread is closing it. CEIBA_ERR_UNKNOWN_ID, CEIBA_ERR_FORKED,
 * CEIBA_ERR_WOULD_DEADLOCK.
 */
int32_t ceiba_producer_close(const char *id,
                             size_t id_len,
                             int64_t timeout_ms,
                             struct ceiba_error **error);

/**
 * Submits a copy of `data` and returns without waiting. The queue given at open gets exactly one completion
 * with `token`, within the client's deadline, also when the call is cancelled or the producer closed. Tokens
 * are the caller's and need not differ, except to cancel.
 *
 * Any thread; does not block. A failed submit has no completion. Errors: CEIBA_ERR_QUEUE_FULL (poll the
 * queue, or wait), CEIBA_ERR_UNKNOWN_ID, CEIBA_ERR_INVALID_ARGUMENT (a negative delay, or the producer was
 * opened without a queue), CEIBA_ERR_TOO_LARGE, CEIBA_ERR_CLOSED, CEIBA_ERR_FORKED.
 */
int32_t ceiba_producer_submit(const char *id,
                              size_t id_len,
                              const void *data,
                              size_t data_len,
                              int64_t delay_seconds,
                              uint64_t token,
                              struct ceiba_error **error);

/**
 * Submits copies of `count` bodies at one cost for look-up and lock. The first has `first_token`, and each
 * further one the next number. `accepted` gets how many were taken, from the first on: fewer than `count`
 * when the queue or the window became full on the way. Those have one completion each, the others none.
 *
 * Any thread; does not block. An error, as those of ceiba_producer_submit(), only when none was taken.
 */
int32_t ceiba_producer_submit_many(const char *id,
                                   size_t id_len,
                                   const struct ceiba_slice *bodies,
                                   size_t count,
                                   int64_t delay_seconds,
                                   uint64_t first_token,
                                   size_t *accepted,
                                   struct ceiba_error **error);

/**
 * Submits a full message, which stays the caller's, and returns without waiting. `timeout_ms` is the
 * deadline of its completion; negative: the client's.
 *
 * Any thread; does not block. Errors as those of ceiba_producer_submit(); a field that the provider cannot
 * honour ends in a completion with CEIBA_ERR_UNSUPPORTED.
 */
int32_t ceiba_producer_submit_message(const char *id,
                                      size_t id_len,
                                      const struct ceiba_message *message,
                                      int64_t timeout_ms,
                                      uint64_t token,
                                      struct ceiba_error **error);

/**
 * Asks for the submits with this token to end as CEIBA_ERR_CANCELLED. What has ended is left alone: its
 * completion tells how. There is one completion either way.
 *
 * Any thread; does not block. CEIBA_ERR_UNKNOWN_ID, CEIBA_ERR_CLOSED, CEIBA_ERR_FORKED.
 */
int32_t ceiba_producer_cancel(const char *id, size_t id_len, uint64_t token, struct ceiba_error **error);

/**
 * Makes a queue for `capacity` submits that are under way or not yet polled: 1 to 16777216. `queue` gets
 * it; the caller frees it.
 *
 * Any thread; does not block. CEIBA_ERR_INVALID_ARGUMENT: the capacity is out of range.
 */
int32_t ceiba_queue_new(size_t capacity, struct ceiba_queue **queue, struct ceiba_error **error);

/**
 * A file descriptor that is readable while completions wait, for poll(), epoll or kqueue. It belongs to the
 * queue: do not close it. It need not be read: polling the queue empty clears it. -1 for NULL and in a
 * forked child.
 *
 * Any thread.
 */
int32_t ceiba_queue_fd(const struct ceiba_queue *queue);

/**
 * How many submits it has room for; 0 for NULL.
 *
 * Any thread; never fails.
 */
size_t ceiba_queue_capacity(const struct ceiba_queue *queue);

/**
 * How many submits are under way or not yet polled; 0 for NULL.
 *
 * Any thread; never fails.
 */
size_t ceiba_queue_length(const struct ceiba_queue *queue);

/**
 * Has `function` called with `user` when the queue goes from empty to non-empty, and once when it is set if
 * completions wait already. It replaces the function set before; NULL sets none. Several changes may give
 * one call, so poll until nothing is left.
 *
 * `function` is called on a thread of the library's own, by one thread at a time, and may call any ceiba
 * function. `release` (may be NULL) is called once with `user` when no call can follow: soon after the
 * function is replaced or the queue freed, and also when this call fails.
 *
 * Any thread; does not block. CEIBA_ERR_FORKED: the queue is the parent's.
 */
int32_t ceiba_queue_set_callback(const struct ceiba_queue *queue,
                                 void (*function)(void *user),
                                 void *user,
                                 void (*release)(void *user),
                                 struct ceiba_error **error);

/**
 * Takes up to `max` completions. `timeout_ms`: 0 takes what is there, a positive one waits so long for the
 * first, a negative one without end.
 *
 * `completions` is in and out: a NULL gets a new batch, which the caller frees; the batch of an earlier poll
 * is emptied and filled again, which spares memory, and what was asked of it before is valid no more. The
 * batch may come out empty.
 *
 * Any thread, each with its own batch; blocks as long as `timeout_ms` says. Errors: CEIBA_ERR_CLOSED (the
 * queue was closed and nothing is left), CEIBA_ERR_INVALID_ARGUMENT (`max` is 0), CEIBA_ERR_FORKED,
 * CEIBA_ERR_WOULD_DEADLOCK (to wait on a thread of the runtime).
 */
int32_t ceiba_queue_poll(const struct ceiba_queue *queue,
                         size_t max,
                         int64_t timeout_ms,
                         struct ceiba_completions **completions,
                         struct ceiba_error **error);

/**
 * Ends waiting: threads in ceiba_queue_poll() return, and further polls do not wait. Completions that are
 * there, or still come, can be taken as before; when none are left, a poll gives CEIBA_ERR_CLOSED.
 * Producers that are open go on.
 *
 * Any thread; does not block. CEIBA_ERR_FORKED.
 */
int32_t ceiba_queue_close(const struct ceiba_queue *queue, struct ceiba_error **error);

/**
 * Frees a queue. Producers opened with it keep it alive inside until they are closed: their submits go on
 * until it is full, and their completions can be polled no more. No other thread may be in a call with the
 * queue. The callback's release follows. NULL does nothing.
 */
void ceiba_queue_free(struct ceiba_queue *queue);

/**
 * How many completions the batch has; 0 for NULL.
 */
size_t ceiba_completions_count(const struct ceiba_completions *completions);

/**
 * The tokens, as an array of ceiba_completions_count() numbers; valid until the batch is freed or polled
 * into again.
 */
const uint64_t *ceiba_completions_tokens(const struct ceiba_completions *completions);

/**
 * The codes, CEIBA_OK or CEIBA_ERR_*, as an array of ceiba_completions_count() numbers; valid until the
 * batch is freed or polled into again.
 */
const int32_t *ceiba_completions_codes(const struct ceiba_completions *completions);

/**
 * The error of one, NULL where it succeeded. It belongs to the batch.
 */
const struct ceiba_error *ceiba_completions_error(const struct ceiba_completions *completions, size_t index);

/**
 * The receipt of one, NULL where it failed. It belongs to the batch.
 */
const struct ceiba_receipt *ceiba_completions_receipt(const struct ceiba_completions *completions,
                                                      size_t index);

/**
 * Frees a batch, with the errors and receipts in it. NULL does nothing.
 */
void ceiba_completions_free(struct ceiba_completions *completions);

/**
 * Opens a consumer under `id` with a configuration: a JSON object, or a URL such as
 * kapokmq://:SECRET@HOST:PORT/TOPIC. An empty `id` takes the `id` of the configuration. Producers and
 * consumers have ids of their own: one of each may have the same.
 *
 * Any thread; blocks until the first connection stands (the configuration's `connect_timeout`), unless the
 * configuration says `"connect": "lazy"`. Errors as those of ceiba_producer_open().
 */
int32_t ceiba_consumer_open(const char *id,
                            size_t id_len,
                            const char *config,
                            size_t config_len,
                            struct ceiba_error **error);

/**
 * Waits for deliveries, and takes up to `max` of them: those that are there, at least one. At the deadline,
 * `timeout_ms` or when that is negative the client's, the call succeeds with none. 0 takes what is there.
 *
 * `deliveries` gets a list that the caller frees. Freeing it acknowledges nothing.
 *
 * Any thread, several at a time; blocks. Errors: CEIBA_ERR_UNKNOWN_ID, CEIBA_ERR_CLOSED (also when it is
 * closed meanwhile), CEIBA_ERR_INVALID_ARGUMENT (`max` is 0), CEIBA_ERR_FORKED, CEIBA_ERR_WOULD_DEADLOCK.
 */
int32_t ceiba_consumer_receive(const char *id,
                               size_t id_len,
                               size_t max,
                               int64_t timeout_ms,
                               struct ceiba_deliveries **deliveries,
                               struct ceiba_error **error);

/**
 * Acknowledges a delivery by its code. It succeeds when the ack is on its way.
 *
 * Any thread; may block for a moment. Errors: CEIBA_ERR_NOT_FOUND (no such delivery waits for an ack; only a
 * provider that can tell says so: KapokMQ cannot), CEIBA_ERR_UNKNOWN_ID, CEIBA_ERR_CLOSED, CEIBA_ERR_UNSUPPORTED,
 * CEIBA_ERR_UNAVAILABLE, CEIBA_ERR_FORKED, CEIBA_ERR_WOULD_DEADLOCK.
 */
int32_t ceiba_consumer_ack(const char *id,
                           size_t id_len,
                           const char *code,
                           size_t code_len,
                           struct ceiba_error **error);

/**
 * Acknowledges several. `results` gets a result for each code, in their order, which the caller frees; the
 * call succeeds also when some, or all, of the acks failed.
 *
 * Any thread; may block for a moment. Errors of the call: CEIBA_ERR_UNKNOWN_ID, CEIBA_ERR_CLOSED,
 * CEIBA_ERR_INVALID_ARGUMENT, CEIBA_ERR_FORKED, CEIBA_ERR_WOULD_DEADLOCK.
 */
int32_t ceiba_consumer_ack_many(const char *id,
                                size_t id_len,
                                const struct ceiba_slice *codes,
                                size_t count,
                                struct ceiba_results **results,
                                struct ceiba_error **error);

/**
 * Gives a delivery back, to come again after `delay_ms`.
 *
 * Any thread; may block for a moment. Errors as those of ceiba_consumer_ack(); CEIBA_ERR_INVALID_ARGUMENT
 * for a negative delay, CEIBA_ERR_UNSUPPORTED where the wire has no such thing.
 */
int32_t ceiba_consumer_nack(const char *id,
                            size_t id_len,
                            const char *code,
                            size_t code_len,
                            int64_t delay_ms,
                            struct ceiba_error **error);

/**
 * Gives several back, to come again after `delay_ms`. `results` as in ceiba_consumer_ack_many().
 *
 * Any thread; may block for a moment. Errors of the call as those of ceiba_consumer_ack_many().
 */
int32_t ceiba_consumer_nack_many(const char *id,
                                 size_t id_len,
                                 const struct ceiba_slice *codes,
                                 size_t count,
                                 int64_t delay_ms,
                                 struct ceiba_results **results,
                                 struct ceiba_error **error);

/**
 * Gives the live state as a JSON object, which the caller frees. New keys may come.
 *
 * Any thread; does not block. CEIBA_ERR_UNKNOWN_ID, CEIBA_ERR_CLOSED, CEIBA_ERR_FORKED.
 */
int32_t ceiba_consumer_status(const char *id,
                              size_t id_len,
                              struct ceiba_string **json,
                              struct ceiba_error **error);

/**
 * Closes a consumer: receives under way on other threads return CEIBA_ERR_CLOSED, and acks that wait are
 * written within `timeout_ms` (negative: the client's deadline). What was delivered and not acknowledged
 * comes again to another consumer. The id is free when this returns.
 *
 * Any thread; blocks. Errors as those of ceiba_producer_close().
 */
int32_t ceiba_consumer_close(const char *id, size_t id_len, int64_t timeout_ms, struct ceiba_error **error);

/**
 * How many deliveries there are; 0 for NULL.
 *
 * Any thread; never fails.
 */
size_t ceiba_deliveries_count(const struct ceiba_deliveries *deliveries);

/**
 * The body: any bytes. Empty when there is no delivery at `index`.
 *
 * Any thread; never fails.
 */
struct ceiba_slice ceiba_deliveries_body(const struct ceiba_deliveries *deliveries, size_t index);

/**
 * The code that ceiba_consumer_ack() and ceiba_consumer_nack() take.
 *
 * Any thread; never fails.
 */
struct ceiba_slice ceiba_deliveries_code(const struct ceiba_deliveries *deliveries, size_t index);

/**
 * The topic or queue it came from.
 *
 * Any thread; never fails.
 */
struct ceiba_slice ceiba_deliveries_topic(const struct ceiba_deliveries *deliveries, size_t index);

/**
 * The key of the message; empty if it has none.
 *
 * Any thread; never fails.
 */
struct ceiba_slice ceiba_deliveries_key(const struct ceiba_deliveries *deliveries, size_t index);

/**
 * The tag of the message; empty if it has none.
 *
 * Any thread; never fails.
 */
struct ceiba_slice ceiba_deliveries_tag(const struct ceiba_deliveries *deliveries, size_t index);

/**
 * The MIME type of the body; empty if it was not told.
 *
 * Any thread; never fails.
 */
struct ceiba_slice ceiba_deliveries_content_type(const struct ceiba_deliveries *deliveries, size_t index);

/**
 * When the other side accepted the message, in milliseconds since 1970; -1 where the wire does not tell.
 *
 * Any thread; never fails.
 */
int64_t ceiba_deliveries_created_ms(const struct ceiba_deliveries *deliveries, size_t index);

/**
 * How often the message was delivered, from 1; 0 where the wire does not tell.
 *
 * Any thread; never fails.
 */
uint32_t ceiba_deliveries_attempt(const struct ceiba_deliveries *deliveries, size_t index);

/**
 * How many attributes the message has.
 *
 * Any thread; never fails.
 */
size_t ceiba_deliveries_attribute_count(const struct ceiba_deliveries *deliveries, size_t index);

/**
 * The name of an attribute by its number, from 0, in the order of the names. Empty when there is none.
 *
 * Any thread; never fails.
 */
struct ceiba_slice ceiba_deliveries_attribute_name(const struct ceiba_deliveries *deliveries,
                                                   size_t index,
                                                   size_t attribute);

/**
 * Finds an attribute by its name: `value` (may be NULL) gets a view of it. False, and `value` untouched,
 * when the message has none of that name.
 *
 * Any thread.
 */
bool ceiba_deliveries_get_attribute(const struct ceiba_deliveries *deliveries,
                                    size_t index,
                                    const char *name,
                                    size_t name_len,
                                    struct ceiba_slice *value);

/**
 * Frees deliveries. It acknowledges nothing: what has no ack comes again. NULL does nothing.
 */
void ceiba_deliveries_free(struct ceiba_deliveries *deliveries);

/**
 * Opens every client of a configuration file, {"clients": [{"id": "a", "role": "producer", …}, …]}, or
 * none: when one fails, those opened before it are closed again, and the error names the client. A file may also
 * be the config of one client, with its `id`.
 *
 * `queue` (may be NULL) is given to every producer, as in ceiba_producer_open(). `ids_json` may be NULL;
 * else it gets a JSON array, which the caller frees: [{"role": "producer", "id": "a"}, …].
 *
 * Any thread; blocks. CEIBA_ERR_INVALID_CONFIG also when the file cannot be read; otherwise the errors of
 * ceiba_producer_open().
 */
int32_t ceiba_open_file(const char *path,
                        size_t path_len,
                        const struct ceiba_queue *queue,
                        struct ceiba_string **ids_json,
                        struct ceiba_error **error);

/**
 * Makes a producer of the host known under `name`, for configs with `"provider": {"type": "callback", "name": …}`.
 * `send` gets `user` and each call; it runs on threads of the producer, may block there and make any call of this
 * library but the close of a producer that waits for it, and ends the call then or later. As many calls as the config's
 * `threads` says (16 unless set) may be under way; each counts until `send` has returned and the call was ended. One
 * that is late is reported at its deadline, with an unknown outcome, and counts on until it is ended all the same; a
 * close waits for it until its own deadline.
 *
 * `abandoned` (may be NULL) is called with `user` and the number of a call (ceiba_call_number()) when nobody waits for
 * its end any more, also just after it was ended. It runs on a thread that the callbacks of the library share, so it
 * should be short. `release` (may be NULL) is called with `user` once, when neither is called any more; also when this
 * call fails.
 *
 * Any thread. CEIBA_ERR_ALREADY_OPEN: the name is taken. CEIBA_ERR_INVALID_ARGUMENT.
 */
int32_t ceiba_callback_register(const char *name,
                                size_t name_len,
                                void (*send)(void *user, struct ceiba_call *call),
                                void (*abandoned)(void *user, uint64_t number),
                                void (*release)(void *user),
                                void *user,
                                struct ceiba_error **error);

/**
 * Forgets a producer of the host. Producers that were opened with it go on with it until they are closed.
 *
 * Any thread. CEIBA_ERR_UNKNOWN_ID: nothing has this name.
 */
int32_t ceiba_callback_unregister(const char *name, size_t name_len, struct ceiba_error **error);

/**
 * The number of the call, which no other call of the process has; 0 for NULL.
 *
 * Any thread; never fails.
 */
uint64_t ceiba_call_number(const struct ceiba_call *call);

/**
 * The body of the message: a view, valid until the call is ended.
 *
 * Any thread; never fails.
 */
struct ceiba_slice ceiba_call_body(const struct ceiba_call *call);

/**
 * The other fields of the message that are set, as a JSON object, which the caller frees: `content_type`, `key`,
 * `tag`, `topic`, `template`, `args`, `recipients`, `attributes`, `attachments` (each with `name`, `content_type` and
 * `length`) and `delay_ms`.
 *
 * Any thread.
 */
int32_t ceiba_call_fields(const struct ceiba_call *call,
                          struct ceiba_string **json,
                          struct ceiba_error **error);

/**
 * The content of an attachment, by its place in the list from 0: a view, valid until the call is ended; empty for a
 * place that is not there.
 *
 * Any thread; never fails.
 */
struct ceiba_slice ceiba_call_attachment(const struct ceiba_call *call,
                                         size_t place);

/**
 * What is left until the deadline, in milliseconds; -1 without one.
 *
 * Any thread; never fails.
 */
int64_t ceiba_call_remaining_ms(const struct ceiba_call *call);

/**
 * Whether nobody waits for the end of the call any more: its deadline passed, or it was cancelled.
 *
 * Any thread; never fails.
 */
bool ceiba_call_abandoned(const struct ceiba_call *call);

/**
 * Ends a call well, and frees it. `message_id` is the other side's id of the message, empty where there is none; an
 * id that is not UTF-8 counts as none. NULL as `call` does nothing.
 *
 * Any thread; never fails.
 */
void ceiba_call_sent(struct ceiba_call *call,
                     const char *message_id,
                     size_t message_id_len);

/**
 * Ends a call with an error, and frees it. `code` is one of CEIBA_ERR_*, any other counts as CEIBA_ERR_UNAVAILABLE;
 * `outcome` says whether the message may have been sent all the same; `retryable` whether a retry may help: 0 no, more
 * yes, negative as is usual for the code; `retry_after_ms` is the least wait before a retry, negative for none. NULL as `call` does nothing.
 *
 * Any thread; never fails.
 */
void ceiba_call_failed(struct ceiba_call *call,
                       int32_t code,
                       int32_t outcome,
                       int32_t retryable,
                       int64_t retry_after_ms,
                       const char *message,
                       size_t message_len);

/**
 * Gives a page of the rows of an outbox, oldest first: {"rows": [{"id": "12", "producer": "orders", "state":
 * "pending", "attempts": 1, …}, …], "next": "12"}.
 *
 * `target`, of this and the other functions on outboxes, is the id of an open producer that has one, and then all is
 * about the rows of this producer; or the address of a store, such as "sqlite:outbox.db" or "mongodb://HOST/DATABASE",
 * which needs no open producer and has the rows of all. `options_json` is a JSON object, empty for none: `producer`
 * (the rows of this one), `state` ("pending", "leased", "done" or "dead"), `limit` (1 to 1000, 100 unless set) and
 * `after`, the `next` of the page before. `next` is null on the last page. Paging skips no row, whatever is added or
 * deleted meanwhile.
 *
 * A row has `id`, `producer`, `state`, `attempts` (out of the store, that failed), `size` (of the body, in bytes),
 * `accepted`, `created`, `updated` and `short` (the begin of the body); `next_attempt`, or `leased_until` where it is
 * being sent; and where there is one `topic`, `order_key`, `dedup` and `error`, the last one: {"kind", "outcome",
 * "message", "provider"}. Times are texts such as "2026-01-31T12:00:00.000Z". A pending row without a `next_attempt`
 * waits for another one of its key.
 *
 * `json` gets the answer, which the caller frees; new keys may come. Without a `timeout_ms` (negative) each of these
 * functions has 30 seconds.
 *
 * Any thread; blocks. Errors, of all these functions: CEIBA_ERR_UNKNOWN_ID, CEIBA_ERR_UNSUPPORTED (the producer has no
 * outbox), CEIBA_ERR_INVALID_ARGUMENT (an unknown option too), CEIBA_ERR_NOT_FOUND (an address of a file that is not
 * there), CEIBA_ERR_STORAGE, CEIBA_ERR_QUEUE_FULL (too much waits for the store, or too many stores are open),
 * CEIBA_ERR_TIMEOUT, CEIBA_ERR_FORKED, CEIBA_ERR_WOULD_DEADLOCK.
 */
int32_t ceiba_outbox_list(const char *target,
                          size_t target_len,
                          const char *options_json,
                          size_t options_json_len,
                          int64_t timeout_ms,
                          struct ceiba_string **json,
                          struct ceiba_error **error);

/**
 * Gives one row with its message. `options_json`: {"id": "12"}. The answer is a row as in ceiba_outbox_list(), with
 * `message`: its fields and its `body`, or `body_base64` where that is not UTF-8.
 *
 * Any thread; blocks. Arguments and errors as of ceiba_outbox_list(), and CEIBA_ERR_NOT_FOUND.
 */
int32_t ceiba_outbox_show(const char *target,
                          size_t target_len,
                          const char *options_json,
                          size_t options_json_len,
                          int64_t timeout_ms,
                          struct ceiba_string **json,
                          struct ceiba_error **error);

/**
 * Makes pending and dead rows due at once; dead ones begin anew. `options_json`: {"ids": ["12", …]}, 10000 at most. The
 * answer is {"retried": 1}: others are not counted. Who sends them is an open producer, of any process, with this
 * outbox; one that waits for another row of its key goes on waiting.
 *
 * Any thread; blocks. Arguments and errors as of ceiba_outbox_list().
 */
int32_t ceiba_outbox_retry(const char *target,
                           size_t target_len,
                           const char *options_json,
                           size_t options_json_len,
                           int64_t timeout_ms,
                           struct ceiba_string **json,
                           struct ceiba_error **error);

/**
 * Makes all pending and dead rows due at once, as ceiba_outbox_retry() does. `options_json`: empty, or {"producer":
 * "orders"}. The answer is {"retried": 100}: those that are due already are not counted.
 *
 * Any thread; blocks. Arguments and errors as of ceiba_outbox_list(). A call that fails may have changed some rows.
 */
int32_t ceiba_outbox_retry_all(const char *target,
                               size_t target_len,
                               const char *options_json,
                               size_t options_json_len,
                               int64_t timeout_ms,
                               struct ceiba_string **json,
                               struct ceiba_error **error);

/**
 * Deletes rows for good. `options_json`: {"ids": ["12", …]}, 10000 at most. The answer is {"dropped": 1, "leased": [],
 * "unknown": []}: leased ones are being sent and stay, unknown ones are not there.
 *
 * Any thread; blocks. Arguments and errors as of ceiba_outbox_list().
 */
int32_t ceiba_outbox_drop(const char *target,
                          size_t target_len,
                          const char *options_json,
                          size_t options_json_len,
                          int64_t timeout_ms,
                          struct ceiba_string **json,
                          struct ceiba_error **error);

/**
 * Gives a page of rows with all that is in them, as texts for ceiba_outbox_import(): {"lines": ["{…}", …], "next":
 * "12"}. `options_json` and `next` are those of ceiba_outbox_list(). A page ends early once it holds 32 MiB of bodies,
 * so only `next` tells whether more is there.
 *
 * Any thread; blocks. Arguments and errors as of ceiba_outbox_list().
 */
int32_t ceiba_outbox_export(const char *target,
                            size_t target_len,
                            const char *options_json,
                            size_t options_json_len,
                            int64_t timeout_ms,
                            struct ceiba_string **json,
                            struct ceiba_error **error);

/**
 * Puts rows of an export into an outbox. `options_json`: {"lines": ["{…}", …]}, 10000 at most. The answer is
 * {"imported": 1, "known": 0}: known ones are there already, from an earlier import too, and stay as they are. One that
 * was sent meanwhile, and is not kept by `keep_done`, is not known any more.
 *
 * Any thread; blocks. Arguments and errors as of ceiba_outbox_list(), but a file that is not there is made;
 * CEIBA_ERR_INVALID_ARGUMENT names a line that is wrong, and then none is imported.
 */
int32_t ceiba_outbox_import(const char *target,
                            size_t target_len,
                            const char *options_json,
                            size_t options_json_len,
                            int64_t timeout_ms,
                            struct ceiba_string **json,
                            struct ceiba_error **error);

/**
 * Counts rows. `options_json`: empty, or {"producer": "orders"}. The answer is {"store": "sqlite", "producers":
 * [{"producer": "orders", "pending": 1, "leased": 0, "done": 0, "dead": 0, …}, …]}, and where there is one with
 * `next_attempt` and `oldest`, when the next row is due and when the oldest message was accepted that is still to be sent.
 *
 * Any thread; blocks. Arguments and errors as of ceiba_outbox_list().
 */
int32_t ceiba_outbox_stats(const char *target,
                           size_t target_len,
                           const char *options_json,
                           size_t options_json_len,
                           int64_t timeout_ms,
                           struct ceiba_string **json,
                           struct ceiba_error **error);

/**
 * Deletes rows that have ended. `options_json`: {"older": "7d"}, and if need be `state` ("done", which is the default,
 * or "dead") and `producer`; a row counts from when it ended. The answer is {"purged": 1}. Dead rows go also where their
 * notifier was not told of them yet, for which `keep_dead` waits.
 *
 * Any thread; blocks. Arguments and errors as of ceiba_outbox_list(). A call that fails may have deleted some rows.
 */
int32_t ceiba_outbox_purge(const char *target,
                           size_t target_len,
                           const char *options_json,
                           size_t options_json_len,
                           int64_t timeout_ms,
                           struct ceiba_string **json,
                           struct ceiba_error **error);

/**
 * Tries every pending row of a producer once, now, and waits until all have ended. `target` is the id of an open
 * producer: an address alone has nobody who sends. The answer is {"sent": 99, "failed": 1, "given_up": 0}, counted over
 * all that the producer sent out of the store meanwhile; given up are those of the failed that failed for the last time.
 * The call waits until `notify` was told of them.
 *
 * With `ordered`, the rows of a key are tried one after the other to the end of their line. What stands behind one that
 * failed and was not given up, or that another process is sending, goes on waiting: a drain never waits for rows that
 * other processes send, nor for what is accepted after the call.
 *
 * Any thread; blocks. Arguments and errors as of ceiba_outbox_list(), and CEIBA_ERR_CLOSED. The rows of a call that
 * ends early are tried all the same.
 */
int32_t ceiba_outbox_drain(const char *target,
                           size_t target_len,
                           int64_t timeout_ms,
                           struct ceiba_string **json,
                           struct ceiba_error **error);

/**
 * Carries out a command on an MNS account. `config` is the config of a client, as a URL or JSON: its service and keys
 * count, and a queue or topic that it names does not; "mns://KEY_ID@HOST:PORT?secret_file=FILE" is enough.
 *
 * `command` is a JSON object with one key: `create_queue`, `set_queue`, `get_queue`, `delete_queue` and `peek` with an
 * object that has the key `queue`; `create_topic`, `set_topic`, `get_topic` and `delete_topic` with `topic`;
 * `subscribe`, `set_subscription`, `get_subscription` and `unsubscribe` with `topic` and `subscription`; `list_queues`,
 * `list_topics`, and `list_subscriptions` with `topic`. Those that make or change something take `attributes` too, with
 * times in whole seconds and sizes in bytes:
 *
 * - of a queue `delay_seconds`, `maximum_message_size`, `message_retention_period`, `visibility_timeout`,
 *   `polling_wait_seconds`, `logging_enabled`
 * - of a topic `maximum_message_size`, `logging_enabled`
 * - of a subscription `endpoint` ("http://…", "acs:mns:REGION:ACCOUNT:queues/QUEUE"), `filter_tag`,
 *   `notify_strategy` ("BACKOFF_RETRY", "EXPONENTIAL_DECAY_RETRY"), `notify_content_format` ("XML", "SIMPLIFIED",
 *   "JSON"); only the strategy can be changed
 *
 * as in {"create_queue": {"queue": "orders", "attributes": {"visibility_timeout": 60}}}. Lists take `prefix`, `limit`
 * (up to 1000, 100 unless set) and `after`, the `next` of the page before; `peek` takes `limit` (up to 16, 1 unless
 * set). A key that is not known is an error. MNS cannot empty a queue: delete it and make it again.
 *
 * `json` gets the answer, which the caller frees: {"created": true} of what makes something, false where the same is
 * there already; {} of what changes or deletes; a `name` and attributes and counts of what gets; {"queues": […],
 * "next": null}, {"topics": …} and {"subscriptions": …} of lists; {"messages": [{"message_id", "body", "enqueued_ms",
 * "dequeue_count", "priority"}]} of `peek`, where a body that is no text is in `body_base64`. New keys may come.
 *
 * Any thread; blocks, for 30 seconds unless `timeout_ms` says otherwise. Errors: CEIBA_ERR_INVALID_CONFIG,
 * CEIBA_ERR_INVALID_ARGUMENT (also: it exists with other attributes), CEIBA_ERR_NOT_FOUND,
 * CEIBA_ERR_AUTHENTICATION, CEIBA_ERR_PERMISSION, CEIBA_ERR_THROTTLED, CEIBA_ERR_UNAVAILABLE, CEIBA_ERR_UNSUPPORTED,
 * CEIBA_ERR_TIMEOUT (it may have been done), CEIBA_ERR_FORKED, CEIBA_ERR_WOULD_DEADLOCK.
 */
int32_t ceiba_mns_admin(const char *config,
                        size_t config_len,
                        const char *command,
                        size_t command_len,
                        int64_t timeout_ms,
                        struct ceiba_string **json,
                        struct ceiba_error **error);

/**
 * Starts a broker in this process, which speaks the KapokMQ protocol on loopback or wherever it is told to
 * listen. `config` is a JSON object with `secret_key`, and where wanted:
 *
 * - `listen` ("127.0.0.1:0" takes a free port, and is the default), `delivery` ("work_queue", the default, or
 *   "publish_subscribe"), `redeliver_after` ("300s")
 * - `data` (a folder for the messages; without one they are in memory), `durability` (of that folder: "fsync", the
 *   default, "interval:200ms" or "memory")
 * - `nodes` (other brokers that the registry names: a list of "HOST:PORT"), `advertise` (the host that the registry
 *   names for this one), `dpmq` (true: the DPMQ protocol too, which has no login)
 * - `mns` (MNS at an address of its own: an object with `keys`, {"ID": "SECRET"}, and where wanted `listen`,
 *   "127.0.0.1:0" unless set, `private_endpoints`, true to let subscriptions push to HTTP endpoints at loopback,
 *   link-local and private addresses, and `endpoints`, networks of such that they may push to, ["10.1.0.0/16"])
 * - of all topics `max_attempts` (then a message goes to the dead letters, the topic NAME.dead), `expire_after` ("24h";
 *   dead letters too), `push_every` ("1s") and `push_count` (messages that go together), `max_messages`, `max_bytes`,
 *   `when_full` ("wait" or "refuse"), `deduplicate` ("10m": how long a key is remembered) and `compat`
 *   (publish-subscribe: the first ack consumes for all); `topics` has objects of the same keys for single topics
 *
 * A secret is a text, {"env": "NAME"} or {"file": "PATH"}. `broker` gets the broker; the caller frees it.
 *
 * Any thread; blocks until it listens. Errors: CEIBA_ERR_INVALID_CONFIG, CEIBA_ERR_UNAVAILABLE (the address
 * cannot be listened on), CEIBA_ERR_IN_USE and CEIBA_ERR_STORAGE (the folder), CEIBA_ERR_WOULD_DEADLOCK.
 */
int32_t ceiba_broker_start(const char *config,
                           size_t config_len,
                           struct ceiba_broker **broker,
                           struct ceiba_error **error);

/**
 * The address it listens on, such as "127.0.0.1:41234": a view, valid until the broker is freed.
 *
 * Any thread; never fails.
 */
struct ceiba_slice ceiba_broker_address(const struct ceiba_broker *broker);

/**
 * Gives counts of what the broker did and holds as a JSON object, which the caller frees, with `address`, and
 * `mns_address` where MNS is spoken. New keys may come.
 *
 * Any thread; does not block. CEIBA_ERR_FORKED.
 */
int32_t ceiba_broker_status(const struct ceiba_broker *broker,
                            struct ceiba_string **json,
                            struct ceiba_error **error);

/**
 * Stops the broker: it accepts no more, answers what it has read, and closes every connection within
 * `timeout_ms` (negative: 5 seconds). Stopping it again does nothing. The caller still frees it.
 *
 * Any thread; blocks. Errors: CEIBA_ERR_TIMEOUT (some connections were cut off; it is stopped all the same),
 * CEIBA_ERR_FORKED, CEIBA_ERR_WOULD_DEADLOCK.
 */
int32_t ceiba_broker_stop(const struct ceiba_broker *broker, int64_t timeout_ms, struct ceiba_error **error);

/**
 * Frees a broker. One that still runs is stopped at once, as a crash would. NULL does nothing.
 *
 * Any thread; does not block.
 */
void ceiba_broker_free(struct ceiba_broker *broker);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* CEIBA_H */
