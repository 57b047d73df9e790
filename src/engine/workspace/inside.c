/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. This runs as process 1 of the new namespaces. It does what needs no ids first, waits for the id range, becomes the
 * workspace's root, builds what needs no volume, waits for the volumes, builds the rest of the tree (tree.c), and puts it in
 * the place of the host's: the copy of the host's mounts that came with
 * the namespace hangs below the new root for a moment and is then detached as a whole, scratch folder and layers included.
 *
 * It dies with carrel-run (PR_SET_PDEATHSIG), and with it everything in its pid namespace.
 */
#include "engine/workspace/inside.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/keyctl.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/own.h"
#include "engine/workspace/message.h"
#include "engine/workspace/program.h"

#define BIT(capability) (UINT64_C(1) << (capability))
#define START_STACK (256 << 10) /* reading /etc/passwd, and the error that says what went wrong */
#define CAP_KILL_NUMBER 5 /* capabilities(7) */

static int enter_cgroups(const struct inside *in, struct err *e)
{
	for (size_t i = 0; i < in->task_count; i++)
		if (write(in->tasks[i], "0", 1) < 0)
			return err_errno(e, errno, "enter cgroup %s", in->plan->cgroups_v1[i]);
	if (unshare(CLONE_NEWCGROUP) < 0)
		return err_errno(e, errno, "make cgroup namespace");
	return 0;
}

int inside_raise_loopback(struct err *e)
{
	struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	own_fd int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request) < 0)
		return err_errno(e, errno, "raise the loopback interface");
	return 0;
}

static int await_go(int sync, int *ret_fds, struct err *e)
{
	int kind, r = message_receive(sync, &kind, ret_fds, e);

	if (r == 0)
		_exit(125); /* carrel-run is gone */
	return r < 0 ? r : 0;
}

static int await_volumes(int sync, struct tree *t, struct err *e)
{
	int fds[MESSAGE_FDS_MOST];
	int r = await_go(sync, fds, e);

	while (r >= 0 && t->volume_count < BIRTH_VOLUMES_MOST && fds[t->volume_count] >= 0) {
		t->volumes[t->volume_count] = fds[t->volume_count];
		t->volume_count++;
	}
	return r >= 0 && !t->volume_count ? err_set(e, ERR_INTERNAL, "no root volume came") : r;
}

static int become_root(struct err *e)
{
	if (setgroups(0, NULL) < 0 || setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0)
		return err_errno(e, errno, "become root of the workspace");
	/* Changing ids clears it, so it is set after that; a parent that died before is seen by the closed socket. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
		return err_errno(e, errno, "ask to die with carrel-run");
	(void)setsid(); /* a session of the host's could not be written to disk with the workspace */
	(void)umask(0);
	return 0;
}

/* /proc is there on every host, and is not needed by its path any more. */
int inside_make_scratch(struct err *e)
{
	if (mount("carrel", "/proc", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=64k") < 0 || chdir("/proc") < 0)
		return err_errno(e, errno, "make a scratch folder");
	return 0;
}

static int change_root(int root, struct err *e)
{
	if (fchdir(root) < 0 || syscall(SYS_pivot_root, ".", ".") < 0)
		return err_errno(e, errno, "change the root");
	if (umount2(".", MNT_DETACH) < 0)
		return err_errno(e, errno, "let go of the host's tree");
	return chdir("/") < 0 ? err_errno(e, errno, "go to the new root") : 0;
}

static int make_world(const struct inside *in, struct tree *t, struct err *e)
{
	const struct plan *p = in->plan;
	int r = enter_cgroups(in, e);

	if (r < 0 || (!(p->flags & PLAN_HOST_NETWORK) && (r = inside_raise_loopback(e)) < 0))
		return r;
	if (sethostname(p->host_name, strlen(p->host_name)) < 0)
		return err_errno(e, errno, "set the host name %s", p->host_name);
	if ((r = await_go(in->sync, NULL, e)) < 0 || (r = become_root(e)) < 0 || (r = inside_make_scratch(e)) < 0)
		return r;
	if ((r = tree_begin(t, e)) < 0 || (r = await_volumes(in->sync, t, e)) < 0 || (r = tree_complete(t, e)) < 0)
		return r;
	if ((r = change_root(t->root, e)) < 0)
		return r;
	(void)syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL, 0, 0, 0); /* kernels may come without keys */
	return 0;
}

static int report_prepared(const struct inside *in, const struct tree *t, struct err *e)
{
	int fds[2] = { t->terminal, t->terminal_peer };
	int r = message_send(in->sync, MESSAGE_PREPARED, NULL, fds, t->terminal >= 0 ? 2 : 0, e);

	return r < 0 ? r : await_go(in->sync, NULL, e);
}

static void run_program(const struct inside *in, const struct program *what) __attribute__((noreturn));
static void run_program(const struct inside *in, const struct program *what)
{
	struct err e = { 0 };

	(void)!program_execute(in->plan, what, &e);
	(void)!message_send(in->sync, MESSAGE_FAILED, &e, NULL, 0, NULL);
	_exit(e.number == ENOENT ? 127 : 126);
}

struct start {
	const struct inside *in;
	const struct program *what;
};

static int run_start(void *data)
{
	const struct start *s = data;

	run_program(s->in, s->what);
}

/* Our memory is not copied for it: we go on when it was executed or gave up. */
static int start_program(const struct inside *in, const struct program *what, pid_t *ret_child, struct err *e)
{
	struct start s = { in, what };
	char *stack = mmap(NULL, START_STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);

	if (stack == MAP_FAILED)
		return err_errno(e, errno, "make a stack");
	*ret_child = clone(run_start, stack + START_STACK, CLONE_VM | CLONE_VFORK | SIGCHLD, &s);
	int number = errno;
	(void)munmap(stack, START_STACK);
	return *ret_child < 0 ? err_errno(e, number, "make the program's process") : 0;
}

static int be_init(const struct inside *in, const struct program *what, struct err *e)
{
	pid_t child = 0;
	int r = in->plan->flags & PLAN_MAINTENANCE ? 0 : start_program(in, what, &child, e);

	if (r < 0)
		return r;
	/* The program may look into this process, as into any other of its user: it must find no more rights here than it
	 * has. */
	(void)prctl(PR_SET_DUMPABLE, 0); /* until it is executed, this is still our memory */
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return err_errno(e, errno, "renounce new privileges");
	if ((r = program_install_filter(in->plan, e)) < 0 || (r = program_keep_capabilities(BIT(CAP_KILL_NUMBER), e)) < 0)
		return r;
	return program_be_first(child, e);
}

void inside_first_process(const struct inside *in)
{
	struct err e = { 0 };
	const struct plan *p = in->plan;
	struct tree t = { .plan = p, .in = in, .root = -1, .terminal = -1, .terminal_peer = -1 };
	(void)close(in->parent_sync);
	int r = make_world(in, &t, &e);

	if (r >= 0)
		r = report_prepared(in, &t, &e);
	if (r >= 0) {
		bool terminal = t.terminal_peer >= 0, system = p->flags & PLAN_SYSTEM;
		struct program what = { .argv = p->argv, .environment = p->environment, .user = p->user,
					.directory = p->directory, .terminal = terminal && !system,
					.no_new_privileges = !system, .make_directory = !system };
		for (int i = 0; i < 3; i++)
			what.standard[i] = terminal ? t.terminal_peer : in->standard[i];
		if (system)
			run_program(in, &what);
		r = be_init(in, &what, &e);
	}
	(void)!message_send(in->sync, MESSAGE_FAILED, &e, NULL, 0, NULL);
	_exit(125);
}
