/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. A helper process is born in the v2 cgroup where the first process stands now (CLONE_INTO_CGROUP; an init that manages
 * the subtree moves itself into a leaf of it), goes into the v1 cgroups (asking for itself, which costs nothing) and into all
 * namespaces, and makes the program's process from there, as our child (CLONE_PARENT), so that we get its status. What belongs
 * to the workspace - its terminals, its users - is looked up by the helper's child, with the workspace's rights.
 *
 * For a copy the helper executes carrel-copy between the cgroups and the namespaces: a program of the host is loaded from the
 * host's files, and everything that it does with the workspace's comes after.
 */
#include "engine/workspace/enter.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "engine/workspace/birth.h"
#include "engine/workspace/message.h"
#include "engine/workspace/program.h"

/* Where the first process stands in the v2 tree: the workspace's folder or one below. */
static int open_v2_cgroup(const struct enter *n, int *ret_fd, struct err *e)
{
	char path[64];
	own_strbuf struct str text = { 0 };

	if (!*n->plan->cgroup_v2)
		return 0;
	(void)snprintf(path, sizeof path, "/proc/%d/cgroup", (int)n->init);
	int r = fs_read_file(AT_FDCWD, path, 65536, &text, e);
	if (r < 0)
		return r;
	const char *below = "", *line = strstr(str_text(&text), "0::/");
	const char *name = strrchr(n->plan->cgroup_v2, '/');
	own_str char *own_line = line ? mem_strndup(line, strcspn(line, "\n")) : NULL;
	const char *at = own_line && name ? strstr(own_line, name) : NULL;
	if (at)
		below = at + strlen(name);
	own_str char *folder = mem_printf("%s%s", n->plan->cgroup_v2, below);
	*ret_fd = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return *ret_fd < 0 ? err_errno(e, errno, "open cgroup %s", folder) : 0;
}

static int enter_v1_cgroups(const struct plan *p, struct err *e)
{
	for (size_t i = 0; p->cgroups_v1[i]; i++) {
		own_str char *path = mem_printf("%s/tasks", p->cgroups_v1[i]);
		own_fd int fd = open(path, O_WRONLY | O_CLOEXEC);
		if (fd < 0 || write(fd, "0", 1) < 0)
			return err_errno(e, errno, "enter cgroup %s", p->cgroups_v1[i]);
	}
	return 0;
}

static int enter_namespaces(int init_pidfd, bool host_network, struct err *e)
{
	int which = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP | CLONE_NEWTIME;

	if (setns(init_pidfd, which | (host_network ? 0 : CLONE_NEWNET)) < 0)
		return err_errno(e, errno, "enter the workspace's namespaces");
	if (setgroups(0, NULL) < 0 || setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0)
		return err_errno(e, errno, "become root of the workspace");
	return 0;
}

