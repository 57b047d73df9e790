/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. The order is given by who may do what, and by what can be done at the same time:
 *  1. here: partitions become private copies of their mounts, descriptors that no namespace holds;
 *  2. clone3 makes the first process with all its namespaces and, on v2, in its cgroup. It inherits the descriptors;
 *  3. here: the id range is written into the new user namespace, and the copies are mapped to it (mount_setattr), which only a
 *     process with rights over the file systems may do;
 *  4. there (inside.c): /dev, /proc and /sys are made aside, while the agent still attaches and mounts the volumes (volume.c);
 *  5. here: the volumes' mounts arrive, are mapped too and passed on;
 *  6. there: everything else. The overlay is mounted with the workspace's own rights.
 * The v1 cgroups are entered by the first process itself, writing "0" to `tasks`: the kernel moves a thread that asks for
 * itself without waiting for a grace period (docs/decisions/0020). The descriptors for it were opened here, whose rights count.
 */
#include "engine/workspace/birth.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "engine/workspace/inside.h"
#include "engine/workspace/message.h"

/* Documentation/admin-guide/devices.txt */
#define TUN_MAJOR 10
#define TUN_MINOR 200

void birth_init(struct birth *b, const struct plan *p)
{
	*b = (struct birth){ .plan = p,
			     .pidfd = -1,
			     .sync = -1,
			     .user_namespace = -1,
			     .input = -1,
			     .output = -1,
			     .errors = -1,
			     .terminal = -1,
			     .terminal_peer = -1,
			     .mounts = -1 };
}

static void close_one(int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
	*fd = -1;
}

void birth_close_volumes(struct birth *b)
{
	for (size_t i = 0; i < b->volume_count; i++)
		volume_mount_close(&b->volumes[i]);
	b->volume_count = 0;
	close_one(&b->mounts);
}

void birth_hold_mounts(struct birth *b)
{
	char path[64];

	(void)snprintf(path, sizeof path, "/proc/%d/ns/mnt", (int)b->pid);
	b->mounts = open(path, O_RDONLY | O_CLOEXEC); /* not held: the end is told later */
}

void birth_undo(struct birth *b)
{
	if (b->pidfd >= 0) {
		(void)syscall(SYS_pidfd_send_signal, b->pidfd, SIGKILL, NULL, 0);
		(void)waitid(P_PIDFD, (id_t)b->pidfd, &(siginfo_t){ 0 }, WEXITED);
	}
	close_one(&b->pidfd);
	close_one(&b->sync);
	close_one(&b->user_namespace);
	close_one(&b->input);
	close_one(&b->output);
	close_one(&b->errors);
	close_one(&b->terminal);
	close_one(&b->terminal_peer);
	birth_close_volumes(b);
}

/* --- what the first process gets --- */

