/* The only native part of the sandbox: two small steps that Python cannot take cheaply.
 *
 * launcher enter UID GID [CGROUP.PROCS ...] -- COMMAND ...
 *   Outside: joins the cgroups, drops root for good, clears the environment, executes COMMAND (bwrap).
 *
 * launcher run KEY=VALUE ... -- COMMAND ...
 *   Inside, as pid 1 of the sandbox: starts the program under its limits and the seccomp filter that
 *   descriptor `filter` holds, watches its CPU time, and writes one line about its end to `report`.
 *   No signal from inside reaches pid 1; when it ends, the kernel ends whatever is left.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_INSTRUCTIONS = 1024 };
static int report = 2; /* descriptors; the program inherits neither */
static int filter = -1;
static const long long POLL_NS = 10 * 1000000LL;    /* how often CPU time is looked at */
static const long long WINDOW_NS = 500 * 1000000LL; /* a window with under 1 % of a CPU is idle */
static const long long IDLE_SHARE = 100;
/* CPU time of an interactive program and of its interactor, each written by its own launcher: who
 * waits while the other computes is not idle. Only the launchers have it in their memory. */
static volatile long long *pair_cpu;

static void fail(const char *what) {
    int why = errno;
    if (report != 2) dprintf(report, "error %s: %s\n", what, strerror(why));
    dprintf(2, "launcher: %s: %s\n", what, strerror(why));
    _exit(127);
}

