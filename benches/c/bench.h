/* What the parts of the C measurements share. */
#ifndef CEIBA_BENCH_H
#define CEIBA_BENCH_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "ceiba.h"

enum { MAX_CLIENTS = 64, STALLED_MS = 60000 };

typedef struct {
  const char *mode, *addr, *topic;
  int clients;
  size_t size;
  double seconds;
  uint64_t limit; /* messages at most; 0 for no limit */
} settings;

/* Prints what went wrong and ends the program: a failed measurement has no result. */
_Noreturn void fail(const char *what);
/* Does so when a call failed. */
void check(const char *what, int32_t code, ceiba_error *error);

/* Seconds of a clock that only goes forward; seconds of processor time of this process. */
double now(void);
double cpu(void);

/* The JSON config of a client of the broker in the settings; returns its length. */
size_t broker_config(const settings *s, char *text, size_t room);

/* What one producer did. */
typedef struct {
  uint64_t sent;
  double end;
} produced;

/* Runs all producers, each on its thread, until every send has its receipt. */
produced produce(const settings *s, double start, bool labelled);
void open_producers(const settings *s);

/* Consumers that acknowledge what they receive, each on its thread. */
void start_consumers(const settings *s);
/* Waits until `sent` different messages have been acknowledged; tells when, and how many came twice. */
double finish_consumers(const settings *s, uint64_t sent, uint64_t *duplicates);

void print_line(const settings *s, uint64_t messages, double seconds, double cpu_seconds, const uint64_t *duplicates);
void run_submit(const settings *s);

#endif
