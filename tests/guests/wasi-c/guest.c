// A state machine in C on top of wasi-libc, which uses whatever of WASI a C program uses:
// printf and fprintf, malloc and free, time, clock_gettime, getentropy, rand, nanosleep, getenv,
// fopen. All of it must be the same on every replica.
//
// The state is a linked list of strings on the heap. The first byte of a command decides:
//   + text   append a copy of the text
//   -        free the oldest (rejected if there is none)
//   t        append what the clocks say, before and after sleeping for an hour
//   r        append eight random bytes and one of rand(), in hexadecimal
//   p text   print the text to stdout and stderr
//   f        append what became of opening a file, and of reading the environment
//   a        abort
//   e        exit
//   l        loop for ever
//   z        read far outside of the memory
// A query answers the list, one string per line; one that begins with a command letter scribbles first.
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ABI(name) __attribute__((import_module("raft_fsm_v1"), import_name(name)))
#define EXPORT(name) __attribute__((export_name(name)))

ABI("read") uint32_t host_read(void *ptr, uint32_t cap);
ABI("write") void host_write(const void *ptr, uint32_t len);

EXPORT("raft_fsm_abi_v1") void abi_marker(void) {}

struct item {
  struct item *next;
  uint32_t len;
  char text[];
};

static struct item *first;
static struct item **last = &first;
static uint64_t sum;

static void append(const char *text, uint32_t len) {
  struct item *item = malloc(sizeof *item + len);
  if (item == NULL)
    abort();
  item->next = NULL;
  item->len = len;
  memcpy(item->text, text, len);
  *last = item;
  last = &item->next;
  for (uint32_t i = 0; i < len; i++)
    sum = sum * 31 + (uint8_t)text[i];
}

static int pop(void) {
  struct item *item = first;
  if (item == NULL)
    return 0;
  first = item->next;
  if (first == NULL)
    last = &first;
  free(item);
  return 1;
}

static void append_clocks(void) {
  struct timespec before, after, hour = {.tv_sec = 3600, .tv_nsec = 1};
  char text[160];
  clock_gettime(CLOCK_REALTIME, &before);
  nanosleep(&hour, NULL);
  clock_gettime(CLOCK_MONOTONIC, &after);
  time_t now = time(NULL);
  struct tm *utc = gmtime(&now);
  int len = snprintf(text, sizeof text, "%lld.%09ld %lld.%09ld %04d-%02d-%02d",
                     (long long)before.tv_sec, before.tv_nsec, (long long)after.tv_sec,
                     after.tv_nsec, utc->tm_year + 1900, utc->tm_mon + 1, utc->tm_mday);
  append(text, (uint32_t)len);
}

static void append_random(void) {
  uint64_t random = 0;
  char text[64];
  if (getentropy(&random, sizeof random) != 0)
    abort();
  srand((unsigned)random);
  int len = snprintf(text, sizeof text, "%016llx %02x %.3f", (unsigned long long)random,
                     (unsigned)rand() & 255, (double)(random >> 11) / 9007199254740992.0);
  append(text, (uint32_t)len);
}

static void append_files(void) {
  char text[160];
  FILE *file = fopen("/etc/passwd", "r");
  int failed = errno;
  const char *home = getenv("HOME");
  int end = fgetc(stdin);
  int len = snprintf(text, sizeof text, "open %s %d, HOME %s, stdin %d",
                     file == NULL ? "failed" : "worked", failed, home == NULL ? "unset" : home, end);
  append(text, (uint32_t)len);
}

// -1 if the command means nothing.
static int run(char op, const char *text, uint32_t len) {
  switch (op) {
  case '+': append(text, len); return 1;
  case '-': return pop();
  case 't': append_clocks(); return 1;
  case 'r': append_random(); return 1;
  case 'p':
    printf("%.*s\n", (int)len, text);
    fprintf(stderr, "%u bytes were printed\n", (unsigned)len);
    return 1;
  case 'f': append_files(); return 1;
  case 'a': abort();
  case 'e': exit(3);
  case 'l': for (volatile uint64_t i = 0;; i++) {}
  case 'z': return *(volatile char *)0x7fff0000;
  default: return -1;
  }
}

static char *take(uint32_t len) {
  char *input = malloc(len + 1);
  if (input == NULL)
    abort();
  for (uint32_t at = 0; at < len;)
    at += host_read(input + at, len - at);
  input[len] = 0;
  return input;
}

static int refuse(const char *reason) {
  host_write(reason, strlen(reason));
  return 1;
}

EXPORT("apply") int32_t apply(uint32_t len) {
  char *input = take(len);
  int done = len == 0 ? -1 : run(input[0], input + 1, len - 1);
  free(input);
  if (done < 0)
    return refuse("unknown command");
  if (done == 0)
    return refuse("nothing there");
  char answer[32];
  host_write(answer, (uint32_t)snprintf(answer, sizeof answer, "%016llx", (unsigned long long)sum));
  return 0;
}

EXPORT("query") int32_t query(uint32_t len) {
  char *input = take(len);
  if (len > 0)
    run(input[0], input + 1, len - 1);
  for (struct item *item = first; item != NULL; item = item->next) {
    host_write(item->text, item->len);
    host_write("\n", 1);
  }
  free(input);
  return 0;
}

// magic, sum, then every string with its length.
EXPORT("snapshot") int32_t snapshot(void) {
  host_write("WASIC1\n", 7);
  host_write(&sum, sizeof sum);
  for (struct item *item = first; item != NULL; item = item->next) {
    host_write(&item->len, sizeof item->len);
    host_write(item->text, item->len);
  }
  return 0;
}

EXPORT("restore") int32_t restore(uint32_t len) {
  if (len < 15)
    return refuse("too short");
  char *input = take(len);
  if (memcmp(input, "WASIC1\n", 7) != 0)
    return refuse("no snapshot of this guest");
  uint64_t restored;
  memcpy(&restored, input + 7, sizeof restored);
  for (uint32_t at = 15; at < len;) {
    uint32_t item_len;
    if (len - at < sizeof item_len)
      return refuse("cut off");
    memcpy(&item_len, input + at, sizeof item_len);
    at += sizeof item_len;
    if (len - at < item_len)
      return refuse("cut off");
    append(input + at, item_len);
    at += item_len;
  }
  sum = restored;
  free(input);
  return 0;
}