int inside_open_layers(const struct plan *p, struct inside *in, struct err *e)
{
	for (size_t i = 0; p->partitions[i]; i++) {
		int fd = (int)syscall(SYS_open_tree, AT_FDCWD, p->partitions[i], OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
		if (fd < 0)
			return err_errno(e, errno, "open partition %s", p->partitions[i]);
		MEM_PUSH_ROOM(in->layers, in->layer_count, in->layer_room);
		in->layers[in->layer_count++] = fd;
	}
	return 0;
}

/* Its path may lead through folders that the workspace's ids cannot look into. */
static int open_first(const struct plan *p, struct inside *in, struct err *e)
{
	for (size_t i = 0; i < p->step_count; i++) {
		if (p->steps[i].kind != STEP_FIRST)
			continue;
		in->first = (int)syscall(SYS_open_tree, AT_FDCWD, p->steps[i].source, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
		if (in->first < 0)
			return err_errno(e, errno, "open %s", p->steps[i].source);
	}
	return 0;
}

/*
 * A folder with one device in it, as udev makes it: everybody may open it, and the kernel asks for CAP_NET_ADMIN over the
 * network namespace of who opened it. Ours, because the host's device may be closed to ids other than its root's, and only we
 * may make devices.
 */
int birth_make_tun(int *ret_mount, struct err *e)
{
	struct mount_attr a = { .attr_set = MOUNT_ATTR_RDONLY };
	own_fd int fs = (int)syscall(SYS_fsopen, "tmpfs", FSOPEN_CLOEXEC);
	if (fs < 0 || syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, "nr_inodes", "2", 0) < 0 ||
	    syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, "mode", "755", 0) < 0 ||
	    syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return err_errno(e, errno, "make a file system for /dev/net");
	own_fd int mount = (int)syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
	if (mount < 0 || mknodat(mount, "tun", S_IFCHR | 0666, makedev(TUN_MAJOR, TUN_MINOR)) < 0 ||
	    fchmodat(mount, "tun", 0666, 0) < 0 || syscall(SYS_mount_setattr, mount, "", AT_EMPTY_PATH, &a, sizeof a) < 0)
		return err_errno(e, errno, "make /dev/net/tun");
	*ret_mount = TAKE_FD(mount);
	return 0;
}

static int open_tun(const struct plan *p, struct inside *in, struct err *e)
{
	for (size_t i = 0; i < p->step_count; i++)
		if (p->steps[i].kind == STEP_TUN)
			return birth_make_tun(&in->tun, e);
	return 0;
}

static int open_foreign(const struct plan *p, struct inside *in, struct err *e)
{
	for (size_t i = 0; i < p->step_count; i++) {
		if (p->steps[i].kind != STEP_FOREIGN || in->foreign >= 0)
			continue;
		in->foreign = open(p->steps[i].source, O_PATH | O_CLOEXEC);
		if (in->foreign < 0)
			return err_errno(e, errno, "open %s", p->steps[i].source);
	}
	return 0;
}

static int open_cgroups(const struct plan *p, struct inside *in, struct err *e)
{
	for (size_t i = 0; p->cgroups_v1[i]; i++) {
		if (i == INSIDE_CGROUPS_MOST)
			return err_set(e, ERR_INVALID, "more than %d cgroups", INSIDE_CGROUPS_MOST);
		own_str char *path = mem_printf("%s/tasks", p->cgroups_v1[i]);
		in->tasks[i] = open(path, O_WRONLY | O_CLOEXEC);
		if (in->tasks[i] < 0)
			return err_errno(e, errno, "open %s", path);
		in->task_count++;
	}
	return 0;
}

/* Pipes belong to the workspace's root, so that a program may open /dev/stdout again. */
int birth_make_pipe(const struct plan *p, int *ret_read, int *ret_write, struct err *e)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) < 0)
		return err_errno(e, errno, "make pipe");
	*ret_read = ends[0];
	*ret_write = ends[1];
	if (fchown(ends[0], (uid_t)p->first_id, (gid_t)p->first_id) < 0)
		return err_errno(e, errno, "give a pipe to the workspace");
	return 0;
}

static int make_pipes(struct birth *b, struct inside *in, struct err *e)
{
	int r = 0;

	if (b->plan->flags & (PLAN_TERMINAL | PLAN_MAINTENANCE))
		return 0;
	if (b->plan->flags & PLAN_INPUT)
		r = birth_make_pipe(b->plan, &in->standard[0], &b->input, e);
	if (r >= 0)
		r = birth_make_pipe(b->plan, &b->output, &in->standard[1], e);
	if (r >= 0)
		r = birth_make_pipe(b->plan, &b->errors, &in->standard[2], e);
	return r;
}

/* --- the first process --- */

static int clone_first(const struct plan *p, int *ret_pidfd, pid_t *ret_pid, struct err *e)
{
	own_fd int cgroup = -1;
	struct clone_args args = {
		.flags = CLONE_PIDFD | CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS |
			 CLONE_NEWTIME | (p->flags & PLAN_HOST_NETWORK ? 0 : CLONE_NEWNET),
		.pidfd = (uintptr_t)ret_pidfd,
		.exit_signal = SIGCHLD,
	};

	if (*p->cgroup_v2) {
		cgroup = open(p->cgroup_v2, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (cgroup < 0)
			return err_errno(e, errno, "open %s", p->cgroup_v2);
		args.flags |= CLONE_INTO_CGROUP;
		args.cgroup = (uint64_t)cgroup;
	}
	pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof args);
	if (pid < 0) {
		int r = err_errno(e, errno, "make the first process");
		return errno == ENOSPC ? err_hint(e, "see the limits in /proc/sys/user/max_*_namespaces") : r;
	}
	*ret_pid = pid;
	return 0;
}

static int write_map(pid_t pid, const char *file, uint64_t first, struct err *e)
{
	char path[64], text[64];

	(void)snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, file);
	int length = snprintf(text, sizeof text, "0 %llu 65536\n", (unsigned long long)first);
	own_fd int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, text, (size_t)length) < 0)
		return err_errno(e, errno, "write the id range to %s", path);
	return 0;
}

