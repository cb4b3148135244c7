// Counts the lines of a file: how often each was acknowledged and received. Lines may be alike, so they are
// counted by their content.
#ifndef TALLY_H
#define TALLY_H

#include <ceiba.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Lines with this content. One thread counts what was acknowledged, another what was received.
struct content {
    ceiba_slice body;
    size_t sent, acknowledged, received;
};

struct tally {
    char *text;
    ceiba_slice *lines;
    size_t *place;              // of each line's content in the table
    size_t count;
    struct content *table;      // open addressing; free places have sent 0
    size_t mask;
    size_t unexpected;
};

struct verdict {
    size_t lost, duplicates, unexpected;
};

static size_t tally_place(const struct tally *tally, ceiba_slice body) {
    uint64_t hash = 1469598103934665603u;
    for (size_t i = 0; i < body.len; i++) hash = (hash ^ body.data[i]) * 1099511628211u;
    size_t place = (size_t)(hash ^ hash >> 32) & tally->mask;
    for (;; place = (place + 1) & tally->mask) {
        const struct content *content = &tally->table[place];
        if (content->sent == 0) return place;
        if (content->body.len == body.len && (body.len == 0 || memcmp(content->body.data, body.data, body.len) == 0)) {
            return place;
        }
    }
}

static void tally_received(struct tally *tally, ceiba_slice body) {
    struct content *content = &tally->table[tally_place(tally, body)];
    if (content->sent == 0) tally->unexpected++;
    else content->received++;
}

static void tally_acknowledged(struct tally *tally, size_t line) {
    tally->table[tally->place[line]].acknowledged++;
}

static struct verdict tally_verdict(const struct tally *tally) {
    struct verdict verdict = {0, 0, tally->unexpected};
    for (size_t i = 0; i <= tally->mask; i++) {
        const struct content *content = &tally->table[i];
        if (content->received < content->acknowledged) verdict.lost += content->acknowledged - content->received;
        if (content->received > content->sent) verdict.duplicates += content->received - content->sent;
    }
    return verdict;
}

static void tally_free(struct tally *tally) {
    free(tally->text);
    free(tally->lines);
    free(tally->place);
    free(tally->table);
}

// The whole of a file; NULL with errno when it cannot be read.
static char *tally_load(const char *path, size_t *length) {
    FILE *file = fopen(path, "rb");
    size_t room = 1 << 16, used = 0;
    char *text = file ? malloc(room) : NULL;
    while (text != NULL) {
        size_t part = fread(text + used, 1, room - used, file);
        used += part;
        if (used < room) {
            if (!ferror(file)) break;
            free(text);
            text = NULL;
        } else {
            char *larger = realloc(text, room *= 2);
            if (larger == NULL) free(text);
            text = larger;
        }
    }
    if (file) fclose(file);
    *length = used;
    return text;
}

// Reads the file and counts its lines; false with errno when that fails.
static bool tally_read(struct tally *tally, const char *path) {
    size_t length, slots = 2;
    tally->text = tally_load(path, &length);
    if (tally->text == NULL) return false;
    for (size_t i = 0; i < length; i++) tally->count += tally->text[i] == '\n';
    if (length > 0 && tally->text[length - 1] != '\n') tally->count++;
    while (slots < tally->count * 2) slots *= 2;
    tally->mask = slots - 1;
    tally->lines = calloc(tally->count + 1, sizeof *tally->lines);
    tally->place = calloc(tally->count + 1, sizeof *tally->place);
    tally->table = calloc(slots, sizeof *tally->table);
    if (!tally->lines || !tally->place || !tally->table) {
        tally_free(tally);
        return false;
    }
    const char *from = tally->text, *end = tally->text + length;
    for (size_t i = 0; i < tally->count; i++) {
        const char *to = memchr(from, '\n', (size_t)(end - from));
        if (to == NULL) to = end;
        ceiba_slice line = {(const uint8_t *)from, (size_t)(to - from)};
        size_t place = tally_place(tally, line);
        tally->lines[i] = line;
        tally->place[i] = place;
        tally->table[place].body = line;
        tally->table[place].sent++;
        from = to + 1;
    }
    return true;
}

#endif
