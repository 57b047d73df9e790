/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. In this order, each step needing what the next takes away: no new privileges; another user and no capabilities (when
 * we are root); limits; Landlock, which denies every path but the readable ones; seccomp, which knows only the calls listed
 * here and answers all others with EPERM - not by death, because libraries probe for calls that they can do without. Kernels
 * without Landlock (before 5.13) are left with seccomp, which lets nothing be opened unless `readable` was given.
 */
#include "base/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <poll.h>
#include <sched.h>
#include <seccomp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/own.h"

#define NOBODY 65534

static int drop_privileges(struct err *e)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct none[2] = { { 0 } };
	int death_signal = 0;

	if (prctl(PR_GET_PDEATHSIG, &death_signal, 0, 0, 0) < 0)
		return err_errno(e, errno, "look at the parent-death signal");
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return err_errno(e, errno, "set no_new_privs");
	if (geteuid() == 0 &&
	    (setgroups(0, NULL) < 0 || setresgid(NOBODY, NOBODY, NOBODY) < 0 || setresuid(NOBODY, NOBODY, NOBODY) < 0))
		return err_errno(e, errno, "become nobody");
	if (syscall(SYS_capset, &header, none) < 0)
		return err_errno(e, errno, "drop capabilities");
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return err_errno(e, errno, "become untraceable");
	/* the kernel forgets it when the user changes */
	if (prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0) < 0)
		return err_errno(e, errno, "keep the parent-death signal");
	return 0;
}

/* Readers with threads start one for each processor. */
static rlim_t memory_most(unsigned rights)
{
	long processors = sysconf(_SC_NPROCESSORS_ONLN);

	return SANDBOX_MEMORY_BYTES_MOST +
	       (rights & SANDBOX_THREADS ? (rlim_t)(processors < 1 ? 1 : processors) * SANDBOX_THREAD_BYTES_MOST : 0);
}

/* Who was started below a lower limit stays there: it cannot be raised. */
static int limit_memory(unsigned rights, struct err *e)
{
	struct rlimit memory;

	if (getrlimit(RLIMIT_AS, &memory) < 0)
		return err_errno(e, errno, "look at the limit of memory");
	if (memory.rlim_max > memory_most(rights))
		memory.rlim_max = memory_most(rights);
	if (memory.rlim_cur > memory.rlim_max)
		memory.rlim_cur = memory.rlim_max;
	return setrlimit(RLIMIT_AS, &memory) < 0 ? err_errno(e, errno, "limit memory") : 0;
}

static int set_limits(unsigned rights, struct err *e)
{
	const struct rlimit none = { 0, 0 };

	if (setrlimit(RLIMIT_CORE, &none) < 0)
		return err_errno(e, errno, "limit core dumps");
#ifdef __SANITIZE_ADDRESS__ /* its shadow is larger than any limit */
	bool limited = false;
#else
	bool limited = !(rights & (SANDBOX_NETWORK | SANDBOX_ACCEPT));
#endif
	return limited ? limit_memory(rights, e) : 0;
}

/* --- Landlock (kernel: Documentation/userspace-api/landlock.rst) --- */

#define READ_FILE   LANDLOCK_ACCESS_FS_READ_FILE
#define READ_FOLDER LANDLOCK_ACCESS_FS_READ_DIR
/* All rights up to the ABI's version; a header may know fewer names than the kernel has bits. */
static uint64_t all_rights(long abi)
{
	/* by version: 1 knows 13, 2 adds REFER, 3 TRUNCATE, 5 IOCTL_DEV */
	static const unsigned bits[] = { 13, 13, 14, 15, 15, 16 };
	size_t at = (size_t)abi < ARRAY_SIZE(bits) ? (size_t)abi : ARRAY_SIZE(bits) - 1;
	return (UINT64_C(1) << bits[at]) - 1;
}

