/* What a submit by id costs its caller: bursts into a producer that accepts and forgets, with its task on
 * another core. Taking the completions is not timed. */
#define _GNU_SOURCE
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"

enum { BURST = 1024, WARM_UP = 100, REST_US = 200, MAX_SAMPLES = 1 << 20 };

static void pin(int core) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(core, &set);
  if (sched_setaffinity(0, sizeof set, &set)) fail("the thread could not be bound to a core");
}

/* The first two cores that this process may use. */
static void choose(int cores[2]) {
  cpu_set_t set;
  int found = 0;
  if (sched_getaffinity(0, sizeof set, &set)) fail("the cores could not be read");
  for (int core = 0; core < CPU_SETSIZE && found < 2; core++)
    if (CPU_ISSET(core, &set)) cores[found++] = core;
  if (found < 2) fail("the measurement needs two cores");
}

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

void run_submit(const settings *s) {
  static const char config[] = "{\"provider\": {\"type\": \"memory\", \"topic\": \"bench\", \"discard\": true}}";
  int cores[2];
  choose(cores);
  ceiba_error *error = NULL;
  ceiba_queue *queue = NULL;
  /* Threads inherit the core of the one that starts them. */
  pin(cores[1]);
  check("workers", ceiba_runtime_set_workers(1, &error), error);
  check("a queue", ceiba_queue_new(BURST, &queue, &error), error);
  check("a producer", ceiba_producer_open("bench", 5, config, sizeof config - 1, queue, &error), error);
  pin(cores[0]);

  char *body = malloc(s->size + 1);
  double *samples = malloc(MAX_SAMPLES * sizeof *samples);
  if (!body || !samples) fail("no memory");
  memset(body, 'x', s->size);
  ceiba_completions *batch = NULL;
  size_t count = 0, bursts = 0;
  double until = now() + s->seconds;
  while (count == 0 || (now() < until && count < MAX_SAMPLES)) {
    int32_t failed = 0;
    double start = now();
    for (uint64_t token = 0; token < BURST; token++)
      failed |= ceiba_producer_submit("bench", 5, body, s->size, 0, token, NULL);
    double took = now() - start;
    if (failed) fail("a submit was refused");
    if (++bursts > WARM_UP) samples[count++] = took * 1e9 / BURST;
    for (size_t ended = 0; ended < BURST;) {
      check("a poll", ceiba_queue_poll(queue, BURST, STALLED_MS, &batch, &error), error);
      size_t taken = ceiba_completions_count(batch);
      if (taken == 0) fail("a completion did not come");
      ended += taken;
    }
    usleep(REST_US);
  }
  qsort(samples, count, sizeof *samples, by_value);
  printf("{\"name\": \"c\", \"mode\": \"submit\", \"size\": %zu, \"messages\": %zu, \"ns_min\": %.1f,"
         " \"ns_median\": %.1f, \"ns_p90\": %.1f}\n",
         s->size, count * BURST, samples[0], samples[count / 2], samples[count * 9 / 10]);
  ceiba_completions_free(batch);
  free(samples);
  free(body);
}
