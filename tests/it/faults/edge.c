/* The edge between a node and its files, for tests: loaded into a real node with LD_PRELOAD.
 *
 * It stands before the calls of the C library that SQLite and Rust make on files below FAULTS_ROOT. Steered
 * by numbers in the file FAULTS_CONTROL, it lets calls fail before or after their effect, plays a disk of
 * limited size or one that is read-only, and moves the wall clock. Into FAULTS_TRACE it writes, in one order,
 * what was done to files and what was sent on sockets; a test plays that back as far as it likes.
 * The index beside a write-ahead log (-shm) is left alone: it is memory, made anew after a crash.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* Numbers of the control file, each 8 bytes; the test has the same list. */
enum { CLOCK_MS, KINDS, FIRST, COUNT, ERRNO, MODE, SEEN, HITS, BUDGET, READ_ONLY, SLOTS };
enum { WRITE = 1, SYNC = 2, READ = 4, OPEN = 8, TRUNCATE = 16, REMOVE = 32, RENAME = 64, MKDIR = 128 };
enum { BEFORE, AFTER, HALF };

#define FDS 65536
static struct tracked { char kind; uint64_t file; char *path; } fds[FDS]; /* kind: 0, 'f' or 'd' */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static volatile int64_t *control;
static const char *root;
static size_t root_length;
static int trace = -1;

#define REAL(name) ((__typeof__(&name))real(#name))
static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

static int (*real_open)(const char *, int, ...);
static int (*real_close)(int);
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static ssize_t (*real_read)(int, void *, size_t);
static ssize_t (*real_pread)(int, void *, size_t, off_t);