static int allow_path(int ruleset, const char *path, uint64_t more, struct err *e)
{
	own_fd int fd = open(path, O_PATH | O_CLOEXEC);
	struct stat st;

	if (fd < 0)
		return errno == ENOENT ? 0 : err_errno(e, errno, "open %s", path);
	if (fstat(fd, &st) < 0)
		return err_errno(e, errno, "look at %s", path);
	if (S_ISCHR(st.st_mode)) /* /dev/null */
		more = LANDLOCK_ACCESS_FS_WRITE_FILE;
	const struct landlock_path_beneath_attr rule = { (S_ISDIR(st.st_mode) ? READ_FILE | READ_FOLDER : READ_FILE) | more,
							 fd };
	if (syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) < 0)
		return err_errno(e, errno, "let %s be read", path);
	return 0;
}

/* `file` -1: none. */
static int restrict_paths(const char *const *readable, uint64_t more, int file, bool writes, struct err *e)
{
	long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	if (abi < 1)
		return 0;
	const struct landlock_ruleset_attr attributes = { .handled_access_fs = all_rights(abi) };
	own_fd int ruleset = (int)syscall(SYS_landlock_create_ruleset, &attributes, sizeof attributes, 0);
	if (ruleset < 0)
		return err_errno(e, errno, "make a Landlock ruleset");
	for (; readable && *readable; readable++) {
		int r = allow_path(ruleset, *readable, more, e);
		if (r < 0)
			return r;
	}
	const struct landlock_path_beneath_attr rule = { READ_FILE | (writes ? LANDLOCK_ACCESS_FS_WRITE_FILE : 0), file };
	if (file >= 0 && syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) < 0)
		return err_errno(e, errno, "let the file be opened");
	if (syscall(SYS_landlock_restrict_self, ruleset, 0) < 0)
		return err_errno(e, errno, "enter the Landlock ruleset");
	return 0;
}

/* --- seccomp --- */

/* Bytes, memory, time: what every reader needs. */
static const int always[] = {
	SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(readv), SCMP_SYS(writev), SCMP_SYS(pread64), SCMP_SYS(pwrite64),
	SCMP_SYS(preadv), SCMP_SYS(pwritev), SCMP_SYS(lseek), SCMP_SYS(close), SCMP_SYS(fstat), SCMP_SYS(ftruncate),
	SCMP_SYS(fallocate), SCMP_SYS(fadvise64), SCMP_SYS(sync_file_range), SCMP_SYS(fsync), SCMP_SYS(fdatasync),
	SCMP_SYS(copy_file_range), SCMP_SYS(poll), SCMP_SYS(ppoll), SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(madvise),
	SCMP_SYS(brk), SCMP_SYS(futex), SCMP_SYS(exit), SCMP_SYS(exit_group), SCMP_SYS(restart_syscall), SCMP_SYS(rt_sigreturn),
	SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigaction), SCMP_SYS(sigaltstack), SCMP_SYS(getpid), SCMP_SYS(gettid),
	SCMP_SYS(getuid), SCMP_SYS(geteuid), SCMP_SYS(getgid), SCMP_SYS(getegid), SCMP_SYS(clock_gettime),
	SCMP_SYS(clock_getres), SCMP_SYS(clock_nanosleep), SCMP_SYS(nanosleep), SCMP_SYS(gettimeofday), SCMP_SYS(time),
	SCMP_SYS(getrandom), SCMP_SYS(sched_yield), SCMP_SYS(sched_getaffinity), SCMP_SYS(set_robust_list), SCMP_SYS(rseq),
	SCMP_SYS(membarrier), SCMP_SYS(uname), SCMP_SYS(sysinfo), SCMP_SYS(dup), SCMP_SYS(recvfrom), SCMP_SYS(sendto),
};

/* libcurl, its resolver's thread, and TLS. */
static const int with_network[] = {
	SCMP_SYS(connect),       SCMP_SYS(bind),       SCMP_SYS(recvmsg),    SCMP_SYS(recvmmsg),    SCMP_SYS(sendmsg),
	SCMP_SYS(sendmmsg),      SCMP_SYS(getsockopt), SCMP_SYS(setsockopt), SCMP_SYS(getsockname), SCMP_SYS(getpeername),
	SCMP_SYS(shutdown),      SCMP_SYS(pipe2),      SCMP_SYS(eventfd2),   SCMP_SYS(select),      SCMP_SYS(pselect6),
	SCMP_SYS(epoll_create1), SCMP_SYS(epoll_ctl),  SCMP_SYS(epoll_wait), SCMP_SYS(epoll_pwait),
};

