// The main job in C: send every line of a file through a producer, receive and acknowledge them all by a
// consumer, and print what was counted as one line of JSON.
//
//   CEIBA_CONFIG=kapokmq://:SECRET@127.0.0.1:8011/job ./job FILE
//
// Submits go out in batches, and completions are taken from a queue: the queue's size bounds what is on its
// way. A second thread receives. A line ends with LF; a last line without one counts, an empty line is an
// empty message. A line that is refused is named on stderr; when the other side does not answer within the
// deadline, no further line is sent. Exit code 0: every line was acknowledged, and every acknowledged line came.
#include <ceiba.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tally.h"

#define TEXT(text) (text), strlen(text)
#define PRODUCER TEXT("job")
#define CONSUMER TEXT("job")

enum {
    WINDOW = 8192,      // submits on their way or not yet polled
    BATCH = 1024,       // of submits, of completions, of deliveries
    IDLE_MS = 10000,    // without a delivery after everything was sent: what is missing is lost
    LINGER_MS = 300,    // after the last one: whoever comes now is a duplicate
    SHOWN = 10,         // refused lines that are named
};

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void say(const char *what, const ceiba_error *error) {
    ceiba_slice kind = ceiba_error_name(ceiba_error_code(error)), text = ceiba_error_message(error);
    fprintf(stderr, "%s: %.*s: %.*s\n", what, (int)kind.len, (const char *)kind.data, (int)text.len,
            (const char *)text.data);
}

static int failed(const char *what, ceiba_error *error) {
    say(what, error);
    ceiba_error_free(error);
    return 2;
}

// What the two threads share. The tally's counts of receiving belong to the receiving thread.
struct job {
    struct tally tally;
    atomic_bool sent;               // every send has ended
    atomic_size_t acknowledged;
    atomic_size_t received;
    double last;                    // when the last acknowledgement was given
    bool receive_failed;
};

static bool acknowledge(const ceiba_deliveries *got, size_t count) {
    static ceiba_slice codes[BATCH];
    ceiba_results *results = NULL;
    ceiba_error *error = NULL;
    for (size_t i = 0; i < count; i++) codes[i] = ceiba_deliveries_code(got, i);
    if (ceiba_consumer_ack_many(CONSUMER, codes, count, &results, &error)) {
        failed("acknowledging", error);
        return false;
    }
    bool all = true;
    for (size_t i = 0; i < count && all; i++) {
        // A wire without acknowledgements counts a message as consumed when it is received.
        int32_t code = ceiba_results_code(results, i);
        if (code != CEIBA_OK && code != CEIBA_ERR_UNSUPPORTED) {
            say("acknowledging", ceiba_results_error(results, i));
            all = false;
        }
    }
    ceiba_results_free(results);
    return all;
}

static void *receive(void *argument) {
    struct job *job = argument;
    double idle_since = now();
    bool lingering = false;
    for (;;) {
        ceiba_deliveries *got = NULL;
        ceiba_error *error = NULL;
        if (ceiba_consumer_receive(CONSUMER, BATCH, LINGER_MS, &got, &error)) {
            failed("receiving", error);
            job->receive_failed = true;
            return NULL;
        }
        size_t count = ceiba_deliveries_count(got);
        for (size_t i = 0; i < count; i++) tally_received(&job->tally, ceiba_deliveries_body(got, i));
        bool acked = count == 0 || acknowledge(got, count);
        ceiba_deliveries_free(got);
        if (!acked) {
            job->receive_failed = true;
            return NULL;
        }
        size_t received = atomic_fetch_add(&job->received, count) + count;
        if (count > 0) {
            idle_since = now();
            if (!lingering) job->last = idle_since;
        } else if (lingering || (atomic_load(&job->sent) && (now() - idle_since) * 1000 > IDLE_MS)) {
            return NULL;
        } else if (!atomic_load(&job->sent)) {
            idle_since = now();
        }
        lingering = atomic_load(&job->sent) && received >= atomic_load(&job->acknowledged);
    }
}

// How the sends ended.
struct sends {
    size_t submitted, ended, refused, unknown;
    bool given_up;
};

static void end(struct job *job, struct sends *sends, size_t line, const ceiba_error *error) {
    sends->ended++;
    if (error == NULL) {
        tally_acknowledged(&job->tally, line);
        atomic_fetch_add(&job->acknowledged, 1);
        return;
    }
    bool unknown = ceiba_error_outcome(error) == CEIBA_OUTCOME_UNKNOWN;
    if (sends->refused + sends->unknown < SHOWN) {
        char what[64];
        snprintf(what, sizeof what, "line %zu %s", line + 1, unknown ? "may have been sent" : "was refused");
        say(what, error);
    }
    if (unknown) sends->unknown++;
    else sends->refused++;
    // A line that cannot be sent says nothing of the next one; a broker that is gone does.
    if (unknown || ceiba_error_retryable(error)) sends->given_up = true;
}