__attribute__((constructor)) static void begin(void) {
    if (real_open) return;
    real_close = REAL(close);
    real_write = REAL(write);
    real_pwrite = REAL(pwrite);
    real_read = REAL(read);
    real_pread = REAL(pread);
    real_open = REAL(open);
    root = getenv("FAULTS_ROOT");
    root_length = root ? strlen(root) : 0;
    const char *steering = getenv("FAULTS_CONTROL"), *tracing = getenv("FAULTS_TRACE");
    if (steering) {
        int fd = real_open(steering, O_RDWR | O_CLOEXEC);
        void *map = mmap(NULL, SLOTS * 8, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (map != MAP_FAILED) control = map;
        real_close(fd);
    }
    if (tracing) trace = real_open(tracing, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static int enter(void) { begin(); return pthread_mutex_lock(&lock); }
static int leave(int result, int error) { pthread_mutex_unlock(&lock); errno = error; return result; }

static int is_ours(const char *path) {
    if (!control || !root_length || strncmp(path, root, root_length) != 0) return 0;
    if (path[root_length] != '/' && path[root_length] != 0) return 0;
    size_t length = strlen(path);
    return length < 4 || strcmp(path + length - 4, "-shm") != 0;
}

static struct tracked *known(int fd) { return fd >= 0 && fd < FDS && fds[fd].kind ? &fds[fd] : NULL; }

/* Whether this call is one of those that fail. */
static int fails(int kind) {
    if (!(control[KINDS] & kind)) return 0;
    int64_t number = ++control[SEEN];
    if (number < control[FIRST] || number - control[FIRST] >= control[COUNT]) return 0;
    control[HITS]++;
    return 1;
}

static void note(const void *payload, size_t length, const char *format, ...) {
    if (trace < 0) return;
    char head[4200];
    va_list rest;
    va_start(rest, format);
    int size = vsnprintf(head, sizeof head, format, rest);
    va_end(rest);
    struct iovec parts[2] = {{head, (size_t)size}, {(void *)payload, length}};
    /* One call, so that a kill cuts between two records or leaves a last one that is recognizably short. */
    if (syscall(SYS_writev, trace, parts, length ? 2 : 1) < 0) abort();
}

static int opened(const char *path, int flags, mode_t mode) {
    enter();
    if (!is_ours(path)) { pthread_mutex_unlock(&lock); return real_open(path, flags, mode); }
    int writes = (flags & O_ACCMODE) != O_RDONLY || (flags & O_CREAT);
    if (writes && (control[READ_ONLY] == 1 || (control[READ_ONLY] == 2 && strstr(path, ".db") && !strstr(path, ".lock"))))
        return leave(-1, control[READ_ONLY] == 1 ? EROFS : EACCES);
    int fail = fails(OPEN);
    if (fail && control[MODE] == BEFORE) return leave(-1, (int)control[ERRNO]);
    struct stat status;
    int created = (flags & O_CREAT) && stat(path, &status) != 0;
    int fd = real_open(path, flags, mode);
    if (fd < 0) return leave(fd, errno);
    if (fd < FDS && fstat(fd, &status) == 0) {
        int directory = S_ISDIR(status.st_mode);
        free(fds[fd].path);
        fds[fd] = (struct tracked){directory ? 'd' : 'f', status.st_ino, strdup(path)};
        if (!directory) note(NULL, 0, "O %llu %d %s\n", (unsigned long long)status.st_ino, created, path);
        if (flags & O_TRUNC) note(NULL, 0, "T %llu 0\n", (unsigned long long)status.st_ino);
    }
    if (fail) { fds[fd].kind = 0; real_close(fd); return leave(-1, (int)control[ERRNO]); }
    return leave(fd, errno);
}

#define OPENS(name) \
    int name(const char *path, int flags, ...) { \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest); \
        return opened(path, flags, mode); \
    }
OPENS(open)
OPENS(open64)

int close(int fd) {
    enter();
    if (known(fd)) fds[fd].kind = 0;
    pthread_mutex_unlock(&lock);
    return real_close(fd);
}

/* A write at `offset`, with the lock held. */
static ssize_t written(struct tracked *file, int fd, const void *data, size_t length, off_t offset) {
    int fail = fails(WRITE);
    if (fail && control[MODE] == BEFORE) { errno = (int)control[ERRNO]; return -1; }
    size_t wanted = length;
    if (fail && control[MODE] == HALF) length = (length + 1) / 2;
    struct stat status;
    if (control[BUDGET] >= 0 && fstat(fd, &status) == 0) {
        int64_t grows = offset + (int64_t)length - status.st_size;
        if (grows > control[BUDGET]) {
            /* As a disk does: what fits is written. */
            int64_t fits = (int64_t)length - grows + control[BUDGET];
            if (fits <= 0) { control[HITS]++; errno = ENOSPC; return -1; }
            length = (size_t)fits;
            grows = control[BUDGET];
        }
        if (grows > 0) control[BUDGET] -= grows;
    }
    ssize_t done = real_pwrite(fd, data, length, offset);
    if (done > 0) note(data, (size_t)done, "W %llu %lld %zd\n", (unsigned long long)file->file, (long long)offset, done);
    if (fail && (control[MODE] == AFTER || (size_t)done < wanted)) { errno = (int)control[ERRNO]; return -1; }
    return done;
}

static void sent(int fd, const struct iovec *parts, size_t count) {
    struct stat status;
    if (trace < 0 || fstat(fd, &status) != 0 || !S_ISSOCK(status.st_mode)) return;
    char bytes[4096];
    size_t length = 0;
    for (size_t part = 0; part < count; part++) {
        size_t here = parts[part].iov_len < sizeof bytes - length ? parts[part].iov_len : sizeof bytes - length;
        memcpy(bytes + length, parts[part].iov_base, here);
        length += here;
    }
    if (!length) return;
    enter();
    note(bytes, length, "N %zu\n", length);
    pthread_mutex_unlock(&lock);
}

ssize_t write(int fd, const void *data, size_t length) {
    enter();
    struct tracked *file = known(fd);
    if (!file) {
        pthread_mutex_unlock(&lock);
        sent(fd, &(struct iovec){(void *)data, length}, 1);
        return real_write(fd, data, length);
    }
    off_t at = lseek(fd, 0, SEEK_CUR);
    ssize_t done = written(file, fd, data, length, at);
    int error = errno;
    if (done > 0) lseek(fd, at + done, SEEK_SET);
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}

static ssize_t written_at(int fd, const void *data, size_t length, off_t offset) {
    enter();
    struct tracked *file = known(fd);
    ssize_t done = file ? written(file, fd, data, length, offset) : real_pwrite(fd, data, length, offset);
    int error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}
ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) { return written_at(fd, data, length, offset); }
ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset) { return written_at(fd, data, length, offset); }

