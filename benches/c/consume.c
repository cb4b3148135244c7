/* Consumers: each has an id, a connection and a thread, and acknowledges all it receives. */
#include <stdlib.h>
#include <string.h>

#include "bench.h"

enum { BATCH = 1024, PAUSE_MS = 20 };

typedef struct {
  char id[32];
  size_t id_len;
  pthread_t thread;
} consumer;

/* One bit for each message of a producer, grown as numbers come. */
typedef struct {
  uint8_t *bits;
  size_t room;
} seen;

static consumer consumers[MAX_CLIENTS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static seen by_label[MAX_CLIENTS];
static uint64_t distinct, again;
static double last;
static _Atomic uint64_t target = UINT64_MAX;

/* Whether the message is new. Under the lock. */
static bool note(const char *body, size_t length) {
  char text[64] = {0};
  memcpy(text, body, length < sizeof text ? length : sizeof text - 1);
  unsigned label;
  unsigned long long number;
  if (sscanf(text, "%u-%llu ", &label, &number) != 2 || label >= MAX_CLIENTS) fail("a body that was not sent");
  seen *of = &by_label[label];
  size_t place = number / 8;
  if (place >= of->room) {
    size_t room = (place + 1) * 2;
    of->bits = realloc(of->bits, room);
    if (!of->bits) fail("no memory");
    memset(of->bits + of->room, 0, room - of->room);
    of->room = room;
  }
  uint8_t bit = (uint8_t)(1u << number % 8);
  bool fresh = !(of->bits[place] & bit);
  of->bits[place] |= bit;
  return fresh;
}

static bool over(void) {
  pthread_mutex_lock(&lock);
  bool all = distinct >= atomic_load(&target);
  pthread_mutex_unlock(&lock);
  return all;
}

static void *run(void *argument) {
  consumer *c = argument;
  double heard = now();
  ceiba_slice codes[BATCH];
  while (!over()) {
    ceiba_deliveries *list = NULL;
    ceiba_error *error = NULL;
    check("receive", ceiba_consumer_receive(c->id, c->id_len, BATCH, PAUSE_MS, &list, &error), error);
    size_t count = ceiba_deliveries_count(list);
    if (count == 0) {
      if (now() - heard > STALLED_MS / 1000.0) fail("nothing was delivered for a minute");
      ceiba_deliveries_free(list);
      continue;
    }
    heard = now();
    for (size_t i = 0; i < count; i++) codes[i] = ceiba_deliveries_code(list, i);
    ceiba_results *results = NULL;
    check("ack", ceiba_consumer_ack_many(c->id, c->id_len, codes, count, &results, &error), error);
    for (size_t i = 0; i < count; i++)
      if (ceiba_results_code(results, i) != CEIBA_OK) fail("an ack failed");
    ceiba_results_free(results);
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < count; i++) {
      ceiba_slice body = ceiba_deliveries_body(list, i);
      if (note((const char *)body.data, body.len)) distinct++;
      else again++;
    }
    last = now();
    pthread_mutex_unlock(&lock);
    ceiba_deliveries_free(list);
  }
  return NULL;
}

void start_consumers(const settings *s) {
  char config[1024];
  size_t length = broker_config(s, config, sizeof config);
  for (int i = 0; i < s->clients; i++) {
    consumer *c = &consumers[i];
    ceiba_error *error = NULL;
    c->id_len = (size_t)snprintf(c->id, sizeof c->id, "bench-c%d", i);
    check("a consumer", ceiba_consumer_open(c->id, c->id_len, config, length, &error), error);
    if (pthread_create(&c->thread, NULL, run, c)) fail("no thread");
  }
}

double finish_consumers(const settings *s, uint64_t sent, uint64_t *duplicates) {
  atomic_store(&target, sent);
  for (int i = 0; i < s->clients; i++) pthread_join(consumers[i].thread, NULL);
  *duplicates = again;
  return last;
}
