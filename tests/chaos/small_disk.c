/* Preloaded into a server: the files below the directory SMALL_DISK_DIR are on a disk of SMALL_DISK_BYTES
 * bytes, of which somebody else takes as many as the file named by SMALL_DISK_TAKEN says. A write that
 * needs more than is left fails as on a full disk; one into blocks that a file has already does not. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define BLOCK 4096

static const char *directory(void) { return getenv("SMALL_DISK_DIR"); }

static int is_below(const char *path) {
    const char *dir = directory();
    size_t length = dir ? strlen(dir) : 0;
    return length > 0 && strncmp(path, dir, length) == 0 &&
           (path[length] == '/' || path[length] == 0);
}

static int is_on_disk(int file) {
    char link[64], path[PATH_MAX];
    if (!directory()) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return is_below(path);
}

static long long number_in(const char *name) {
    char text[32] = {0};
    int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return 0;
    ssize_t length = read(file, text, sizeof text - 1);
    close(file);
    return length > 0 ? strtoll(text, NULL, 10) : 0;
}

static long long used_below(int parent, const char *name, int depth) {
    int dir = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *list = dir < 0 ? NULL : fdopendir(dir);
    long long used = 0;
    if (!list) {
        if (dir >= 0) close(dir);
        return 0;
    }
    for (struct dirent *entry; (entry = readdir(list));) {
        struct stat found;
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        if (fstatat(dir, entry->d_name, &found, AT_SYMLINK_NOFOLLOW)) continue;
        used += (long long)found.st_blocks * 512;
        if (S_ISDIR(found.st_mode) && depth > 0) used += used_below(dir, entry->d_name, depth - 1);
    }
    closedir(list);
    return used;
}

static long long capacity(void) {
    const char *text = getenv("SMALL_DISK_BYTES");
    return text ? strtoll(text, NULL, 10) : 0;
}

static long long left(void) {
    int before = errno;
    long long used = used_below(AT_FDCWD, directory(), 8);
    long long free = capacity() - number_in(getenv("SMALL_DISK_TAKEN")) - used;
    errno = before;
    return free > 0 ? free : 0;
}

/* Whether a file may hold bytes up to `end`; it has the blocks, or there are some left. */
static int has_room(int file, long long end) {
    struct stat found;
    if (!is_on_disk(file) || fstat(file, &found) || !S_ISREG(found.st_mode)) return 1;
    long long missing = end - (long long)found.st_blocks * 512;
    if (missing <= 0 || missing <= left()) return 1;
    errno = ENOSPC;
    return 0;
}

#define REAL(name) \
    static __typeof__(name) *real; \
    if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

ssize_t write(int file, const void *bytes, size_t length) {
    REAL(write);
    if (directory() && is_on_disk(file)) {
        struct stat found;
        off_t at = lseek(file, 0, SEEK_CUR);
        if (fcntl(file, F_GETFL) & O_APPEND) at = fstat(file, &found) ? 0 : found.st_size;
        if (at >= 0 && !has_room(file, at + (long long)length)) return -1;
    }
    return real(file, bytes, length);
}

ssize_t pwrite(int file, const void *bytes, size_t length, off_t at) {
    REAL(pwrite);
    if (directory() && !has_room(file, at + (long long)length)) return -1;
    return real(file, bytes, length, at);
}

ssize_t pwrite64(int file, const void *bytes, size_t length, off64_t at) {
    REAL(pwrite64);
    if (directory() && !has_room(file, at + (long long)length)) return -1;
    return real(file, bytes, length, at);
}

int fallocate(int file, int mode, off_t at, off_t length) {
    REAL(fallocate);
    if (directory() && !has_room(file, at + length)) return -1;
    return real(file, mode, at, length);
}

int fallocate64(int file, int mode, off64_t at, off64_t length) {
    REAL(fallocate64);
    if (directory() && !has_room(file, at + length)) return -1;
    return real(file, mode, at, length);
}

int statvfs(const char *path, struct statvfs *found) {
    REAL(statvfs);
    int failed = real(path, found);
    if (failed || !directory() || !is_below(path)) return failed;
    found->f_bsize = found->f_frsize = BLOCK;
    found->f_blocks = capacity() / BLOCK;
    found->f_bfree = found->f_bavail = left() / BLOCK;
    return 0;
}

int statvfs64(const char *path, struct statvfs64 *found) {
    REAL(statvfs64);
    int failed = real(path, found);
    if (failed || !directory() || !is_below(path)) return failed;
    found->f_bsize = found->f_frsize = BLOCK;
    found->f_blocks = capacity() / BLOCK;
    found->f_bfree = found->f_bavail = left() / BLOCK;
    return 0;
}
