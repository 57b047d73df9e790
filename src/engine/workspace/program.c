/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The order of program_execute is what it guarantees. Descriptors and limits come first, then rights go, and the user is
 * changed while there is still the right to. The seccomp filter is last where no_new_privs allows it without rights, so that
 * the steps before need no exceptions in it; a full system may not have no_new_privs (its own sudo would not work), so there
 * the filter comes before the capabilities go. The working directory of a new workspace may have to be made, by root; that of
 * an exec is entered as the user, who may not see it.
 *
 * Nothing comes back but the error of what failed; the process is one of the workspace's from the first line on.
 */
#include "engine/workspace/program.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/magic.h>
#include <linux/seccomp.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "engine/workspace/user.h"

int program_keep_capabilities(uint64_t keep, struct err *e)
{
	for (int c = 0; c <= 63; c++) {
		if (keep & (UINT64_C(1) << c))
			continue;
		if (prctl(PR_CAPBSET_DROP, c, 0, 0, 0) < 0) {
			if (errno == EINVAL)
				break; /* past the last one this kernel has */
			return err_errno(e, errno, "drop capability %d", c);
		}
	}
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct now[2], want[2];
	if (syscall(SYS_capget, &header, now) < 0)
		return err_errno(e, errno, "read capabilities");
	for (int half = 0; half < 2; half++) {
		uint32_t bits = (uint32_t)(keep >> (32 * half)) & now[half].permitted;
		want[half] = (struct __user_cap_data_struct){ .effective = bits, .permitted = bits };
	}
	return syscall(SYS_capset, &header, want) < 0 ? err_errno(e, errno, "set capabilities") : 0;
}

int program_install_filter(const struct plan *p, struct err *e)
{
	struct sock_fprog filter = { .len = (unsigned short)(p->filter_bytes / sizeof(struct sock_filter)),
				     .filter = (struct sock_filter *)(uintptr_t)p->filter };

	if (!filter.len)
		return 0;
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter) < 0 ?
		       err_errno(e, errno, "install the seccomp filter") :
		       0;
}

static int place_standard(const struct program *what, struct err *e)
{
	for (int i = 0; i < 3; i++) {
		int from = what->standard[i];
		own_fd int null = from < 0 ? open("/dev/null", O_RDWR | O_CLOEXEC) : -1;
		if (dup2(from < 0 ? null : from, i) < 0)
			return err_errno(e, errno, "place standard stream %d", i);
	}
	if (what->terminal && (setsid() < 0 || ioctl(0, TIOCSCTTY, 0) < 0))
		return err_errno(e, errno, "take the terminal");
	return 0;
}

static int become(const struct user *u, struct err *e)
{
	for (int i = 0; i < 3; i++)
		/* so that it may open /dev/stdout and its terminal again; /dev/null refuses */
		(void)!fchown(i, u->uid, (gid_t)-1);
	if (setgroups(u->group_count, u->groups) < 0 || setresgid(u->gid, u->gid, u->gid) < 0 ||
	    setresuid(u->uid, u->uid, u->uid) < 0)
		return err_errno(e, errno, "become user %u, group %u", u->uid, u->gid);
	return 0;
}

static int go_to(const struct program *what, const struct user *u, struct err *e)
{
	const char *directory = *what->directory ? what->directory : "/";

	if (chdir(directory) == 0)
		return 0;
	if (errno == ENOENT && what->make_directory && mkdir(directory, 0755) == 0 && chown(directory, u->uid, u->gid) == 0 &&
	    chdir(directory) == 0)
		return 0;
	return err_errno(e, errno, "working directory %s", directory);
}

static char **with_home(const char *const *environment, const struct user *u)
{
	size_t n = 0;
	bool has = false;

	for (; environment[n]; n++)
		has = has || str_starts(environment[n], "HOME=");
	char **all = mem_alloc_array(n + 2, sizeof *all);
	for (size_t i = 0; i < n; i++)
		all[i] = (char *)(uintptr_t)environment[i];
	if (!has)
		all[n] = mem_printf("HOME=%s", u->home);
	return all;
}

static int execute(const struct program *what, char **environment, struct err *e)
{
	const char *path = NULL;

	for (char **v = environment; *v; v++)
		if (str_starts(*v, "PATH="))
			path = *v + strlen("PATH=");
	(void)setenv("PATH", path ? path : "/usr/local/bin:/usr/bin:/bin", 1); /* where execvpe looks */
	(void)execvpe(what->argv[0], (char *const *)(uintptr_t)what->argv, environment);
	if (errno == ENOENT || errno == ENOTDIR) {
		(void)err_errno(e, ENOENT, "no command \"%s\" in the workspace", what->argv[0]);
		return -ENOENT;
	}
	int r = err_errno(e, errno == EPERM ? EACCES : errno, "cannot execute \"%s\"", what->argv[0]);
	if (errno == ENOEXEC && e)
		e->kind = ERR_DENIED;
	return r;
}