static int allow_calls(scmp_filter_ctx filter, const int *calls, size_t count)
{
	int r = 0;
	for (size_t i = 0; r == 0 && i < count; i++)
		if (calls[i] >= 0) /* negative: this machine has no such call */
			r = seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, calls[i], 0, NULL);
	return r;
}

static int allow_if(scmp_filter_ctx filter, int call, struct scmp_arg_cmp condition)
{
	return seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, call, 1, &condition);
}

static int allow_memory(scmp_filter_ctx filter)
{
	int r = allow_if(filter, SCMP_SYS(mmap), SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	if (r == 0)
		r = allow_if(filter, SCMP_SYS(mprotect), SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	return r;
}

/* Of descriptors: duplicates and flags. glibc's fstat is newfstatat without a path. */
static int allow_descriptors(scmp_filter_ctx filter)
{
	static const int commands[] = { F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD, F_DUPFD_CLOEXEC };
	int r = allow_if(filter, SCMP_SYS(newfstatat), SCMP_A3(SCMP_CMP_MASKED_EQ, AT_EMPTY_PATH, AT_EMPTY_PATH));

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(commands); i++)
		r = allow_if(filter, SCMP_SYS(fcntl), SCMP_A1(SCMP_CMP_EQ, (scmp_datum_t)commands[i]));
	if (r == 0) /* one's own limits may be read */
		r = allow_if(filter, SCMP_SYS(prlimit64), SCMP_A2(SCMP_CMP_EQ, 0));
	return r;
}

/* clone3 hides its flags from the filter: ENOSYS makes glibc use clone. */
static int allow_threads(scmp_filter_ctx filter)
{
	int r = seccomp_rule_add_array(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0, NULL);
	if (r == 0)
		r = allow_if(filter, SCMP_SYS(clone), SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD));
	if (r == 0) /* the name of a thread */
		r = allow_if(filter, SCMP_SYS(prctl), SCMP_A0(SCMP_CMP_EQ, PR_SET_NAME));
	return r;
}

static int allow_network(scmp_filter_ctx filter)
{
	/* netlink: getaddrinfo asks for the machine's addresses */
	static const int families[] = { AF_INET, AF_INET6, AF_NETLINK };
	static const unsigned long controls[] = { FIONBIO, FIONREAD };
	int r = allow_calls(filter, with_network, ARRAY_SIZE(with_network));

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(families); i++)
		r = allow_if(filter, SCMP_SYS(socket), SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)families[i]));
	if (r == 0)
		r = allow_if(filter, SCMP_SYS(socketpair), SCMP_A0(SCMP_CMP_EQ, AF_UNIX));
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(controls); i++)
		r = allow_if(filter, SCMP_SYS(ioctl), SCMP_A1(SCMP_CMP_EQ, controls[i]));
	return r;
}

static int allow_reading(scmp_filter_ctx filter)
{
	static const int calls[] = { SCMP_SYS(newfstatat), SCMP_SYS(stat),	SCMP_SYS(lstat),      SCMP_SYS(statx),
				     SCMP_SYS(access),	   SCMP_SYS(faccessat), SCMP_SYS(faccessat2), SCMP_SYS(getdents64) };
	const unsigned writing = O_ACCMODE | O_CREAT | O_TRUNC;
	int r = allow_calls(filter, calls, ARRAY_SIZE(calls));

	if (r == 0)
		r = allow_if(filter, SCMP_SYS(openat), SCMP_A2(SCMP_CMP_MASKED_EQ, writing, O_RDONLY));
	if (r == 0)
		r = allow_if(filter, SCMP_SYS(open), SCMP_A1(SCMP_CMP_MASKED_EQ, writing, O_RDONLY));
	return r;
}

static int restrict_calls(unsigned rights, bool reads, struct err *e)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	int r = filter ? allow_calls(filter, always, ARRAY_SIZE(always)) : -ENOMEM;

	if (r == 0)
		r = allow_memory(filter);
	if (r == 0)
		r = allow_descriptors(filter);
	if (r == 0 && (rights & (SANDBOX_THREADS | SANDBOX_NETWORK)))
		r = allow_threads(filter);
	if (r == 0 && (rights & SANDBOX_ACCEPT))
		r = seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, SCMP_SYS(accept4), 0, NULL);
	if (r == 0 && (rights & SANDBOX_NETWORK))
		r = allow_network(filter);
	if (r == 0 && reads)
		r = allow_reading(filter);
	if (r == 0)
		r = seccomp_load(filter);
	seccomp_release(filter);
	return r < 0 ? err_errno(e, -r, "restrict system calls") : 0;
}

