/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. The child is cloned into its namespaces and does the rest itself, with the host's rights until its file system
 * stands: a tmpfs over the run folder, in the new mount namespace only, becomes its root. Files are bound by path, since a
 * mount may only be bound from the namespace that one is in. Then ids, and with them all capabilities, go away for good, and
 * QEMU is executed. There is no user namespace: QEMU's user has no file of its own to open, and a kernel with one thing less to
 * get wrong.
 *
 * An error is written whole into a pipe that closes when QEMU is executed.
 */
#include "engine/qemu/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "engine/qemu/arguments.h"

#define FIRST_FD 3
#define HIGH_FD 1024 /* above all that QEMU gets */
#define CGROUPS_MOST 16

struct child {
	const struct confine *how;
	int tasks[CGROUPS_MOST]; /* `tasks` of v1 cgroups */
	size_t task_count;
	int report;
};

/* --- its file system; the working folder is its root --- */

static int make_parents(const char *path, struct err *e)
{
	own_str char *folder = mem_strdup(path);
	char *slash = strrchr(folder, '/');

	if (!slash || slash == folder)
		return 0;
	*slash = '\0';
	return fs_mkdirs(folder, 0755, e);
}

/* Something of the host at `inside` (without the first slash); what the host does not have is passed over. */
static int bind(const char *path, const char *inside, unsigned long flags, struct err *e)
{
	struct stat st;
	char target[PATH_MAX];
	int r;

	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : err_errno(e, errno, "look at %s", path);
	if ((r = make_parents(inside, e)) < 0)
		return r;
	if (S_ISLNK(st.st_mode)) { /* /lib64 */
		ssize_t n = readlink(path, target, sizeof target - 1);
		if (n < 0)
			return err_errno(e, errno, "read the link %s", path);
		target[n] = '\0';
		return symlink(target, inside) < 0 ? err_errno(e, errno, "make the link %s", path) : 0;
	}
	if (S_ISDIR(st.st_mode)) {
		if ((r = fs_mkdirs(inside, 0755, e)) < 0)
			return r;
	} else {
		int fd = open(inside, O_WRONLY | O_CREAT | O_CLOEXEC, 0444);
		if (fd < 0)
			return err_errno(e, errno, "make a place for %s", path);
		(void)close(fd);
	}
	if (mount(path, inside, NULL, MS_BIND, NULL) < 0 ||
	    mount(NULL, inside, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | flags, NULL) < 0)
		return err_errno(e, errno, "show %s to QEMU", path);
	return 0;
}

/* The one file that QEMU may write by name, or, when it is to stay as it is, read. */
static int show_memory(const struct machine_plan *m, struct err *e)
{
	const char *inside = MACHINE_MEMORY + 1;
	unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC | (m->private_memory ? MS_RDONLY : 0);
	int r = *m->memory ? make_parents(inside, e) : 0;

	if (r < 0 || !*m->memory)
		return r;
	int fd = open(inside, O_WRONLY | O_CREAT | O_CLOEXEC, 0444);
	if (fd < 0)
		return err_errno(e, errno, "make a place for the memory");
	(void)close(fd);
	if (mount(m->memory, inside, NULL, MS_BIND, NULL) < 0 ||
	    mount(NULL, inside, NULL, MS_BIND | MS_REMOUNT | flags, NULL) < 0)
		return err_errno(e, errno, "show the memory file to QEMU");
	return m->private_memory ? bind(m->private_shim, MACHINE_PRIVATE + 1, MS_NODEV, e) : 0;
}

static int make_devices(const struct machine_plan *m, struct err *e)
{
	int r = bind("/dev/null", "dev/null", 0, e);

	if (r >= 0)
		r = bind("/dev/urandom", "dev/urandom", 0, e);
	if (r < 0 || !m->kvm)
		return r;
	struct stat st;
	if (stat("/dev/kvm", &st) < 0 || mknod("dev/kvm", S_IFCHR | 0600, st.st_rdev) < 0 ||
	    chown("dev/kvm", (uid_t)m->id, (gid_t)m->id) < 0)
		return err_errno(e, errno, "give /dev/kvm to QEMU");
	return 0;
}

