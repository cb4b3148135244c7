/* Measures ceiba from C and prints one line of JSON.
 *
 *   ceiba-bench-c --mode acked|e2e|submit [--addr HOST:PORT] [--topic T] [--clients N] [--size BYTES]
 *                 [--seconds S] [--limit MESSAGES]
 *
 * The secret is read from the environment variable CEIBA_SECRET. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench.h"

void fail(const char *what) {
  fprintf(stderr, "ceiba-bench-c: %s\n", what);
  exit(1);
}

void check(const char *what, int32_t code, ceiba_error *error) {
  if (code == CEIBA_OK) return;
  ceiba_slice text = ceiba_error_message(error);
  fprintf(stderr, "ceiba-bench-c: %s: %.*s\n", what, (int)text.len, (const char *)text.data);
  exit(1);
}

static double seconds_of(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

double now(void) { return seconds_of(CLOCK_MONOTONIC); }
double cpu(void) { return seconds_of(CLOCK_PROCESS_CPUTIME_ID); }

size_t broker_config(const settings *s, char *text, size_t room) {
  int length = snprintf(text, room,
                        "{\"provider\": {\"type\": \"kapokmq\", \"url\": \"ws://%s\", \"topic\": \"%s\","
                        " \"secret_key\": {\"env\": \"CEIBA_SECRET\"}}}",
                        s->addr, s->topic);
  if (length < 0 || (size_t)length >= room) fail("the address or the topic is too long");
  return (size_t)length;
}

void print_line(const settings *s, uint64_t messages, double seconds, double cpu_seconds, const uint64_t *duplicates) {
  printf("{\"name\": \"c\", \"mode\": \"%s\", \"clients\": %d, \"size\": %zu, \"messages\": %llu, \"seconds\": %.6f,"
         " \"cpu_seconds\": %.6f, \"rate\": %.1f",
         s->mode, s->clients, s->size, (unsigned long long)messages, seconds, cpu_seconds, (double)messages / seconds);
  if (duplicates) printf(", \"duplicates\": %llu", (unsigned long long)*duplicates);
  printf("}\n");
}

static void run_acked(const settings *s) {
  open_producers(s);
  double used = cpu(), start = now();
  produced p = produce(s, start, false);
  print_line(s, p.sent, p.end - start, cpu() - used, NULL);
}

static void run_e2e(const settings *s) {
  open_producers(s);
  start_consumers(s);
  double used = cpu(), start = now();
  produced p = produce(s, start, true);
  uint64_t duplicates;
  double end = finish_consumers(s, p.sent, &duplicates);
  print_line(s, p.sent, end - start, cpu() - used, &duplicates);
}

int main(int argc, char **argv) {
  settings s = {.mode = "acked", .addr = "127.0.0.1:8011", .topic = "bench", .clients = 1, .size = 100, .seconds = 2};
  for (int i = 1; i < argc; i += 2) {
    const char *name = argv[i], *value = argv[i + 1];
    if (!value) fail("an option needs a value");
    if (!strcmp(name, "--mode")) s.mode = value;
    else if (!strcmp(name, "--addr")) s.addr = value;
    else if (!strcmp(name, "--topic")) s.topic = value;
    else if (!strcmp(name, "--clients")) s.clients = atoi(value);
    else if (!strcmp(name, "--size")) s.size = strtoull(value, NULL, 10);
    else if (!strcmp(name, "--seconds")) s.seconds = atof(value);
    else if (!strcmp(name, "--limit")) s.limit = strtoull(value, NULL, 10);
    else fail("an unknown option");
  }
  if (s.clients < 1 || s.clients > MAX_CLIENTS) fail("--clients is 1 to 64");
  if (!strcmp(s.mode, "acked")) run_acked(&s);
  else if (!strcmp(s.mode, "e2e")) run_e2e(&s);
  else if (!strcmp(s.mode, "submit")) run_submit(&s);
  else fail("--mode is acked, e2e or submit");
  check("shutdown", ceiba_shutdown(5000, NULL, NULL), NULL);
  return 0;
}
