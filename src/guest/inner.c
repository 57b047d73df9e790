/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. This machine is a small host with one workspace: birth.c makes it, enter.c enters it, carrel-checkpoint writes it and
 * makes it again, all as on a host. What differs is who gives the parts: disks in place of the host's mounts, cards in place of
 * cables, and the machine's supervisor in place of the agent's folders (manifest, order to go).
 *
 * Whatever is done here to depart can be undone until the machine is taken away: the workspace is frozen, not ended.
 */
#include "guest/inner.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/proc.h"
#include "base/str.h"
#include "engine/workspace/birth.h"
#include "engine/workspace/checkpoint_helper.h"
#include "engine/workspace/enter.h"
#include "engine/workspace/message.h"
#include "engine/workspace/program.h"
#include "guest/inner_network.h"
#include "model/travel.h"

#define FREEZE_MS 10000
#define END_MS 10000
#define HELPER_S (20 * 60) /* for memory of many gigabytes, by an emulated processor */
#define CGROUP_ROOT "/cgroup"
#define LUGGAGE TRAVEL_SCRATCH "/" TRAVEL_LUGGAGE
#define IMAGES TRAVEL_SCRATCH "/" TRAVEL_IMAGES

static struct {
	const struct plan *plan;
	const struct guest_config *config;
	struct world *world;
	struct birth birth;
	int plan_fd;
	int streams[3];           /* the pipes by name, opened for nothing: they end when the stream closes its ends */
	int helper, criu, socket; /* of a restore that waits for its order to go */
	bool frozen;
} inner = { .plan_fd = -1, .streams = { -1, -1, -1 }, .helper = -1, .criu = -1, .socket = -1 };

/* --- disks and cgroup --- */

static int put(int mount, const char *path, struct err *e)
{
	if (mkdir(path, 0755) < 0 && errno != EEXIST)
		return err_errno(e, errno, "make %s", path);
	if (syscall(SYS_move_mount, mount, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH) < 0)
		return err_errno(e, errno, "mount %s", path);
	return 0;
}

static int put_disk(const char *serial, const char *type, bool read_only, const char *path, struct err *e)
{
	own_fd int mount = -1;
	int r = world_mount_disk(serial, type, read_only, &mount, e);

	return r < 0 ? r : put(mount, path, e);
}

