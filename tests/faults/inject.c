/*
 * Makes system calls fail on purpose; preloaded (LD_PRELOAD) into a rank of a run.
 *
 *     QUIPU_INJECT="CALL SUFFIX RANK FIRST LAST ERROR"
 *
 * CALL: write (write, pwrite), stream (fopen, fdopen: what is written to the stream meets a full
 * device, for the C library's own calls cannot be caught), sync (fsync, fdatasync), truncate
 * (ftruncate, fallocate) or rename. Calls on files whose name ends in SUFFIX are counted from 1;
 * those from FIRST to LAST (0: all that follow) fail with ERROR (EIO, ENOSPC, EDQUOT, EROFS), are
 * late by a fifth of a second (DELAY) or never return (HANG), on rank RANK and in what it starts.
 * With the call clock, SUFFIX is a number of seconds by which the clock of the day jumps when it is
 * read for the FIRST time.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { DELAY = -1, HANG = -2 };

static struct {
    char call[16], suffix[256];
    long rank, first, last;
    int error; /* 0: nothing is injected into this process; below 0: DELAY, HANG */
    long n;    /* calls so far */
} fault;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void read_fault(void)
{
    const char *given = getenv("QUIPU_INJECT"), *rank = getenv("OMPI_COMM_WORLD_RANK");
    char error[16];
    if (given == NULL || sscanf(given, "%15s %255s %ld %ld %ld %15s", fault.call, fault.suffix,
                                &fault.rank, &fault.first, &fault.last, error) != 6)
        return;
    if ((rank == NULL ? 0 : atol(rank)) != fault.rank)
        return;
    fault.error = strcmp(error, "ENOSPC") == 0   ? ENOSPC
                  : strcmp(error, "EDQUOT") == 0 ? EDQUOT
                  : strcmp(error, "EROFS") == 0  ? EROFS
                  : strcmp(error, "DELAY") == 0  ? DELAY
                  : strcmp(error, "HANG") == 0   ? HANG
                                                 : EIO;
}

/* Whether this call on the path is to fail; then errno says how. */
static bool fails_on(const char *call, const char *path)
{
    const size_t n = strlen(path), n_suffix = strlen(fault.suffix);
    if (n < n_suffix || strcmp(path + n - n_suffix, fault.suffix) != 0)
        return false;
    pthread_mutex_lock(&lock);
    fault.n++;
    const bool fails = fault.n >= fault.first && (fault.last == 0 || fault.n <= fault.last);
    pthread_mutex_unlock(&lock);
    if (fails && fault.error == HANG)
        fprintf(stderr, "injected: %s of %s does not return\n", call, path);
    while (fails && fault.error == HANG)
        pause();
    if (fails && fault.error == DELAY) {
        usleep(200000);
        return false;
    }
    if (fails) {
        fprintf(stderr, "injected: %s of %s\n", call, path);
        errno = fault.error;
    }
    return fails;
}

static bool is_wanted(const char *call)
{
    pthread_once(&once, read_fault);
    return fault.error != 0 && strcmp(call, fault.call) == 0;
}

static bool fails(const char *call, int fd)
{
    char link[32], path[PATH_MAX];
    if (!is_wanted(call))
        return false;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    const ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0)
        return false;
    path[n] = '\0';
    return fails_on(call, path);
}

/* The function that this one stands before. */
#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static bool fails_to_create(const char *path, bool writes)
{
    return writes && is_wanted("create") && fails_on("create", path);
}

static bool writes(const char *mode)
{
    return mode[0] != 'r' || strchr(mode, '+') != NULL;
}

/* Opens that may make a file have a mode behind the flags. */
#define OPEN(name, path, flags, ...)                                                               \
    do {                                                                                           \
        va_list rest_;                                                                             \
        va_start(rest_, flags);                                                                    \
        const mode_t mode_ = ((flags) & (O_CREAT | __O_TMPFILE)) != 0 ? va_arg(rest_, mode_t) : 0; \
        va_end(rest_);                                                                             \
        if (fails_to_create(path, ((flags)&O_ACCMODE) != O_RDONLY))                                \
            return -1;                                                                             \
        return NEXT(name)(__VA_ARGS__, mode_);                                                     \
    } while (0)

