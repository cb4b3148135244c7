// What one submit of 100 bytes by id costs: bursts of 1024, timed alone; completions are polled in between.
// bench_submit [BURSTS]: prints nanoseconds per call over all bursts.
#include "check.h"

enum { BURST = 1024 };

static int compare(const void *a, const void *b) {
    double left = *(const double *)a, right = *(const double *)b;
    return (left > right) - (left < right);
}

int main(int argc, char **argv) {
    static const char CONFIG[] = "{\"provider\": {\"type\": \"memory\", \"topic\": \"x\", \"discard\": true}}";
    size_t bursts = argc > 1 ? strtoul(argv[1], NULL, 10) : 2000;
    if (bursts == 0) {
        fprintf(stderr, "usage: bench_submit [BURSTS]\n");
        return 2;
    }
    ceiba_queue *queue = NULL;
    CHECK_OK(ceiba_queue_new(BURST * 4, &queue, &E));
    CHECK_OK(ceiba_producer_open(S("orders"), S(CONFIG), queue, &E));
    char body[100];
    memset(body, 'b', sizeof body);
    double *times = malloc(bursts * sizeof *times);
    CHECK(times != NULL);
    ceiba_completions *batch = NULL;
    for (size_t burst = 0; burst < bursts; burst++) {
        double start = now_seconds();
        for (uint64_t i = 0; i < BURST; i++) {
            int32_t code = ceiba_producer_submit(S("orders"), body, sizeof body, 0, i, NULL);
            CHECK(code == CEIBA_OK);
        }
        times[burst] = (now_seconds() - start) * 1e9 / BURST;
        size_t got = 0;
        while (got < BURST) {
            CHECK_OK(ceiba_queue_poll(queue, BURST, 1000, &batch, &E));
            got += ceiba_completions_count(batch);
        }
    }
    double total = 0;
    for (size_t i = 0; i < bursts; i++) {
        total += times[i];
    }
    qsort(times, bursts, sizeof *times, compare);
    printf("submit of 100 B by id, %zu bursts of %d, ns per call: p50 %.1f, p90 %.1f, p99 %.1f, mean %.1f\n", bursts,
           BURST, times[bursts / 2], times[bursts * 9 / 10], times[bursts * 99 / 100], total / (double)bursts);
    free(times);
    ceiba_completions_free(batch);
    CHECK_OK(ceiba_producer_close(S("orders"), -1, &E));
    ceiba_queue_free(queue);
    return 0;
}
