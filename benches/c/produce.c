/* Producers: each has an id, a connection, a completion queue and a thread. */
#include <stdlib.h>
#include <string.h>

#include "bench.h"

enum {
  OUTSTANDING = 8192, /* submits that one producer may have under way */
  BURST = 256         /* submits between two looks at the completions */
};

typedef struct {
  const settings *s;
  char id[32];
  size_t id_len;
  int index;
  bool labelled;
  double until;
  uint64_t limit, sent;
  double end;
  ceiba_queue *queue;
  ceiba_completions *batch;
  pthread_t thread;
} producer;

static producer producers[MAX_CLIENTS];

void open_producers(const settings *s) {
  char config[1024];
  size_t length = broker_config(s, config, sizeof config);
  for (int i = 0; i < s->clients; i++) {
    producer *p = &producers[i];
    ceiba_error *error = NULL;
    p->s = s;
    p->index = i;
    p->id_len = (size_t)snprintf(p->id, sizeof p->id, "bench-p%d", i);
    check("a queue", ceiba_queue_new(OUTSTANDING, &p->queue, &error), error);
    check("a producer", ceiba_producer_open(p->id, p->id_len, config, length, p->queue, &error), error);
  }
}

static uint64_t completions(producer *p, int64_t timeout_ms) {
  ceiba_error *error = NULL;
  check("a poll", ceiba_queue_poll(p->queue, SIZE_MAX, timeout_ms, &p->batch, &error), error);
  size_t count = ceiba_completions_count(p->batch);
  if (count == 0 && timeout_ms > 0) fail("the broker stalled");
  const int32_t *codes = ceiba_completions_codes(p->batch);
  for (size_t i = 0; i < count; i++)
    if (codes[i] != CEIBA_OK) check("a send", codes[i], (ceiba_error *)ceiba_completions_error(p->batch, i));
  return count;
}

static void *run(void *argument) {
  producer *p = argument;
  size_t size = p->s->size < 32 ? 32 : p->s->size, length = p->s->size;
  char *body = malloc(size + 1);
  if (!body) fail("no memory");
  memset(body, 'x', size);
  uint64_t sent = 0, ended = 0;
  while (sent < p->limit && now() < p->until) {
    for (int i = 0; i < BURST && sent < p->limit; i++) {
      if (p->labelled) {
        int front = snprintf(body, size, "%d-%llu ", p->index, (unsigned long long)sent);
        body[front] = 'x';
        length = p->s->size > (size_t)front ? p->s->size : (size_t)front;
      }
      ceiba_error *error = NULL;
      check("a submit", ceiba_producer_submit(p->id, p->id_len, body, length, 0, sent, &error), error);
      sent++;
    }
    ended += completions(p, 0);
    while (sent - ended + BURST > OUTSTANDING) ended += completions(p, STALLED_MS);
  }
  while (ended < sent) ended += completions(p, STALLED_MS);
  p->end = now();
  p->sent = sent;
  ceiba_completions_free(p->batch);
  free(body);
  return NULL;
}

produced produce(const settings *s, double start, bool labelled) {
  produced all = {0, start};
  for (int i = 0; i < s->clients; i++) {
    producer *p = &producers[i];
    p->until = start + s->seconds;
    p->labelled = labelled;
    p->limit = s->limit ? s->limit / (uint64_t)s->clients : UINT64_MAX;
    if (pthread_create(&p->thread, NULL, run, p)) fail("no thread");
  }
  for (int i = 0; i < s->clients; i++) {
    pthread_join(producers[i].thread, NULL);
    all.sent += producers[i].sent;
    if (producers[i].end > all.end) all.end = producers[i].end;
  }
  return all;
}