static int make_root(const struct confine *c, struct err *e)
{
	const struct machine_plan *m = c->machine;
	int r;

	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return err_errno(e, errno, "make the mounts private");
	if (mount("machine", c->host->run_dir, "tmpfs", MS_NOSUID, "mode=755,size=1m") < 0 || chdir(c->host->run_dir) < 0)
		return err_errno(e, errno, "make a file system for QEMU");
	for (size_t i = 0; i < m->places.count; i++)
		if ((r = bind(m->places.items[i], m->places.items[i] + 1, MS_NODEV, e)) < 0)
			return r;
	if ((r = bind(m->kernel, MACHINE_KERNEL + 1, MS_NODEV, e)) < 0 ||
	    (r = bind(m->initramfs, MACHINE_INITRAMFS + 1, MS_NODEV, e)) < 0 || (r = show_memory(m, e)) < 0 ||
	    (r = make_devices(m, e)) < 0)
		return r;
	if (mount(NULL, ".", NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID, NULL) < 0)
		return err_errno(e, errno, "close QEMU's file system");
	if (syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
		return err_errno(e, errno, "enter QEMU's file system");
	return 0;
}

/* --- what it inherits --- */

static int place_fd(int from, int to)
{
	return dup2(from, to) == to ? 0 : -1;
}

static int lift(int *fd)
{
	int high = fcntl(*fd, F_DUPFD_CLOEXEC, HIGH_FD);

	*fd = high;
	return high < 0 ? -1 : 0;
}

static int place_fds(struct child *c, struct err *e)
{
	const struct confine *how = c->how;
	const struct rlimit files = { HIGH_FD * 4, HIGH_FD * 4 };
	own_str int *high = mem_alloc_array(how->fd_count + 1, sizeof *high);
	int errors = how->errors, null = open("/dev/null", O_RDONLY | O_CLOEXEC);

	(void)setrlimit(RLIMIT_NOFILE, &files);
	if (lift(&errors) < 0 || lift(&c->report) < 0 || lift(&null) < 0)
		return err_errno(e, errno, "move descriptors");
	for (size_t i = 0; i < how->fd_count; i++) {
		high[i] = how->fds[i];
		if (lift(&high[i]) < 0)
			return err_errno(e, errno, "move descriptors");
	}
	(void)syscall(SYS_close_range, 0, HIGH_FD - 1, 0);
	if (place_fd(null, 0) < 0 || place_fd(errors, 1) < 0 || place_fd(errors, 2) < 0)
		return err_errno(e, errno, "set standard streams");
	for (size_t i = 0; i < how->fd_count; i++)
		if (place_fd(high[i], FIRST_FD + (int)i) < 0)
			return err_errno(e, errno, "hand over descriptor %zu", i);
	return 0;
}

static int drop_rights(const struct machine_plan *m, struct err *e)
{
	const struct rlimit none = { 0, 0 };
	uid_t id = (uid_t)m->id;

	(void)umask(077);
	(void)setrlimit(RLIMIT_CORE, &none);
	if (m->identity.length) /* a clone translates little, and a page of 2 MiB is cleared and held for the least of it */
		(void)prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
	if (sethostname("machine", 7) < 0 || setgroups(0, NULL) < 0 || setresgid(id, id, id) < 0 || setresuid(id, id, id) < 0)
		return err_errno(e, errno, "become user %u", (unsigned)id);
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return err_errno(e, errno, "give rights away");
	return 0;
}

static int become_qemu(struct child *c, struct err *e)
{
	static const char *const plain[] = { "PATH=/usr/bin", "LC_ALL=C", "HOME=/", NULL };
	static const char preload[] = "LD_PRELOAD=" MACHINE_PRIVATE;
	static const char *const privately[] = { "PATH=/usr/bin", "LC_ALL=C", "HOME=/", preload, NULL };
	const char *const *environment = c->how->machine->private_memory ? privately : plain;
	sigset_t none;
	int r;

	(void)setsid();
	(void)umask(022);
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	(void)signal(SIGPIPE, SIG_DFL);
	for (size_t i = 0; i < c->task_count; i++)
		if (write(c->tasks[i], "0", 1) < 0)
			return err_errno(e, errno, "enter a cgroup");
	if ((r = make_root(c->how, e)) < 0 || (r = place_fds(c, e)) < 0 || (r = drop_rights(c->how->machine, e)) < 0)
		return r;
	char **argv = c->how->machine->argv.items;
	own_str char **list = mem_alloc_array(c->how->machine->argv.count + 1, sizeof *list);
	memcpy(list, argv, c->how->machine->argv.count * sizeof *list);
	(void)execve(argv[0], list, (char *const *)(uintptr_t)environment);
	int number = errno;
	r = err_errno(e, number, "start %s", argv[0]);
	return number == ENOENT ? err_hint(e, "install qemu-system-x86") : r;
}

/* --- in the runner --- */

static int open_cgroups(const struct plan *p, struct child *c, struct err *e)
{
	for (size_t i = 0; i < CGROUPS_MOST && p->cgroups_v1[i]; i++) {
		own_str char *path = mem_printf("%s/tasks", p->cgroups_v1[i]);
		c->tasks[i] = open(path, O_WRONLY | O_CLOEXEC);
		if (c->tasks[i] < 0)
			return err_errno(e, errno, "open %s", path);
		c->task_count++;
	}
	return 0;
}

static int clone_child(struct child *c, int *ret_pidfd, pid_t *ret_pid, struct err *e)
{
	const char *v2 = c->how->host->cgroup_v2;
	own_fd int cgroup = -1;
	struct clone_args args = {
		.flags = CLONE_PIDFD | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET,
		.pidfd = (uintptr_t)ret_pidfd,
		.exit_signal = SIGCHLD,
	};

	if (*v2) {
		cgroup = open(v2, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (cgroup < 0)
			return err_errno(e, errno, "open %s", v2);
		args.flags |= CLONE_INTO_CGROUP;
		args.cgroup = (uint64_t)cgroup;
	}
	pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof args);
	if (pid < 0)
		return err_errno(e, errno, "make a process for QEMU");
	if (pid > 0) {
		*ret_pid = pid;
		return 0;
	}
	struct err error = { 0 };
	if (become_qemu(c, &error) < 0)
		(void)!write(c->report, &error, sizeof error);
	_exit(127);
}

int confine_start(const struct confine *how, int *ret_pidfd, pid_t *ret_pid, struct err *e)
{
	struct child c = { .how = how };
	struct err error;
	int report[2], pidfd = -1, r;
	pid_t pid = 0;

	if (pipe2(report, O_CLOEXEC) < 0)
		return err_errno(e, errno, "make a pipe");
	own_fd int reading = report[0];
	c.report = report[1];
	if ((r = open_cgroups(how->host, &c, e)) >= 0)
		r = clone_child(&c, &pidfd, &pid, e);
	for (size_t i = 0; i < c.task_count; i++)
		(void)close(c.tasks[i]);
	(void)close(report[1]);
	if (r < 0)
		return r;
	ssize_t n = read(reading, &error, sizeof error);
	if (n != 0) {
		(void)syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
		(void)waitid(P_PIDFD, (id_t)pidfd, &(siginfo_t){ 0 }, WEXITED);
		(void)close(pidfd);
		if (n != sizeof error)
			return err_set(e, ERR_INTERNAL, "QEMU's process died before it began");
		*e = error;
		return -error.number;
	}
	*ret_pidfd = pidfd;
	*ret_pid = pid;
	return 0;
}