/* The one that the workspace gets is another mount of the same; that one is the machine's to freeze and to unmount. */
static int put_volume(const char *serial, const char *path, struct err *e)
{
	struct world *w = inner.world;
	struct birth *b = &inner.birth;
	int r = put_disk(serial, "ext4", false, path, e);

	if (r < 0)
		return r;
	if (b->volume_count == BIRTH_VOLUMES_MOST)
		return err_set(e, ERR_INVALID, "more than %d volumes", BIRTH_VOLUMES_MOST);
	int mount = (int)syscall(SYS_open_tree, AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (mount < 0 || (r = fs_open_dir(AT_FDCWD, path, &w->volumes[w->volume_count], e)) < 0)
		return mount < 0 ? err_errno(e, errno, "take volume %s", serial) : r;
	w->serials[w->volume_count++] = mem_strdup(serial);
	b->volumes[b->volume_count++] = (struct volume_mount){ mount, -1 };
	return 0;
}

static int put_disks(struct err *e)
{
	const struct guest_config *c = inner.config;
	const struct plan *p = inner.plan;
	int r = 0;

	for (size_t i = 0; r >= 0 && i < c->partitions.count; i++)
		r = p->partitions[i] ? put_disk(c->partitions.items[i], "erofs", true, p->partitions[i], e) :
				       err_set(e, ERR_INVALID, "a partition has no place");
	if (r >= 0)
		r = put_volume(c->root, TRAVEL_SCRATCH "/v", e);
	for (size_t i = 0; r >= 0 && p->volumes[i]; i++) {
		const char *serial = world_serial_of(c, p->volumes[i]);
		own_str char *path = mem_printf(TRAVEL_SCRATCH "/d%zu", i);
		r = serial ? put_volume(serial, path, e) : err_set(e, ERR_INVALID, "volume %s has no disk", p->volumes[i]);
	}
	return r;
}

static int make_cgroup(struct err *e)
{
	static const char *const theirs[] = { "", "/cgroup.procs", "/cgroup.threads", "/cgroup.subtree_control" };
	uid_t owner = (uid_t)inner.plan->first_id;

	if (!*inner.plan->cgroup_v2)
		return 0;
	if (mount("cgroup2", CGROUP_ROOT, "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0 ||
	    mkdir(TRAVEL_CGROUP, 0755) < 0)
		return err_errno(e, errno, "make the workspace's cgroup");
	for (size_t i = 0; i < ARRAY_SIZE(theirs); i++) {
		own_str char *path = mem_printf(TRAVEL_CGROUP "%s", theirs[i]);
		if (chown(path, owner, owner) < 0)
			return err_errno(e, errno, "give %s to the workspace", path);
	}
	return 0;
}

static int keep_plan(struct err *e)
{
	const struct guest_bytes *plan = &inner.config->plan;
	own_fd int fd = memfd_create("plan", MFD_CLOEXEC);
	int r = fd < 0 ? err_errno(e, errno, "make memory file") : fs_write_all(fd, plan->bytes, plan->length, e);

	if (r < 0)
		return r;
	inner.plan_fd = TAKE_FD(fd);
	return 0;
}

static int begin(struct world *w, const struct plan *p, const struct guest_config *c, struct err *e)
{
	inner.world = w;
	inner.plan = p;
	inner.config = c;
	birth_init(&inner.birth, p);
	if (mount("carrel", TRAVEL_SCRATCH, "tmpfs", MS_NOSUID | MS_NODEV, "mode=711,size=64k") < 0)
		return err_errno(e, errno, "make a scratch folder");
	int r = fs_open_dir(AT_FDCWD, TRAVEL_SCRATCH, &w->root, e);
	if (r < 0 || (r = keep_plan(e)) < 0 || (r = make_cgroup(e)) < 0)
		return r;
	return put_disks(e);
}

/* --- the first process --- */

/* One that nobody will write to: "it was executed". */
static int ended_sync(int *ret_sync, struct err *e)
{
	int pair[2], r = message_pair(pair, e);

	if (r < 0)
		return r;
	(void)close(pair[1]);
	*ret_sync = pair[0];
	return 0;
}

static int unblock(const struct child *c, struct err *e)
{
	const int fds[] = { c->input, c->output, c->errors, c->terminal };
	int r = 0;

	for (size_t i = 0; r >= 0 && i < ARRAY_SIZE(fds); i++)
		r = fds[i] >= 0 ? fs_set_blocking(fds[i], false, e) : 0;
	return r;
}

static void name_streams(const struct child *c)
{
	const int fds[] = { c->input, c->output, c->errors };

	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		own_str char *path = mem_printf("/proc/self/fd/%d", fds[i]);
		inner.streams[i] = fds[i] >= 0 ? open(path, O_PATH | O_CLOEXEC) : -1;
	}
}

static int connect_new(struct err *e)
{
	own_str char *path = mem_printf("/proc/%d/ns/net", (int)inner.birth.pid);
	own_fd int network = open(path, O_RDONLY | O_CLOEXEC);

	return network < 0 ? err_errno(e, errno, "open %s", path) :
			     inner_network_set(network, &inner.config->interfaces, false, e);
}

static int start(struct child *ret_child, struct err *e)
{
	struct birth *b = &inner.birth;
	int r = birth_begin(b, e);

	if (r >= 0 && (r = connect_new(e)) >= 0)
		r = birth_complete(b, e);
	if (r >= 0)
		r = birth_release(b, e);
	if (r < 0) {
		birth_undo(b);
		return r;
	}
	birth_close_volumes(b);
	int pidfd = fcntl(b->pidfd, F_DUPFD_CLOEXEC, 0); /* the stream closes its own */
	*ret_child = (struct child){ .pidfd = pidfd, .sync = b->sync, .input = b->input, .output = b->output,
				     .errors = b->errors, .terminal = b->terminal };
	b->sync = -1;
	name_streams(ret_child);
	return unblock(ret_child, e);
}

/* --- carrel-checkpoint --- */

static int start_helper(const char *verb, const char *number, const struct proc_fd *more, size_t count, int folder,
			struct err *e)
{
	static const char *const environment[] = { "PATH=/usr/sbin:/usr/bin:/sbin:/bin", NULL };
	const char *const argv[] = { "/libexec/carrel/carrel-checkpoint", verb, number, "inside", NULL };
	struct proc_fd fds[BIRTH_VOLUMES_MOST + 5];
	int pair[2], r = message_pair(pair, e);

	if (r < 0)
		return r;
	own_fd int ours = pair[0], theirs = pair[1];
	memcpy(fds, (struct proc_fd[]){ { 0, -1 }, { 1, -1 }, { CHECKPOINT_SOCKET, theirs }, { CHECKPOINT_PLAN, inner.plan_fd },
					{ CHECKPOINT_FOLDER, folder } }, 5 * sizeof *fds);
	memcpy(fds + 5, more, count * sizeof *fds);
	const struct proc_spawn how = { .argv = argv, .env = environment, .fds = fds, .fd_count = 5 + count,
					.die_with_parent = true };
	const struct timeval patience = { .tv_sec = HELPER_S };
	if (setsockopt(ours, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) < 0)
		return err_errno(e, errno, "set how long carrel-checkpoint is waited for");
	if ((r = proc_start(&how, &inner.helper, NULL, e)) < 0)
		return r;
	inner.socket = TAKE_FD(ours);
	return 0;
}

static void end_child(int *pidfd, bool kill_it)
{
	struct pollfd end = { .fd = *pidfd, .events = POLLIN };

	if (*pidfd < 0)
		return;
	if (kill_it || poll(&end, 1, END_MS) == 0)
		(void)syscall(SYS_pidfd_send_signal, *pidfd, SIGKILL, NULL, 0);
	(void)waitid(P_PIDFD, (id_t)*pidfd, &(siginfo_t){ 0 }, WEXITED);
	own_close(pidfd);
	*pidfd = -1;
}

static void end_helper(bool kill_it)
{
	end_child(&inner.helper, kill_it);
	end_child(&inner.criu, kill_it);
	own_close(&inner.socket);
	inner.socket = -1;
}

static void close_all(int *fds)
{
	for (size_t i = 0; i < MESSAGE_FDS_MOST; i++)
		own_close(&fds[i]);
}

/* What it says until it says `wanted`. What came with other messages, or with more than was asked for, is closed. */
static int await_helper(int wanted, int *ret_fds, struct err *e)
{
	int fds[MESSAGE_FDS_MOST], kind, r;

	while ((r = message_receive(inner.socket, &kind, fds, e)) > 0 && kind != wanted) {
		if (kind == MESSAGE_ENTERED) {
			own_close(&inner.criu);
			inner.criu = TAKE_FD(fds[0]);
		} else if (kind == MESSAGE_NAMESPACES) {
			r = inner_network_set(fds[0], &inner.config->interfaces, false, e);
			if (r >= 0)
				r = message_send(inner.socket, MESSAGE_GO, NULL, NULL, 0, e);
		}
		close_all(fds);
		if (r < 0)
			return r;
	}
	if (r == 0)
		r = err_set(e, ERR_INTERNAL, "carrel-checkpoint ended before it was done");
	else if (r > 0 && ret_fds)
		memcpy(ret_fds, fds, sizeof fds);
	else if (r > 0)
		close_all(fds);
	return r < 0 ? r : 0;
}

/* --- arrival --- */

static bool has_word(const char *line, const char *word)
{
	size_t n = strlen(word);

	for (const char *at = line; (at = strstr(at, word)) != NULL; at += n)
		if ((at == line || at[-1] == ' ') && (at[n] == ' ' || at[n] == '\n' || !at[n]))
			return true;
	return false;
}

static int check_processor(struct err *e)
{
	own_strbuf struct str text = { 0 };
	const struct guest_texts *wanted = &inner.config->features;
	int r = fs_read_file(AT_FDCWD, "/proc/cpuinfo", 4 << 20, &text, e);
	const char *flags = r < 0 ? NULL : strstr(str_text(&text), "\nflags");
	own_str char *line = flags ? mem_strndup(flags, 1 + strcspn(flags + 1, "\n")) : mem_strdup("");

	for (size_t i = 0; r >= 0 && i < wanted->count; i++)
		if (!has_word(line, wanted->items[i]))
			r = err_set(e, ERR_UNSUPPORTED,
				    "the machine's processor has no %s, which programs of the workspace may be using",
				    wanted->items[i]);
	return r < 0 ? r : 0;
}

static int arrive(struct err *e)
{
	const struct birth *b = &inner.birth;
	struct proc_fd more[BIRTH_VOLUMES_MOST];
	own_fd int images = -1;
	char number[16];
	int r = check_processor(e);

	if (r < 0 || (r = put_disk(inner.config->images, "erofs", true, IMAGES, e)) < 0 ||
	    (r = fs_open_dir(AT_FDCWD, IMAGES, &images, e)) < 0)
		return r;
	for (size_t i = 0; i < b->volume_count; i++)
		more[i] = (struct proc_fd){ CHECKPOINT_VOLUMES + (int)i, b->volumes[i].mount_fd };
	(void)snprintf(number, sizeof number, "%zu", b->volume_count);
	if ((r = start_helper("restore", number, more, b->volume_count, images, e)) >= 0)
		r = await_helper(MESSAGE_READY, NULL, e);
	if (r < 0)
		end_helper(true);
	return r;
}

static void take_streams(const int *fds, struct child *c)
{
	size_t at = 0;

	c->pidfd = fds[at++];
	if (inner.plan->flags & PLAN_TERMINAL) {
		c->terminal = fds[at++];
		inner.birth.terminal_peer = fds[at++];
		return;
	}
	if (inner.plan->flags & PLAN_INPUT)
		c->input = fds[at++];
	c->output = fds[at++];
	c->errors = fds[at++];
}

static int go(struct child *ret_child, struct err *e)
{
	struct birth *b = &inner.birth;
	struct child c = { .pidfd = -1, .sync = -1, .input = -1, .output = -1, .errors = -1, .terminal = -1 };
	int fds[MESSAGE_FDS_MOST];

	if (inner.socket < 0)
		return err_set(e, ERR_CONFLICT, "nobody has arrived");
	int r = message_send(inner.socket, MESSAGE_GO, NULL, NULL, 0, e);
	if (r >= 0)
		r = await_helper(MESSAGE_PREPARED, fds, e);
	if (r < 0) {
		end_helper(true);
		return r;
	}
	take_streams(fds, &c);
	end_helper(false);
	(void)umount2(IMAGES, MNT_DETACH);
	birth_close_volumes(b);
	b->pid = proc_pid(c.pidfd);
	b->pidfd = fcntl(c.pidfd, F_DUPFD_CLOEXEC, 0);
	if (b->pid <= 0 || b->pidfd < 0)
		r = err_set(e, ERR_INTERNAL, "the workspace ended as it arrived");
	if (r < 0 || (r = ended_sync(&c.sync, e)) < 0 || (r = unblock(&c, e)) < 0) {
		child_close(&c);
		return r;
	}
	name_streams(&c);
	*ret_child = c;
	return 0;
}

/* --- visitors --- */

static int enter_program(const struct child_how *how, struct child *ret_child, struct err *e)
{
	struct enter n = { .plan = inner.plan, .init = inner.birth.pid, .init_pidfd = inner.birth.pidfd, .argv = how->argv,
			   .environment = how->environment, .user = how->user, .directory = how->directory,
			   .terminal = how->terminal, .input = how->input, .rows = (unsigned short)how->rows,
			   .columns = (unsigned short)how->columns };
	struct child c = { .pidfd = -1, .sync = -1, .input = -1, .output = -1, .errors = -1, .terminal = -1 };
	int r = enter_workspace(&n, e);

	if (r < 0)
		return r;
	c.pidfd = n.pidfd;
	c.input = n.input_fd;
	c.output = n.output_fd;
	c.errors = n.errors_fd;
	c.terminal = n.terminal_fd;
	child_resize(&c, how->rows, how->columns);
	if ((r = ended_sync(&c.sync, e)) < 0 || (r = unblock(&c, e)) < 0) {
		child_close(&c);
		return r;
	}
	*ret_child = c;
	return 0;
}

static int go_inside(int init_pidfd, struct err *e)
{
	if (setns(init_pidfd, CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWCGROUP) < 0)
		return err_errno(e, errno, "enter the workspace's namespaces");
	if (setgroups(0, NULL) < 0 || setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0)
		return err_errno(e, errno, "become root of the workspace");
	return chdir("/") < 0 ? err_errno(e, errno, "go to the root") : 0;
}

static int enter(const struct child_how *how, struct child *ret_child, struct err *e)
{
	struct child_how copy = *how;

	if (how->kind == GUEST_EXEC)
		return enter_program(how, ret_child, e);
	copy.go_inside = go_inside;
	copy.init_pidfd = inner.birth.pidfd;
	return child_start(&copy, ret_child, e);
}

static int connect_links(const struct guest_objects *interfaces, bool afresh, struct err *e)
{
	own_str char *path = mem_printf("/proc/%d/ns/net", (int)inner.birth.pid);
	own_fd int network = inner.birth.pid > 0 ? open(path, O_RDONLY | O_CLOEXEC) : -1;

	if (!interfaces->count)
		return 0;
	return network < 0 ? err_set(e, ERR_CONFLICT, "the workspace does not run") :
			     inner_network_set(network, interfaces, afresh, e);
}

static int signal_first(int number, struct err *e)
{
	if (inner.birth.pidfd < 0 || syscall(SYS_pidfd_send_signal, inner.birth.pidfd, number, NULL, 0) < 0)
		return err_errno(e, errno, "send signal %d", number);
	return 0;
}

static int tell_init(struct err *e)
{
	static const char *const halt[] = { "/sbin/init", "0", NULL };
	int number = program_init_signal(inner.birth.pid);
	struct child_how how = { .plan = inner.plan, .kind = GUEST_EXEC, .argv = halt, .user = "0", .directory = "/" };
	struct child c;

	if (number)
		return signal_first(number, e);
	int r = enter_program(&how, &c, e);
	if (r >= 0)
		child_close(&c); /* its status is of no interest; it is reaped with us */
	return r;
}

/* --- departure --- */

static bool frozen_now(void)
{
	own_strbuf struct str text = { 0 };

	return fs_read_file(AT_FDCWD, TRAVEL_CGROUP "/cgroup.events", 4096, &text, NULL) >= 0 &&
	       strstr(str_text(&text), "frozen 1");
}

static int set_frozen(bool on, struct err *e)
{
	own_fd int fd = open(TRAVEL_CGROUP "/cgroup.freeze", O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, on ? "1" : "0", 1) < 0)
		return err_errno(e, errno, "%s the workspace", on ? "freeze" : "thaw");
	inner.frozen = on; /* or on the way: what does not come to a stop in time is thawed again, too */
	for (int i = 0; on && !frozen_now(); i++) {
		if (i == FREEZE_MS)
			return err_set(e, ERR_TIMEOUT, "the workspace is not frozen after %d s", FREEZE_MS / 1000);
		(void)poll(NULL, 0, 1);
	}
	return 0;
}