static bool send_all(struct job *job, ceiba_queue *queue, struct sends *sends) {
    const ceiba_slice *lines = job->tally.lines;
    size_t count = job->tally.count;
    ceiba_completions *done = NULL;
    ceiba_error *error = NULL;
    bool good = true;
    for (size_t next = 0; good && sends->ended < count;) {
        if (sends->given_up) count = next;
        bool full = next == count;
        if (!full) {
            size_t taken = 0, wanted = count - next < BATCH ? count - next : BATCH;
            int32_t code = ceiba_producer_submit_many(PRODUCER, lines + next, wanted, 0, next, &taken, &error);
            if (code == CEIBA_OK) {
                next += taken;
            } else if (code == CEIBA_ERR_QUEUE_FULL && next > sends->ended) {
                full = true;
            } else {
                end(job, sends, next++, error);
            }
            ceiba_error_free(error);
            error = NULL;
        }
        sends->submitted = next;
        if (sends->ended == next) continue;
        // Wait only when nothing more can be submitted. The batch of the last poll is used again.
        if (ceiba_queue_poll(queue, BATCH, full ? -1 : 0, &done, &error)) {
            good = failed("polling", error) == 0;
            continue;
        }
        const size_t polled = ceiba_completions_count(done);
        const uint64_t *tokens = ceiba_completions_tokens(done);
        for (size_t i = 0; i < polled; i++) end(job, sends, (size_t)tokens[i], ceiba_completions_error(done, i));
    }
    ceiba_completions_free(done);
    return good;
}

static int run(struct job *job, const char *config) {
    ceiba_queue *queue = NULL;
    ceiba_error *error = NULL;
    pthread_t receiver;
    struct sends sends = {0};
    if (ceiba_queue_new(WINDOW, &queue, &error)) return failed("queue", error);
    if (ceiba_consumer_open(CONSUMER, TEXT(config), &error)) return failed("opening the consumer", error);
    if (ceiba_producer_open(PRODUCER, TEXT(config), queue, &error)) return failed("opening the producer", error);
    const double start = job->last = now();
    if (pthread_create(&receiver, NULL, receive, job) != 0) {
        fputs("no thread could be started\n", stderr);
        return 2;
    }
    const bool sent = send_all(job, queue, &sends);
    atomic_store(&job->sent, true);
    pthread_join(receiver, NULL);
    const double seconds = job->last - start;
    bool closed = true;
    if (ceiba_producer_close(PRODUCER, -1, &error)) closed = failed("closing the producer", error) == 0;
    error = NULL;
    if (ceiba_consumer_close(CONSUMER, -1, &error)) closed = failed("closing the consumer", error) == 0;
    ceiba_queue_free(queue);

    struct verdict verdict = tally_verdict(&job->tally);
    const size_t records = job->tally.count, acknowledged = atomic_load(&job->acknowledged);
    const size_t received = atomic_load(&job->received);
    printf("{\"language\":\"c\",\"lines\":%zu,\"sent\":%zu,\"acknowledged\":%zu,\"refused\":%zu,\"unknown\":%zu,"
           "\"received\":%zu,\"lost\":%zu,\"duplicates\":%zu,\"unexpected\":%zu,\"seconds\":%.3f,\"messages_per_second\":%.0f}\n",
           records, sends.submitted, acknowledged, sends.refused, sends.unknown, received, verdict.lost, verdict.duplicates,
           verdict.unexpected, seconds, seconds > 0 ? (double)received / seconds : 0.0);
    const bool complete = acknowledged == records && verdict.lost == 0 && verdict.unexpected == 0;
    return complete && sent && closed && !job->receive_failed ? 0 : 1;
}

int main(int count, char **arguments) {
    const char *config = getenv("CEIBA_CONFIG");
    struct job job = {0};
    if (count != 2 || config == NULL) {
        fputs("usage: CEIBA_CONFIG=kapokmq://:SECRET@HOST:PORT/TOPIC job FILE\n", stderr);
        return 2;
    }
    if (!tally_read(&job.tally, arguments[1])) {
        perror(arguments[1]);
        return 2;
    }
    int exit = run(&job, config);
    tally_free(&job.tally);
    return exit;
}
