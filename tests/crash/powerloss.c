/* Loss of power, for tests: keeps beside each file below $POWERLOSS_ROOT a shadow below $POWERLOSS_SHADOW
 * that holds only what was synced. After a kill the shadow is what a disk would hold that lost every write
 * since the last fsync. Preloaded in front of the C library; build:
 *     cc -shared -fPIC -O2 -o powerloss.so powerloss.c -ldl
 *
 * Writes are noted as dirty ranges per inode; fsync and fdatasync first sync the real file, then copy its
 * dirty ranges into the shadow. Memory-mapped writes are not seen (SQLite maps only its -shm index, which it
 * rebuilds). Unlink and rename act on the shadow at once.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define FILES 256
#define RANGES 65536

struct range { off_t start, end; };
struct dirty { dev_t dev; ino_t ino; int whole; size_t count, room; struct range *ranges; };

static struct dirty table[FILES];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

/* The path of FD relative to the root, or 0 when it is not below it. */
static int relative_path(int fd, char *out, size_t size) {
    const char *root = getenv("POWERLOSS_ROOT");
    char link[64], path[PATH_MAX];
    if (!root) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    size_t prefix = strlen(root);
    if (strncmp(path, root, prefix) != 0 || path[prefix] != '/') return 0;
    snprintf(out, size, "%s", path + prefix + 1);
    return 1;
}

static int shadow_of(const char *path, char *out, size_t size) {
    const char *root = getenv("POWERLOSS_ROOT"), *shadow = getenv("POWERLOSS_SHADOW");
    char full[PATH_MAX];
    if (!root || !shadow) return 0;
    if (path[0] == '/') snprintf(full, sizeof full, "%s", path);
    else if (!realpath(path, full)) return 0;
    size_t prefix = strlen(root);
    if (strncmp(full, root, prefix) != 0 || full[prefix] != '/') return 0;
    snprintf(out, size, "%s/%s", shadow, full + prefix + 1);
    return 1;
}

static struct dirty *entry_of(int fd) {
    struct stat status;
    char path[PATH_MAX];
    if (!relative_path(fd, path, sizeof path) || fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) return NULL;
    struct dirty *free_slot = NULL;
    for (int i = 0; i < FILES; i++) {
        if (table[i].dev == status.st_dev && table[i].ino == status.st_ino) return &table[i];
        if (!table[i].ino && !free_slot) free_slot = &table[i];
    }
    if (free_slot) {
        free_slot->dev = status.st_dev;
        free_slot->ino = status.st_ino;
        free_slot->whole = 1; /* what it held before we looked */
    }
    return free_slot;
}

static void note(int fd, off_t start, size_t length) {
    int saved = errno;
    pthread_mutex_lock(&lock);
    struct dirty *entry = entry_of(fd);
    if (entry && !entry->whole) {
        if (entry->count && entry->ranges[entry->count - 1].end == start) {
            entry->ranges[entry->count - 1].end = start + (off_t)length;
        } else if (entry->count == RANGES) {
            entry->whole = 1;
        } else {
            if (entry->count == entry->room) {
                entry->room = entry->room ? entry->room * 2 : 64;
                entry->ranges = realloc(entry->ranges, entry->room * sizeof *entry->ranges);
            }
            entry->ranges[entry->count++] = (struct range){start, start + (off_t)length};
        }
    }
    pthread_mutex_unlock(&lock);
    errno = saved;
}

static void make_parents(char *path) {
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        mkdir(path, 0700);
        *slash = '/';
    }
}

static void copy_range(int from, int to, off_t start, off_t end) {
    static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
    static char buffer[1 << 16];
    if (!real_pwrite) real_pwrite = real("pwrite64");
    while (start < end) {
        size_t want = (size_t)(end - start) < sizeof buffer ? (size_t)(end - start) : sizeof buffer;
        ssize_t got = pread(from, buffer, want, start);
        if (got <= 0) return;
        real_pwrite(to, buffer, (size_t)got, start);
        start += got;
    }
}

static void synced(int fd) {
    static int (*real_open)(const char *, int, ...);
    static int (*real_close)(int);
    static int (*real_truncate)(int, off_t);
    char relative[PATH_MAX], path[2 * PATH_MAX], source[64];
    struct stat status;
    int saved = errno;
    if (!real_open) real_open = real("open64"), real_close = real("close"), real_truncate = real("ftruncate64");
    pthread_mutex_lock(&lock);
    struct dirty *entry = entry_of(fd);
    if (entry && getenv("POWERLOSS_SHADOW") && relative_path(fd, relative, sizeof relative) && fstat(fd, &status) == 0) {
        snprintf(path, sizeof path, "%s/%s", getenv("POWERLOSS_SHADOW"), relative);
        make_parents(path);
        snprintf(source, sizeof source, "/proc/self/fd/%d", fd);
        int from = real_open(source, O_RDONLY | O_CLOEXEC);
        int to = real_open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        if (from >= 0 && to >= 0) {
            if (entry->whole) copy_range(from, to, 0, status.st_size);
            else for (size_t i = 0; i < entry->count; i++) copy_range(from, to, entry->ranges[i].start, entry->ranges[i].end);
            real_truncate(to, status.st_size);
            entry->whole = 0;
            entry->count = 0;
        }
        if (from >= 0) real_close(from);
        if (to >= 0) real_close(to);
    }
    pthread_mutex_unlock(&lock);
    errno = saved;
}

#define PWRITE(name) \
    ssize_t name(int fd, const void *data, size_t length, off_t start) { \
        static ssize_t (*next)(int, const void *, size_t, off_t); \
        if (!next) next = real(#name); \
        ssize_t done = next(fd, data, length, start); \
        if (done > 0) note(fd, start, (size_t)done); \
        return done; \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

ssize_t write(int fd, const void *data, size_t length) {
    static ssize_t (*next)(int, const void *, size_t);
    if (!next) next = real("write");
    ssize_t done = next(fd, data, length);
    if (done > 0) {
        int saved = errno;
        off_t end = lseek(fd, 0, SEEK_CUR);
        if (end >= done) note(fd, end - done, (size_t)done);
        errno = saved;
    }
    return done;
}

#define TRUNCATE(name) \
    int name(int fd, off_t size) { \
        static int (*next)(int, off_t); \
        if (!next) next = real(#name); \
        int done = next(fd, size); \
        if (done == 0) note(fd, size, 0); \
        return done; \
    }
TRUNCATE(ftruncate)
TRUNCATE(ftruncate64)

#define SYNC(name) \
    int name(int fd) { \
        static int (*next)(int); \
        if (!next) next = real(#name); \
        int done = next(fd); \
        if (done == 0) synced(fd); \
        return done; \
    }
SYNC(fsync)
SYNC(fdatasync)

int unlink(const char *path) {
    static int (*next)(const char *);
    char shadow[2 * PATH_MAX];
    if (!next) next = real("unlink");
    int known = shadow_of(path, shadow, sizeof shadow);
    int done = next(path);
    if (done == 0 && known) { int saved = errno; next(shadow); errno = saved; }
    return done;
}

int rename(const char *from, const char *to) {
    static int (*next)(const char *, const char *);
    char shadow_from[2 * PATH_MAX], shadow_to[2 * PATH_MAX];
    if (!next) next = real("rename");
    int known = shadow_of(from, shadow_from, sizeof shadow_from);
    int done = next(from, to);
    if (done == 0 && known && shadow_of(to, shadow_to, sizeof shadow_to)) {
        int saved = errno;
        next(shadow_from, shadow_to);
        errno = saved;
    }
    return done;
}