ssize_t writev(int fd, const struct iovec *parts, int count) {
    sent(fd, parts, (size_t)count);
    return REAL(writev)(fd, parts, count);
}
ssize_t send(int fd, const void *data, size_t length, int flags) {
    sent(fd, &(struct iovec){(void *)data, length}, 1);
    return REAL(send)(fd, data, length, flags);
}
ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    sent(fd, message->msg_iov, message->msg_iovlen);
    return REAL(sendmsg)(fd, message, flags);
}

static int failing_read(int fd) {
    enter();
    int fail = known(fd) && fails(READ);
    pthread_mutex_unlock(&lock);
    if (fail) errno = (int)control[ERRNO];
    return fail;
}
ssize_t read(int fd, void *data, size_t length) { return failing_read(fd) ? -1 : real_read(fd, data, length); }
ssize_t pread(int fd, void *data, size_t length, off_t offset) {
    return failing_read(fd) ? -1 : real_pread(fd, data, length, offset);
}
ssize_t pread64(int fd, void *data, size_t length, off64_t offset) {
    return failing_read(fd) ? -1 : real_pread(fd, data, length, offset);
}

/* Waits for the disk with the lock held: what is written meanwhile is written after it. */
static int synced(int fd, int (*sync)(int)) {
    enter();
    struct tracked *file = known(fd);
    if (!file) { pthread_mutex_unlock(&lock); return sync(fd); }
    int fail = fails(SYNC);
    if (fail && control[MODE] == BEFORE) {
        /* As Linux does: what could not be written out is forgotten, and the next sync says nothing of it. */
        if (file->kind == 'f') note(NULL, 0, "L %llu\n", (unsigned long long)file->file);
        return leave(-1, (int)control[ERRNO]);
    }
    int done = sync(fd), error = errno;
    if (done == 0 && file->kind == 'd') note(NULL, 0, "D %s\n", file->path);
    if (done == 0 && file->kind == 'f') note(NULL, 0, "S %llu\n", (unsigned long long)file->file);
    if (fail) return leave(-1, (int)control[ERRNO]);
    return leave(done, error);
}
int fsync(int fd) { return synced(fd, REAL(fsync)); }
int fdatasync(int fd) { return synced(fd, REAL(fdatasync)); }

static int truncated(int fd, off_t size) {
    enter();
    struct tracked *file = known(fd);
    int fail = file && fails(TRUNCATE);
    if (fail && control[MODE] == BEFORE) return leave(-1, (int)control[ERRNO]);
    int done = REAL(ftruncate)(fd, size), error = errno;
    if (file && done == 0) note(NULL, 0, "T %llu %lld\n", (unsigned long long)file->file, (long long)size);
    if (fail) return leave(-1, (int)control[ERRNO]);
    return leave(done, error);
}
int ftruncate(int fd, off_t size) { return truncated(fd, size); }
int ftruncate64(int fd, off64_t size) { return truncated(fd, size); }

/* A change of names: one path, or two. */
#define NAMES(kind, path, call, format, ...) \
    enter(); \
    if (!is_ours(path)) { pthread_mutex_unlock(&lock); return call; } \
    if (control[READ_ONLY] == 1) return leave(-1, EROFS); \
    int fail = fails(kind); \
    if (fail && control[MODE] == BEFORE) return leave(-1, (int)control[ERRNO]); \
    int done = call, error = errno; \
    if (done == 0) note(NULL, 0, format, __VA_ARGS__); \
    if (fail) return leave(-1, (int)control[ERRNO]); \
    return leave(done, error);
int unlink(const char *path) { NAMES(REMOVE, path, REAL(unlink)(path), "U %s\n", path) }
int rename(const char *from, const char *to) { NAMES(RENAME, to, REAL(rename)(from, to), "R %s %s\n", from, to) }
int mkdir(const char *path, mode_t mode) { NAMES(MKDIR, path, REAL(mkdir)(path, mode), "M %s\n", path) }

/* The wall clock, moved. What only goes forward is left alone. */
static int64_t moved(void) { begin(); return control ? control[CLOCK_MS] : 0; }
int clock_gettime(clockid_t clock, struct timespec *at) {
    int done = (int)syscall(SYS_clock_gettime, clock, at);
    if (done == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) at->tv_sec += moved() / 1000;
    return done;
}
int gettimeofday(struct timeval *at, void *zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