static int write_images(int folder, struct err *e)
{
	const struct birth *b = &inner.birth;
	const struct proc_fd more[] = { { CHECKPOINT_STREAMS, inner.streams[0] },
					{ CHECKPOINT_STREAMS + 1, inner.streams[1] },
					{ CHECKPOINT_STREAMS + 2, inner.streams[2] },
					{ CHECKPOINT_TERMINAL, b->terminal_peer } };
	char number[16];

	(void)snprintf(number, sizeof number, "%d", (int)b->pid);
	int r = start_helper("dump", number, more, ARRAY_SIZE(more), folder, e);
	if (r >= 0)
		r = await_helper(MESSAGE_PREPARED, NULL, e);
	end_helper(r < 0);
	return r;
}

static int pack(struct err *e)
{
	own_fd int folder = -1;
	int r = put_disk(inner.config->luggage, "ext4", false, LUGGAGE, e);

	if (r < 0)
		return r;
	r = fs_remove_tree(AT_FDCWD, LUGGAGE "/" TRAVEL_FOLDER, e);
	if (r >= 0 && mkdir(LUGGAGE "/" TRAVEL_FOLDER, 0700) < 0)
		r = err_errno(e, errno, "make a folder for the memory");
	if (r >= 0 && (r = fs_open_dir(AT_FDCWD, LUGGAGE "/" TRAVEL_FOLDER, &folder, e)) >= 0)
		r = write_images(folder, e);
	own_close(&folder);
	folder = -1;
	if (umount2(LUGGAGE, 0) < 0 && r >= 0)
		r = err_errno(e, errno, "unmount the luggage");
	return r;
}

static int stay(struct err *e)
{
	if (!inner.frozen)
		return 0;
	int r = world_freeze(inner.world, false, e), thawed = set_frozen(false, r < 0 ? NULL : e);

	return r < 0 ? r : thawed;
}

static int freeze(size_t visitors, struct err *e)
{
	if (inner.birth.pid <= 0)
		return err_set(e, ERR_CONFLICT, "the workspace does not run");
	if (visitors) {
		(void)err_set(e, ERR_CONFLICT, "%zu command%s started by exec, console or cp run%s in it", visitors,
			      visitors > 1 ? "s" : "", visitors > 1 ? "" : "s");
		return err_hint(e, "end them first: they belong to those who started them, who would not find them again");
	}
	return set_frozen(true, e);
}

static int depart(struct err *e)
{
	int r = pack(e);

	if (r >= 0)
		r = world_freeze(inner.world, true, e); /* written to their disks, with nothing to be replayed */
	if (r < 0)
		(void)!stay(NULL);
	return r;
}

const struct agent_inner inner_calls = {
	.begin = begin, .start = start, .arrive = arrive, .go = go, .enter = enter, .connect = connect_links,
	.tell_init = tell_init, .signal = signal_first, .freeze = freeze, .depart = depart, .stay = stay,
};