int birth_map_mount(int mount, int user_namespace, const char *what, struct err *e)
{
	struct mount_attr a = { .attr_set = MOUNT_ATTR_IDMAP, .userns_fd = (uint64_t)user_namespace };

	if (syscall(SYS_mount_setattr, mount, "", AT_EMPTY_PATH, &a, sizeof a) < 0)
		return err_errno(e, errno, "map the ids of %s", what);
	return 0;
}

static int map_ids(struct birth *b, const struct inside *in, struct err *e)
{
	char path[64];
	int r = write_map(b->pid, "uid_map", b->plan->first_id, e);

	if (r < 0 || (r = write_map(b->pid, "gid_map", b->plan->first_id, e)) < 0)
		return r;
	(void)snprintf(path, sizeof path, "/proc/%d/ns/user", (int)b->pid);
	own_fd int user = open(path, O_RDONLY | O_CLOEXEC);
	if (user < 0)
		return err_errno(e, errno, "open %s", path);
	for (size_t i = 0; i < in->layer_count; i++)
		if ((r = birth_map_mount(in->layers[i], user, b->plan->partitions[i], e)) < 0)
			return r;
	b->user_namespace = TAKE_FD(user);
	return 0;
}

static int grow_up(struct birth *b, struct inside *in, struct err *e)
{
	int pair[2];
	int r = message_pair(pair, e);
	if (r < 0)
		return r;
	b->sync = pair[0];
	in->sync = pair[1];
	in->parent_sync = pair[0];
	if ((r = clone_first(b->plan, &b->pidfd, &b->pid, e)) == 0 && b->pid == 0)
		inside_first_process(in); /* does not return */
	close_one(&in->sync);
	if (r < 0 || (r = map_ids(b, in, e)) < 0)
		return r;
	return message_send(b->sync, MESSAGE_GO, NULL, NULL, 0, e);
}

int birth_begin(struct birth *b, struct err *e)
{
	struct inside in = { .plan = b->plan, .sync = -1, .first = -1, .tun = -1, .foreign = -1, .standard = { -1, -1, -1 } };
	int r = inside_open_layers(b->plan, &in, e);

	if (r >= 0)
		r = open_first(b->plan, &in, e);
	if (r >= 0)
		r = open_tun(b->plan, &in, e);
	if (r >= 0)
		r = open_foreign(b->plan, &in, e);
	if (r >= 0)
		r = open_cgroups(b->plan, &in, e);
	if (r >= 0)
		r = make_pipes(b, &in, e);
	if (r >= 0)
		r = grow_up(b, &in, e);
	for (size_t i = 0; i < in.layer_count; i++)
		(void)close(in.layers[i]);
	free(in.layers);
	close_one(&in.first);
	close_one(&in.tun);
	close_one(&in.foreign);
	for (size_t i = 0; i < in.task_count; i++)
		close_one(&in.tasks[i]);
	for (size_t i = 0; i < ARRAY_SIZE(in.standard); i++)
		close_one(&in.standard[i]);
	return r;
}

int birth_complete(struct birth *b, struct err *e)
{
	int kind, fds[MESSAGE_FDS_MOST], r;

	for (size_t i = 0; i < b->volume_count; i++) {
		fds[i] = b->volumes[i].mount_fd;
		if ((r = birth_map_mount(fds[i], b->user_namespace, i ? b->plan->volumes[i - 1] : "the root volume", e)) < 0)
			return r;
	}
	close_one(&b->user_namespace);
	if ((r = message_send(b->sync, MESSAGE_GO, NULL, fds, b->volume_count, e)) < 0)
		return r;
	if ((r = message_receive(b->sync, &kind, fds, e)) < 0)
		return r;
	if (r == 0 || kind != MESSAGE_PREPARED)
		return err_set(e, ERR_INTERNAL, "the first process died while it was set up");
	b->terminal = fds[0];
	b->terminal_peer = fds[1];
	return 0;
}

int birth_release(struct birth *b, struct err *e) { return message_send(b->sync, MESSAGE_GO, NULL, NULL, 0, e); }

int birth_executed(struct birth *b, struct err *e)
{
	int kind, r = message_receive(b->sync, &kind, NULL, e);

	if (r > 0)
		return err_set(e, ERR_INTERNAL, "the first process said %d instead of going on", kind);
	if (r == 0)
		close_one(&b->sync);
	return r;
}
