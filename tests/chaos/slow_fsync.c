/* Preloaded into a server: before each fsync, waits as many milliseconds as the file named by
 * CHAOS_FSYNC_FILE says, or until it says something else if that is a negative number, and adds a
 * byte to that file's ".waited" sibling. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static long told(const char *name) {
    char text[32] = {0};
    int file = open(name, O_RDONLY | O_CLOEXEC);
    if (file < 0) return 0;
    ssize_t length = read(file, text, sizeof text - 1);
    close(file);
    return length > 0 ? strtol(text, NULL, 10) : 0;
}

static void pause_ms(long milliseconds) {
    struct timespec pause = {milliseconds / 1000, (milliseconds % 1000) * 1000000L};
    nanosleep(&pause, NULL);
}

static void wait_as_told(void) {
    const char *name = getenv("CHAOS_FSYNC_FILE");
    char sibling[4096];
    if (name == NULL) return;
    long milliseconds = told(name);
    if (milliseconds == 0 || milliseconds > 60000) return;
    if (milliseconds > 0) pause_ms(milliseconds);
    while (milliseconds < 0 && told(name) < 0) pause_ms(10);
    int file;
    if (snprintf(sibling, sizeof sibling, "%s.waited", name) >= (int)sizeof sibling) return;
    file = open(sibling, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (file < 0) return;
    if (write(file, ".", 1) != 1) { /* Only a count is lost. */ }
    close(file);
}

int fsync(int file) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    wait_as_told();
    return real(file);
}

int fdatasync(int file) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    wait_as_told();
    return real(file);
}