int sandbox_enter(unsigned rights, const char *const *readable, struct err *e)
{
	int r = drop_privileges(e);

	if (r == 0)
		r = set_limits(rights, e);
	if (r == 0)
		r = restrict_paths(readable, 0, -1, false, e);
	if (r == 0)
		r = restrict_calls(rights, readable != NULL, e);
	return r < 0 ? err_wrap(e, "enter the sandbox") : 0;
}

/* --- a program of others --- */

/* What a dynamically linked program does before and around its work. Threads, but no other process. */
static const int with_program[] = {
	SCMP_SYS(execve),    SCMP_SYS(mmap),       SCMP_SYS(mprotect),   SCMP_SYS(arch_prctl), SCMP_SYS(set_tid_address),
	SCMP_SYS(prlimit64), SCMP_SYS(newfstatat), SCMP_SYS(stat),       SCMP_SYS(lstat),      SCMP_SYS(statx),
	SCMP_SYS(access),    SCMP_SYS(faccessat),  SCMP_SYS(faccessat2), SCMP_SYS(readlink),   SCMP_SYS(readlinkat),
	SCMP_SYS(getcwd),    SCMP_SYS(getrusage),  SCMP_SYS(times),      SCMP_SYS(getdents64), SCMP_SYS(openat),
	SCMP_SYS(open),      SCMP_SYS(fcntl),      SCMP_SYS(alarm),      SCMP_SYS(getppid),
};

static int restrict_program(struct err *e)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	int r = filter ? allow_calls(filter, always, ARRAY_SIZE(always)) : -ENOMEM;

	if (r == 0)
		r = allow_calls(filter, with_program, ARRAY_SIZE(with_program));
	if (r == 0)
		r = allow_threads(filter);
	if (r == 0)
		r = seccomp_load(filter);
	seccomp_release(filter);
	return r < 0 ? err_errno(e, -r, "restrict system calls") : 0;
}

static int limit_program(const struct sandbox_program *p, struct err *e)
{
	const struct rlimit memory = { p->memory_bytes, p->memory_bytes }, time = { p->cpu_seconds, p->cpu_seconds };
	const struct rlimit files = { 64, 64 };
	struct rlimit length = { 0, 0 };
	struct stat st;

	if (fstat(p->file, &st) < 0)
		return err_errno(e, errno, "look at the file");
	if (p->writes)
		length.rlim_cur = length.rlim_max = (rlim_t)st.st_size;
	if (fchown(p->file, NOBODY, NOBODY) < 0 && geteuid() == 0)
		return err_errno(e, errno, "give the file to nobody");
	if (setrlimit(RLIMIT_AS, &memory) < 0 || setrlimit(RLIMIT_CPU, &time) < 0 || setrlimit(RLIMIT_NOFILE, &files) < 0 ||
	    setrlimit(RLIMIT_FSIZE, &length) < 0)
		return err_errno(e, errno, "limit the program");
	return 0;
}

int sandbox_exec(const struct sandbox_program *p, struct err *e)
{
	static const char *const environment[] = { "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "HOME=/", NULL };
	const struct rlimit none = { 0, 0 };
	int r = limit_program(p, e);

	if (r == 0)
		r = drop_privileges(e);
	if (r == 0 && setrlimit(RLIMIT_CORE, &none) < 0)
		r = err_errno(e, errno, "limit core dumps");
	if (r == 0)
		r = restrict_paths(p->readable, LANDLOCK_ACCESS_FS_EXECUTE, p->file, p->writes, e);
	if (r == 0)
		r = restrict_program(e);
	if (r < 0)
		return err_wrap(e, "enter the sandbox");
	(void)execve(p->argv[0], (char *const *)(uintptr_t)p->argv, (char *const *)(uintptr_t)environment);
	return err_errno(e, errno, "start %s", p->argv[0]);
}