/* With its size from the first: a program may ask for it before the client is there. */
static int open_terminal(const struct enter *n, int *ret_master, int *ret_peer, struct err *e)
{
	const struct winsize size = { .ws_row = n->rows, .ws_col = n->columns };
	own_fd int master = open("/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);

	if (master < 0)
		return err_errno(e, errno, "open /dev/pts/ptmx in the workspace");
	if (n->rows && n->columns)
		(void)ioctl(master, TIOCSWINSZ, &size);
	int r = program_terminal(master, ret_peer, e);
	if (r == 0)
		*ret_master = TAKE_FD(master);
	return r;
}

static int run_child(const struct enter *n, int sync, const int standard[3], struct err *e)
{
	int master = -1, peer = -1;
	int r = n->terminal ? open_terminal(n, &master, &peer, e) : 0;

	if (r < 0)
		return r;
	if (n->terminal && (r = message_send(sync, MESSAGE_PREPARED, NULL, &master, 1, e)) < 0)
		return r;
	bool system = n->plan->flags & PLAN_SYSTEM;
	struct program what = { .argv = n->argv, .environment = program_environment(n->plan, n->environment, n->terminal),
				.terminal = n->terminal, .user = *n->user ? n->user : n->plan->user,
				.directory = *n->directory ? n->directory : n->plan->directory, .no_new_privileges = !system };
	for (int i = 0; i < 3; i++)
		what.standard[i] = n->terminal ? peer : standard[i];
	if (!n->terminal)
		(void)setsid();
	return program_execute(n->plan, &what, e);
}

/* Makes a process in the namespaces that were entered, as a child of our parent, who hears of it. 0: this is it. */
static int make_sibling(int sync, pid_t *ret_pid, struct err *e)
{
	int pidfd = -1;
	struct clone_args args = { .flags = CLONE_PIDFD | CLONE_PARENT, .pidfd = (uintptr_t)&pidfd };

	*ret_pid = (pid_t)syscall(SYS_clone3, &args, sizeof args);
	if (*ret_pid < 0)
		return err_errno(e, errno, "make a process in the workspace");
	if (!*ret_pid)
		return 0;
	(void)fault_point("enter.told");
	return message_send(sync, MESSAGE_ENTERED, NULL, &pidfd, 1, e);
}

/* Copies are moved out of the way first: one may be where another shall be. */
static int execute_copy(const struct enter *n, int sync, const int standard[3], struct err *e)
{
	static const char *const environment[] = { "LC_ALL=C.UTF-8", NULL };
	int fds[ENTER_FDS] = { standard[0], standard[1], standard[2], n->init_pidfd, n->plan_fd, sync };

	for (int i = 0; i < ENTER_FDS; i++)
		if ((fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, ENTER_FDS)) < 0)
			return err_errno(e, errno, "copy descriptors");
	for (int i = 0; i < ENTER_FDS; i++)
		if (dup2(fds[i], i) < 0)
			return err_errno(e, errno, "place descriptors");
	(void)execve(n->copy_program, (char *const *)(uintptr_t)n->argv, (char *const *)(uintptr_t)environment);
	return err_errno(e, errno, "start %s", n->copy_program);
}

static void run_helper(const struct enter *n, int sync, const int standard[3]) __attribute__((noreturn));
static void run_helper(const struct enter *n, int sync, const int standard[3])
{
	struct err e = { 0 };
	pid_t pid = -1;
	int r = enter_v1_cgroups(n->plan, &e);

	if (r >= 0 && n->copy_program)
		r = execute_copy(n, sync, standard, &e);
	if (r >= 0)
		r = enter_namespaces(n->init_pidfd, n->plan->flags & PLAN_HOST_NETWORK, &e);
	if (r >= 0)
		r = make_sibling(sync, &pid, &e);
	if (r >= 0 && pid == 0) {
		(void)!run_child(n, sync, standard, &e);
		(void)!message_send(sync, MESSAGE_FAILED, &e, NULL, 0, NULL);
		_exit(e.number == ENOENT ? 127 : 126);
	}
	if (r < 0)
		(void)!message_send(sync, MESSAGE_FAILED, &e, NULL, 0, NULL);
	_exit(0);
}

/* To the end, also behind a failure: a program that fails at once may say so before its helper has told which process it is. */
static int await_program(struct enter *n, int sync, struct err *e)
{
	int kind, fds[MESSAGE_FDS_MOST], r, failure = 0;
	struct err more;

	while ((r = message_receive(sync, &kind, fds, failure ? &more : e)) != 0) {
		if (r < 0 && failure)
			break;
		if (r < 0)
			failure = r;
		else if (kind == MESSAGE_ENTERED)
			n->pidfd = fds[0];
		else if (kind == MESSAGE_PREPARED)
			n->terminal_fd = fds[0];
	}
	if (!failure && n->pidfd < 0)
		return err_set(e, ERR_INTERNAL, "the helper that enters the workspace died");
	return failure;
}

static void close_one(int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
	*fd = -1;
}