static long long now_ns(clockid_t clock) {
    struct timespec t;
    if (clock_gettime(clock, &t) != 0) return -1;
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static char **after_dashes(char **argv) {
    for (; *argv; argv++)
        if (strcmp(*argv, "--") == 0) return argv + 1;
    fprintf(stderr, "launcher: no command\n");
    _exit(127);
}

static int enter(char **argv) {
    char *empty[] = {NULL};
    char **command = after_dashes(argv);
    long uid = strtol(argv[0], NULL, 10), gid = strtol(argv[1], NULL, 10);
    for (char **path = argv + 2; path < command - 1; path++) {
        int fd = open(*path, O_WRONLY | O_CLOEXEC);
        if (fd < 0 || write(fd, "0", 1) != 1) fail(*path);
        close(fd);
    }
    if (uid >= 0) {
        if (setgroups(0, NULL) || setresgid(gid, gid, gid) || setresuid(uid, uid, uid))
            fail("dropping root");
        if (setuid(0) == 0) fail("root came back");
    }
    execve(command[0], command, empty);
    fail(command[0]);
    return 127;
}

struct settings {
    long long cpu_ms, idle_ms, wall_ms, memory, processes, files, file_bytes, stack;
    long long file_mode, report, filter, pair, side;
};

static void parse(struct settings *s, char **argv, char **end) {
    struct { const char *name; long long *value; } known[] = {
        {"cpu_ms", &s->cpu_ms}, {"idle_ms", &s->idle_ms}, {"wall_ms", &s->wall_ms},
        {"memory", &s->memory}, {"processes", &s->processes}, {"files", &s->files},
        {"file_bytes", &s->file_bytes}, {"stack", &s->stack}, {"file_mode", &s->file_mode},
        {"report", &s->report}, {"filter", &s->filter}, {"pair", &s->pair}, {"side", &s->side},
    };
    for (; argv < end; argv++) {
        size_t i, n = sizeof known / sizeof *known;
        for (i = 0; i < n; i++) {
            size_t length = strlen(known[i].name);
            if (strncmp(*argv, known[i].name, length) == 0 && (*argv)[length] == '=') {
                *known[i].value = strtoll(*argv + length + 1, NULL, 10);
                break;
            }
        }
        if (i == n) { errno = EINVAL; fail(*argv); }
    }
}

static void limit(int resource, long long value) {
    struct rlimit r = {(rlim_t)value, (rlim_t)value};
    if (value > 0 && setrlimit(resource, &r) != 0) fail("setrlimit");
}

/* Problems of the input.txt/output.txt kind: the launcher copies, the program never sees a host path. */
static void copy(int from, int to) {
    char buffer[65536];
    ssize_t n;
    while ((n = read(from, buffer, sizeof buffer)) > 0)
        for (ssize_t done = 0; done < n;) {
            ssize_t m = write(to, buffer + done, (size_t)(n - done));
            if (m <= 0) fail("copying a file");
            done += m;
        }
    if (n < 0) fail("copying a file");
}

static void copy_in(void) {
    int fd = open("input.txt", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) fail("input.txt");
    copy(0, fd);
    close(fd);
}

static void copy_out(void) {
    struct stat info;
    int fd = open("output.txt", O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) return; /* the program wrote none: its output is empty */
    if (fstat(fd, &info) == 0 && S_ISREG(info.st_mode)) copy(fd, 1);
    close(fd);
}

static void start(const struct settings *s, char **command) {
    static struct sock_filter code[MAX_INSTRUCTIONS];
    struct sock_fprog program = {0, code};
    sigset_t none;
    setsid();
    if (s->file_mode) { /* only the files count */
        int null = open("/dev/null", O_RDWR);
        if (null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0) fail("/dev/null");
        close(null);
    }
    struct rlimit no_core = {0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    if (s->cpu_ms > 0) limit(RLIMIT_CPU, s->cpu_ms / 1000 + 2); /* the watcher comes first */
    limit(RLIMIT_AS, s->memory);
    limit(RLIMIT_STACK, s->stack);
    limit(RLIMIT_NOFILE, s->files);
    limit(RLIMIT_FSIZE, s->file_bytes);
    limit(RLIMIT_NPROC, s->processes);
    for (int signal_number = 1; signal_number < 32; signal_number++) signal(signal_number, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (filter >= 0) {
        ssize_t n = read(filter, code, sizeof code);
        if (n <= 0 || n % (ssize_t)sizeof *code) fail("reading the seccomp filter");
        program.len = (unsigned short)(n / (ssize_t)sizeof *code);
        close(filter);
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) fail("no_new_privs");
        if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) fail("seccomp");
    }
    execv(command[0], command);
    fail(command[0]);
}

static const char *watch(const struct settings *s, pid_t child, int *status) {
    const char *reason = "exit";
    struct timespec poll = {0, POLL_NS};
    sigset_t wanted;
    clockid_t clock;
    long long begin = now_ns(CLOCK_MONOTONIC), window = begin, window_busy = 0, idle = 0;
    int has_clock = clock_getcpuclockid(child, &clock) == 0;
    sigemptyset(&wanted);
    sigaddset(&wanted, SIGCHLD);
    for (;;) {
        pid_t ended;
        while ((ended = waitpid(-1, status, WNOHANG)) > 0)
            if (ended == child) return reason;
        if (ended < 0 && errno != EINTR) fail("waitpid");
        long long now = now_ns(CLOCK_MONOTONIC);
        long long cpu = has_clock ? now_ns(clock) : -1;
        long long busy = cpu;
        if (pair_cpu && cpu >= 0) {
            pair_cpu[s->side] = cpu;
            busy += pair_cpu[1 - s->side];
        }
        if (now - window >= WINDOW_NS) {
            if (busy >= 0 && (busy - window_busy) * IDLE_SHARE < now - window) idle += now - window;
            window = now;
            window_busy = busy;
        }
        const char *why = NULL;
        if (s->cpu_ms > 0 && cpu > s->cpu_ms * 1000000LL) why = "cpu";
        else if (s->idle_ms > 0 && idle > s->idle_ms * 1000000LL) why = "idle";
        else if (s->wall_ms > 0 && now - begin > s->wall_ms * 1000000LL) why = "wall";
        if (why && reason[0] == 'e') {
            reason = why;
            if (getpid() == 1) kill(-1, SIGKILL);
            else kill(-child, SIGKILL);
            kill(child, SIGKILL);
        }
        sigtimedwait(&wanted, NULL, &poll);
    }
}

static void share_with_partner(const struct settings *s) {
    void *page = mmap(NULL, 2 * sizeof *pair_cpu, PROT_READ | PROT_WRITE, MAP_SHARED, (int)s->pair, 0);
    if (page == MAP_FAILED) fail("sharing CPU times");
    close((int)s->pair);
    pair_cpu = page;
}

static int run(char **argv) {
    char **command = after_dashes(argv);
    struct settings s = {0};
    sigset_t blocked;
    int status = 0;
    parse(&s, argv, command - 1);
    report = (int)s.report;
    filter = (int)s.filter;
    if (fcntl(report, F_SETFD, FD_CLOEXEC)) _exit(127);
    if (fcntl(filter, F_SETFD, FD_CLOEXEC)) fail("no seccomp filter");
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); /* the program, of the same user, must not look inside */
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGCHLD);
    sigprocmask(SIG_BLOCK, &blocked, NULL);
    signal(SIGPIPE, SIG_IGN);
    if (s.pair > 0) share_with_partner(&s);
    if (s.file_mode) copy_in();
    long long begin = now_ns(CLOCK_MONOTONIC);
    pid_t child = fork();
    if (child < 0) fail("fork");
    if (child == 0) start(&s, command);
    if (!s.file_mode) { /* else the partner of an interactive program would never see its end */
        close(0);
        close(1);
    }
    const char *reason = watch(&s, child, &status);
    long long end = now_ns(CLOCK_MONOTONIC);
    if (getpid() == 1) kill(-1, SIGKILL);
    else kill(-child, SIGKILL);
    while (waitpid(-1, NULL, 0) > 0 || errno == EINTR) {}
    if (s.file_mode) copy_out();
    struct rusage used;
    getrusage(RUSAGE_CHILDREN, &used);
    long long cpu_us = (used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000LL +
                       used.ru_utime.tv_usec + used.ru_stime.tv_usec;
    dprintf(report, "ended %s %d %lld %ld %lld %lld\n", reason, status, cpu_us, used.ru_maxrss,
            (end - begin) / 1000, end);
    return 0;
}

int main(int argc, char **argv) {
    if (argc > 4 && strcmp(argv[1], "enter") == 0) return enter(argv + 2);
    if (argc > 3 && strcmp(argv[1], "run") == 0) return run(argv + 2);
    fprintf(stderr, "launcher: see evaluator/sandbox/launcher.c\n");
    return 127;
}