static void reset_signals(void)
{
	sigset_t none;

	for (int s = 1; s < NSIG; s++)
		(void)signal(s, SIG_DFL);
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
}

static void limit(const struct plan *p)
{
	struct rlimit now, files = { .rlim_cur = 1024, .rlim_max = p->open_files };

	if (getrlimit(RLIMIT_NOFILE, &now) == 0 && files.rlim_max > now.rlim_max)
		files.rlim_max = now.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &files);
	(void)setrlimit(RLIMIT_CORE, &(struct rlimit){ .rlim_cur = 0, .rlim_max = RLIM_INFINITY });
}

int program_execute(const struct plan *p, const struct program *what, struct err *e)
{
	struct user user;
	int r = user_find(what->user, &user, e);

	if (r < 0 || (r = place_standard(what, e)) < 0)
		return r;
	char **environment = with_home(what->environment, &user);
	limit(p);
	if (what->make_directory && (r = go_to(what, &user, e)) < 0)
		return r;
	if (what->no_new_privileges && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return err_errno(e, errno, "set no_new_privs");
	if (!what->no_new_privileges && (r = program_install_filter(p, e)) < 0)
		return r;
	if ((r = program_keep_capabilities(p->capabilities, e)) < 0 || (r = become(&user, e)) < 0)
		return r;
	if (!what->make_directory && (r = go_to(what, &user, e)) < 0)
		return r;
	if (what->no_new_privileges && (r = program_install_filter(p, e)) < 0)
		return r;
	reset_signals();
	(void)umask(022);
	return execute(what, environment, e);
}

int program_terminal(int master, int *ret_peer, struct err *e)
{
	struct statfs fs;
	int unlock = 0;

	if (fstatfs(master, &fs) < 0 || fs.f_type != DEVPTS_SUPER_MAGIC)
		return err_set(e, ERR_INVALID, "/dev/pts/ptmx of the workspace is not a terminal multiplexer");
	if (ioctl(master, TIOCSPTLCK, &unlock) < 0)
		return err_errno(e, errno, "unlock a terminal");
	*ret_peer = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	return *ret_peer < 0 ? err_errno(e, errno, "open a terminal") : 0;
}

const char **program_environment(const struct plan *p, const char *const *more, bool terminal)
{
	size_t count = 0, most = 2;

	for (size_t i = 0; p->environment[i]; i++)
		most++;
	for (size_t i = 0; more && more[i]; i++)
		most++;
	const char **list = mem_alloc_array(most, sizeof *list);
	if (terminal)
		plan_set_variable(list, &count, "TERM=xterm-256color");
	for (size_t i = 0; p->environment[i]; i++)
		plan_set_variable(list, &count, p->environment[i]);
	for (size_t i = 0; more && more[i]; i++)
		plan_set_variable(list, &count, more[i]);
	return list;
}

/* Each init has its own way to be told to power off; most listen to "init 0". */
int program_init_signal(pid_t init)
{
	static const struct {
		const char *program;
		int offset, number; /* SIGRTMIN + offset, or number */
	} ways[] = { { "systemd", 4, 0 }, { "busybox", 0, SIGUSR2 } };
	char path[64], target[256];

	(void)snprintf(path, sizeof path, "/proc/%d/exe", (int)init);
	ssize_t n = readlink(path, target, sizeof target - 1);
	target[n > 0 ? n : 0] = '\0';
	const char *slash = strrchr(target, '/');
	for (size_t i = 0; i < ARRAY_SIZE(ways); i++)
		if (str_eq(slash ? slash + 1 : target, ways[i].program))
			return ways[i].number ? ways[i].number : SIGRTMIN + ways[i].offset;
	return 0;
}

/* --- the first process of a program's workspace --- */

/* The program runs already. Signals wait until they are asked for. */
int program_be_first(pid_t child, struct err *e)
{
	char number[16];
	char *argv[] = { (char[]){ "carrel-first" }, number, NULL }, *environment[] = { NULL };
	sigset_t all;

	(void)snprintf(number, sizeof number, "%d", (int)child);
	(void)sigfillset(&all);
	(void)sigprocmask(SIG_SETMASK, &all, NULL);
	(void)syscall(SYS_close_range, 0, ~0u, 0);
	(void)execve(PLAN_FIRST, argv, environment);
	return err_errno(e, errno, "execute %s", PLAN_FIRST);
}