static pid_t make_helper(int cgroup)
{
	struct clone_args args = { .exit_signal = SIGCHLD };

	if (cgroup >= 0) {
		args.flags = CLONE_INTO_CGROUP;
		args.cgroup = (uint64_t)cgroup;
	}
	return (pid_t)syscall(SYS_clone3, &args, sizeof args);
}

static int start(struct enter *n, int standard[3], struct err *e)
{
	own_fd int cgroup = -1;
	int pair[2];
	int r = open_v2_cgroup(n, &cgroup, e);

	if (r >= 0 && n->input && !n->terminal)
		r = birth_make_pipe(n->plan, &standard[0], &n->input_fd, e);
	if (r >= 0 && !n->terminal)
		r = birth_make_pipe(n->plan, &n->output_fd, &standard[1], e);
	if (r >= 0 && !n->terminal)
		r = birth_make_pipe(n->plan, &n->errors_fd, &standard[2], e);
	if (r < 0 || (r = message_pair(pair, e)) < 0)
		return r;
	own_fd int ours = pair[0];
	pid_t helper = make_helper(cgroup);
	if (helper == 0)
		run_helper(n, pair[1], standard);
	(void)close(pair[1]);
	if (helper < 0)
		return err_errno(e, errno, "make a process");
	r = await_program(n, ours, e);
	(void)waitpid(helper, NULL, 0);
	return r;
}

int enter_workspace(struct enter *n, struct err *e)
{
	int standard[3] = { -1, -1, -1 };

	n->pidfd = n->input_fd = n->output_fd = n->errors_fd = n->terminal_fd = -1;
	int r = start(n, standard, e);
	for (int i = 0; i < 3; i++)
		close_one(&standard[i]);
	if (r >= 0)
		return 0;
	if (n->pidfd >= 0)
		(void)waitid(P_PIDFD, (id_t)n->pidfd, &(siginfo_t){ 0 }, WEXITED | __WALL);
	close_one(&n->pidfd);
	close_one(&n->input_fd);
	close_one(&n->output_fd);
	close_one(&n->errors_fd);
	close_one(&n->terminal_fd);
	return r;
}

/* --- in carrel-copy --- */

static int read_plan(struct plan *ret_plan, struct err *e)
{
	struct stat st;

	if (fstat(ENTER_PLAN, &st) < 0 || st.st_size <= 0 || st.st_size > PLAN_BYTES_MOST)
		return err_set(e, ERR_INVALID, "plan of an impossible size");
	void *bytes = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, ENTER_PLAN, 0);
	if (bytes == MAP_FAILED)
		return err_errno(e, errno, "map the plan");
	return plan_decode(bytes, (size_t)st.st_size, ret_plan, e);
}

static int give_rights_away(const struct plan *p, struct err *e)
{
	int r;

	(void)setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 });
	(void)prctl(PR_SET_DUMPABLE, 0);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return err_errno(e, errno, "set no_new_privs");
	if ((r = program_keep_capabilities(PROGRAM_COPIES, e)) < 0)
		return r;
	return program_install_filter(p, e);
}

int enter_confined(struct err *e)
{
	struct plan plan = { 0 };
	pid_t pid = -1;
	int r = read_plan(&plan, e);

	if (r >= 0)
		r = enter_namespaces(ENTER_FIRST_PROCESS, plan.flags & PLAN_HOST_NETWORK, e);
	if (r >= 0)
		r = make_sibling(ENTER_SYNC, &pid, e);
	if (r >= 0 && pid != 0)
		_exit(0);
	if (r >= 0)
		r = give_rights_away(&plan, e);
	if (r < 0) {
		(void)!message_send(ENTER_SYNC, MESSAGE_FAILED, e, NULL, 0, NULL);
		_exit(1);
	}
	(void)syscall(SYS_close_range, STDERR_FILENO + 1, ~0u, 0); /* closing the socket says that all went well */
	plan_release(&plan);
	return 0;
}
