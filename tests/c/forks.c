// A fork: the child is refused what is its parent's, opens its own, and the parent goes on.
#include "check.h"

#include <poll.h>
#include <stdatomic.h>
#include <sys/wait.h>

static const char CONFIG[] =
    "{\"provider\": {\"type\": \"memory\", \"topic\": \"forks\", \"discard\": true}, \"deadline\": \"5s\"}";

static ceiba_queue *queue;
static ceiba_broker *broker;
static atomic_bool stop;
static atomic_int logged;

static void count_log(void *user, int32_t level, ceiba_slice target, ceiba_slice message) {
    (void)user, (void)level, (void)target, (void)message;
    atomic_fetch_add(&logged, 1);
}

static void open_send_close(const char *id) {
    ceiba_queue *own = NULL;
    CHECK_OK(ceiba_queue_new(10, &own, &E));
    CHECK_OK(ceiba_producer_open(L(id), S(CONFIG), own, &E));
    CHECK_OK(ceiba_producer_send(L(id), S("x"), 0, NULL, &E));
    CHECK_OK(ceiba_producer_submit(L(id), S("x"), 0, 5, &E));
    ceiba_completions *batch = NULL;
    CHECK_OK(ceiba_queue_poll(own, 10, 5000, &batch, &E));
    CHECK(ceiba_completions_count(batch) == 1 && ceiba_completions_tokens(batch)[0] == 5);
    CHECK_OK(ceiba_producer_close(L(id), -1, &E));
    ceiba_completions_free(batch);
    ceiba_queue_free(own);
}

static void child(int depth) {
    within_seconds(30);
    // What is the parent's.
    CHECK_FAILS(CEIBA_ERR_FORKED, "fork", ceiba_producer_send(S("parent"), S("x"), 0, NULL, &E));
    CHECK_FAILS(CEIBA_ERR_FORKED, "fork", ceiba_producer_submit(S("parent"), S("x"), 0, 1, &E));
    CHECK_FAILS(CEIBA_ERR_FORKED, "fork", ceiba_producer_close(S("parent"), -1, &E));
    CHECK_FAILS(CEIBA_ERR_FORKED, "fork", ceiba_consumer_close(S("parent"), -1, &E));
    CHECK_FAILS(CEIBA_ERR_UNKNOWN_ID, "other", ceiba_producer_send(S("other"), S("x"), 0, NULL, &E));
    ceiba_completions *batch = NULL;
    CHECK_FAILS(CEIBA_ERR_FORKED, "fork", ceiba_queue_poll(queue, 10, 0, &batch, &E));
    CHECK_FAILS(CEIBA_ERR_FORKED, "fork", ceiba_queue_poll(queue, 10, -1, &batch, &E));
    CHECK_FAILS(CEIBA_ERR_FORKED, "fork", ceiba_queue_close(queue, &E));
    CHECK_FAILS(CEIBA_ERR_FORKED, "fork", ceiba_queue_set_callback(queue, NULL, NULL, NULL, &E));
    CHECK_FAILS(CEIBA_ERR_FORKED, "fork", ceiba_producer_open(S("own"), S(CONFIG), queue, &E));
    CHECK(ceiba_queue_fd(queue) == -1 && batch == NULL);
    CHECK_FAILS(CEIBA_ERR_FORKED, "fork", ceiba_broker_stop(broker, 100, &E));
    ceiba_broker_free(broker);
    ceiba_queue_free(queue);
    // What is its own, under the parent's id too.
    open_send_close("own");
    open_send_close("parent");
    if (depth > 0) {
        CHECK_OK(ceiba_producer_open(S("middle"), S(CONFIG), NULL, &E));
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) {
            CHECK_FAILS(CEIBA_ERR_FORKED, "fork", ceiba_producer_send(S("middle"), S("x"), 0, NULL, &E));
            open_send_close("middle");
            _exit(0);
        }
        int status = 1;
        CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
        CHECK_OK(ceiba_producer_send(S("middle"), S("x"), 0, NULL, &E));
    }
    CHECK_OK(ceiba_shutdown(1000, NULL, &E));
    _exit(0);
}

// Keeps the library's locks busy, so that forks come at bad moments.
static void *busy(void *unused) {
    (void)unused;
    ceiba_completions *batch = NULL;
    while (!atomic_load(&stop)) {
        CHECK(ceiba_producer_send(S("parent"), S("x"), 0, NULL, NULL) == CEIBA_OK);
        for (int i = 0; i < 50; i++) {
            CHECK(ceiba_producer_submit(S("parent"), S("x"), 0, 1, NULL) == CEIBA_OK);
        }
        for (size_t got = 0; got < 50; got += ceiba_completions_count(batch)) {
            CHECK(ceiba_queue_poll(queue, 100, 5000, &batch, NULL) == CEIBA_OK);
        }
    }
    ceiba_completions_free(batch);
    return NULL;
}

int main(void) {
    within_seconds(120);
    CHECK_OK(ceiba_log_set(count_log, NULL, NULL, CEIBA_LOG_INFO, &E));
    CHECK_OK(ceiba_queue_new(1000, &queue, &E));
    CHECK_OK(ceiba_producer_open(S("parent"), S(CONFIG), queue, &E));
    CHECK_OK(ceiba_consumer_open(S("parent"), S(CONFIG), &E));
    CHECK_OK(ceiba_broker_start(S("{\"secret_key\": \"s\"}"), &broker, &E));
    pthread_t worker;
    CHECK(pthread_create(&worker, NULL, busy, NULL) == 0);
    for (int round = 0; round < 20; round++) {
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) {
            child(round == 0);
        }
        int status = 1;
        CHECK(waitpid(pid, &status, 0) == pid);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    // The parent noticed nothing.
    atomic_store(&stop, true);
    CHECK(pthread_join(worker, NULL) == 0);
    struct pollfd watched = {.fd = ceiba_queue_fd(queue), .events = POLLIN};
    CHECK(poll(&watched, 1, 0) == 0);
    CHECK_OK(ceiba_producer_submit(S("parent"), S("x"), 0, 9, &E));
    CHECK(poll(&watched, 1, 5000) == 1);
    ceiba_completions *batch = NULL;
    CHECK_OK(ceiba_queue_poll(queue, 10, 5000, &batch, &E));
    CHECK(ceiba_completions_count(batch) == 1 && ceiba_completions_tokens(batch)[0] == 9);
    ceiba_completions_free(batch);
    CHECK_OK(ceiba_broker_stop(broker, -1, &E));
    ceiba_broker_free(broker);
    CHECK_OK(ceiba_producer_close(S("parent"), -1, &E));
    CHECK_OK(ceiba_consumer_close(S("parent"), -1, &E));
    ceiba_queue_free(queue);
    CHECK_OK(ceiba_log_set(NULL, NULL, NULL, 0, &E));
    return 0;
}
