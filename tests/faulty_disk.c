/* A disk that fails: preloaded, it counts the changing system calls below a folder and
 * fails one of them, or kills the process in it.
 *
 *     cc -shared -fPIC -O1 -o faulty_disk.so faulty_disk.c -ldl
 *     LD_PRELOAD=./faulty_disk.so python tests/faulty_disk.py ...
 *
 * The plan is shared with forked processes, so that a stage and its arms are counted
 * together. A full disk (`full`) goes on failing in whatever needs room. A write in
 * which the process dies is half done.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum kind { OPEN, WRITE, SYNC, RENAME, LINK, UNLINK, MKDIR, RMDIR, TRUNCATE, KINDS };

struct plan {
    long calls;         /* so far */
    long at;            /* which one fails; -1 is none */
    int error;          /* its errno; 0 is SIGKILL */
    int full;           /* later calls that need room fail as well */
    int no_locks;       /* errno of flock; 0 is none */
    long kinds[KINDS];  /* calls of each kind */
    char failed[64];    /* the call that failed */
};

static struct plan *plan;
static char root[PATH_MAX];

struct plan *faulty_disk_plan(void) {
    if (!plan)
        plan = mmap(NULL, sizeof *plan, PROT_READ | PROT_WRITE,
                    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return plan;
}

void faulty_disk_watch(const char *folder) { snprintf(root, sizeof root, "%s", folder); }

static int is_watched(int dir, const char *path) {
    char whole[PATH_MAX * 2], link[64];
    if (!plan || !root[0]) return 0;
    if (path && path[0] == '/') {
        snprintf(whole, sizeof whole, "%s", path);
    } else {
        if (dir == AT_FDCWD) snprintf(link, sizeof link, "/proc/self/cwd");
        else snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
        ssize_t length = readlink(link, whole, PATH_MAX);
        if (length < 0) return 0;
        snprintf(whole + length, sizeof whole - length, "/%s", path ? path : "");
    }
    return !strncmp(whole, root, strlen(root));
}

/* 0: do the call; 1: it fails; 2: die in it. */
static int fate(enum kind kind, int needs_room, int dir, const char *path) {
    int saved = errno, watched = is_watched(dir, path);
    errno = saved;
    if (!watched) return 0;
    long call = __sync_fetch_and_add(&plan->calls, 1);
    __sync_fetch_and_add(&plan->kinds[kind], 1);
    int later = plan->full && needs_room && call > plan->at && plan->at >= 0;
    if (call != plan->at && !later) return 0;
    static const char *names[] = {"open", "write", "fsync", "rename", "link", "unlink",
                                  "mkdir", "rmdir", "truncate"};
    if (call == plan->at) snprintf(plan->failed, sizeof plan->failed, "%s", names[kind]);
    if (plan->error) {
        errno = plan->error;
        return 1;
    }
    return 2;
}

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

#define REAL(name) __typeof__(name) *real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

#define CALL(kind, room, dir, path)                       \
    do {                                                  \
        int fated = fate(kind, room, dir, path);          \
        if (fated == 1) return -1;                        \
        if (fated == 2) die();                            \
    } while (0)

#define CHANGES(flags) ((flags) & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC))

#define DEFINE_OPEN(name)                                                \
    int name(const char *path, int flags, ...) {                         \
        REAL(name);                                                      \
        va_list arguments;                                               \
        va_start(arguments, flags);                                      \
        int mode = flags & O_CREAT ? va_arg(arguments, int) : 0;         \
        va_end(arguments);                                               \
        if (CHANGES(flags)) CALL(OPEN, flags & O_CREAT, AT_FDCWD, path); \
        return real(path, flags, mode);                                  \
    }
DEFINE_OPEN(open)
DEFINE_OPEN(open64)

#define DEFINE_OPENAT(name)                                         \
    int name(int dir, const char *path, int flags, ...) {           \
        REAL(name);                                                 \
        va_list arguments;                                          \
        va_start(arguments, flags);                                 \
        int mode = flags & O_CREAT ? va_arg(arguments, int) : 0;    \
        va_end(arguments);                                          \
        if (CHANGES(flags)) CALL(OPEN, flags & O_CREAT, dir, path); \
        return real(dir, path, flags, mode);                        \
    }
DEFINE_OPENAT(openat)
DEFINE_OPENAT(openat64)

ssize_t write(int fd, const void *data, size_t size) {
    REAL(write);
    int fated = fate(WRITE, 1, fd, NULL);
    if (fated == 1) return -1;
    if (fated == 2) {
        real(fd, data, size / 2);
        die();
    }
    return real(fd, data, size);
}

int fsync(int fd) {
    REAL(fsync);
    CALL(SYNC, 1, fd, NULL);
    return real(fd);
}

int rename(const char *from, const char *to) {
    REAL(rename);
    CALL(RENAME, 0, AT_FDCWD, to);
    return real(from, to);
}

int renameat(int from_dir, const char *from, int to_dir, const char *to) {
    REAL(renameat);
    CALL(RENAME, 0, to_dir, to);
    return real(from_dir, from, to_dir, to);
}

int link(const char *from, const char *to) {
    REAL(link);
    CALL(LINK, 1, AT_FDCWD, to);
    return real(from, to);
}

int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags) {
    REAL(linkat);
    CALL(LINK, 1, to_dir, to);
    return real(from_dir, from, to_dir, to, flags);
}

int unlink(const char *path) {
    REAL(unlink);
    CALL(UNLINK, 0, AT_FDCWD, path);
    return real(path);
}

int unlinkat(int dir, const char *path, int flags) {
    REAL(unlinkat);
    CALL(flags & AT_REMOVEDIR ? RMDIR : UNLINK, 0, dir, path);
    return real(dir, path, flags);
}

int rmdir(const char *path) {
    REAL(rmdir);
    CALL(RMDIR, 0, AT_FDCWD, path);
    return real(path);
}

int mkdir(const char *path, mode_t mode) {
    REAL(mkdir);
    CALL(MKDIR, 1, AT_FDCWD, path);
    return real(path, mode);
}

int mkdirat(int dir, const char *path, mode_t mode) {
    REAL(mkdirat);
    CALL(MKDIR, 1, dir, path);
    return real(dir, path, mode);
}

int ftruncate64(int fd, off64_t size) {
    REAL(ftruncate64);
    CALL(TRUNCATE, 0, fd, NULL);
    return real(fd, size);
}

int truncate64(const char *path, off64_t size) {
    REAL(truncate64);
    CALL(TRUNCATE, 0, AT_FDCWD, path);
    return real(path, size);
}

int flock(int fd, int operation) {
    REAL(flock);
    if (plan && plan->no_locks && is_watched(fd, NULL)) {
        errno = plan->no_locks;
        return -1;
    }
    return real(fd, operation);
}