int open(const char *path, int flags, ...)
{
    OPEN(open, path, flags, path, flags);
}

int open64(const char *path, int flags, ...)
{
    OPEN(open64, path, flags, path, flags);
}

int openat(int folder, const char *path, int flags, ...)
{
    OPEN(openat, path, flags, folder, path, flags);
}

int openat64(int folder, const char *path, int flags, ...)
{
    OPEN(openat64, path, flags, folder, path, flags);
}

static FILE *onto_full_device(FILE *file, const char *mode)
{
    if (file == NULL || mode[0] == 'r' || !fails("stream", fileno(file)))
        return file;
    const int full = open("/dev/full", O_RDWR);
    dup2(full, fileno(file));
    close(full);
    return file;
}

FILE *fopen(const char *path, const char *mode)
{
    if (fails_to_create(path, writes(mode)))
        return NULL;
    return onto_full_device(NEXT(fopen)(path, mode), mode);
}

FILE *fopen64(const char *path, const char *mode)
{
    if (fails_to_create(path, writes(mode)))
        return NULL;
    return onto_full_device(NEXT(fopen64)(path, mode), mode);
}

FILE *fdopen(int fd, const char *mode)
{
    return onto_full_device(NEXT(fdopen)(fd, mode), mode);
}

ssize_t write(int fd, const void *data, size_t n)
{
    return fails("write", fd) ? -1 : NEXT(write)(fd, data, n);
}

ssize_t pwrite(int fd, const void *data, size_t n, off_t at)
{
    return fails("write", fd) ? -1 : NEXT(pwrite)(fd, data, n, at);
}

ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at)
{
    return fails("write", fd) ? -1 : NEXT(pwrite64)(fd, data, n, at);
}

ssize_t writev(int fd, const struct iovec *piece, int n)
{
    return fails("write", fd) ? -1 : NEXT(writev)(fd, piece, n);
}

ssize_t pwritev(int fd, const struct iovec *piece, int n, off_t at)
{
    return fails("write", fd) ? -1 : NEXT(pwritev)(fd, piece, n, at);
}

int fsync(int fd)
{
    return fails("sync", fd) ? -1 : NEXT(fsync)(fd);
}

int fdatasync(int fd)
{
    return fails("sync", fd) ? -1 : NEXT(fdatasync)(fd);
}

int ftruncate(int fd, off_t size)
{
    return fails("truncate", fd) ? -1 : NEXT(ftruncate)(fd, size);
}

int ftruncate64(int fd, off64_t size)
{
    return fails("truncate", fd) ? -1 : NEXT(ftruncate64)(fd, size);
}

int fallocate(int fd, int mode, off_t at, off_t n)
{
    return fails("truncate", fd) ? -1 : NEXT(fallocate)(fd, mode, at, n);
}

int fallocate64(int fd, int mode, off64_t at, off64_t n)
{
    return fails("truncate", fd) ? -1 : NEXT(fallocate64)(fd, mode, at, n);
}

/* Seconds by which the clock is wrong now. */
static long jump(void)
{
    if (!is_wanted("clock"))
        return 0;
    pthread_mutex_lock(&lock);
    const bool is_past = ++fault.n >= fault.first;
    pthread_mutex_unlock(&lock);
    return is_past ? atol(fault.suffix) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    const int result = NEXT(clock_gettime)(clock, now);
    if (clock == CLOCK_REALTIME)
        now->tv_sec += jump();
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    const int result = NEXT(gettimeofday)(now, zone);
    now->tv_sec += jump();
    return result;
}

time_t time(time_t *now)
{
    const time_t result = NEXT(time)(NULL) + jump();
    if (now != NULL)
        *now = result;
    return result;
}

int rename(const char *from, const char *to)
{
    return is_wanted("rename") && fails_on("rename", to) ? -1 : NEXT(rename)(from, to);
}
