/* What the operating system tells a process, changed: preloaded into the server and into the commands.
 *
 * The file that PGEMBED_TEST_MACHINE names holds two numbers, and all processes map it: by how many seconds the
 * clock is off, and whether the disk is full. On a full disk what a file holds can be overwritten and no file can grow:
 * ENOSPC, as a file system says it. Standard output and error go on, so that it can be told.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *told;

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("PGEMBED_TEST_MACHINE");
    int file = path ? open(path, O_RDONLY) : -1;
    if (file >= 0) {
        void *mapped = mmap(NULL, 16, PROT_READ, MAP_SHARED, file, 0);
        if (mapped != MAP_FAILED)
            told = mapped;
        close(file);
    }
}

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) \
        real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

int clock_gettime(clockid_t clock, struct timespec *now)
{
    REAL(clock_gettime);
    int result = real(clock, now);
    if (told && result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += told[0];
    return result;
}

int gettimeofday(struct timeval *now, void *zone)
{
    REAL(gettimeofday);
    int result = real(now, zone);
    if (told && result == 0 && now)
        now->tv_sec += told[0];
    return result;
}

time_t time(time_t *place)
{
    REAL(time);
    time_t now = real(NULL) + (told ? told[0] : 0);
    if (place)
        *place = now;
    return now;
}

/* Whether a file would have to grow to this size and cannot. */
static int is_full(int fd, off_t end)
{
    struct stat status;
    if (!told || !told[1] || fd <= 2 || fstat(fd, &status) != 0 || !S_ISREG(status.st_mode) || end <= status.st_size)
        return 0;
    errno = ENOSPC;
    return 1;
}

static off_t size_of(const struct iovec *parts, int count)
{
    off_t size = 0;
    for (int part = 0; part < count; part++)
        size += parts[part].iov_len;
    return size;
}

ssize_t write(int fd, const void *data, size_t size)
{
    REAL(write);
    if (told && told[1] && fd > 2 && is_full(fd, lseek(fd, 0, SEEK_CUR) + (off_t)size))
        return -1;
    return real(fd, data, size);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    REAL(pwrite);
    return is_full(fd, offset + (off_t)size) ? -1 : real(fd, data, size, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset)
{
    REAL(pwrite64);
    return is_full(fd, offset + (off_t)size) ? -1 : real(fd, data, size, offset);
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset)
{
    REAL(pwritev);
    return is_full(fd, offset + size_of(parts, count)) ? -1 : real(fd, parts, count, offset);
}

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t offset)
{
    REAL(pwritev64);
    return is_full(fd, offset + size_of(parts, count)) ? -1 : real(fd, parts, count, offset);
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    REAL(writev);
    if (told && told[1] && fd > 2 && is_full(fd, lseek(fd, 0, SEEK_CUR) + size_of(parts, count)))
        return -1;
    return real(fd, parts, count);
}

int posix_fallocate(int fd, off_t offset, off_t size)
{
    REAL(posix_fallocate);
    return is_full(fd, offset + size) ? ENOSPC : real(fd, offset, size);
}

int posix_fallocate64(int fd, off64_t offset, off64_t size)
{
    REAL(posix_fallocate64);
    return is_full(fd, offset + size) ? ENOSPC : real(fd, offset, size);
}

int fallocate(int fd, int mode, off_t offset, off_t size)
{
    REAL(fallocate);
    return is_full(fd, offset + size) ? -1 : real(fd, mode, offset, size);
}
