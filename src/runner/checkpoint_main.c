/* SPDX-License-Identifier: Apache-2.0 */
/*
 * carrel-checkpoint: one workspace to disk, or back, by CRIU. A program of its own, so that carrel-run, which stands beside
 * every workspace, has none of it.
 *
 * The workspace is frozen while it is written, and stays so: whether it ends or goes on is decided by carrel-run when all is on
 * disk. Everything here has a time-out, and everything that is started dies with its parent. CRIU needs root on the host; it
 * runs without network descriptors of ours, in the workspace's cgroup when it restores (what it allocates is the workspace's
 * memory), and reads and writes one folder. checkpoint.c says what is whose.
 */
#include "runner/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/own.h"
#include "engine/workspace/inside.h"
#include "engine/workspace/message.h"
#include "model/memory_place.h"
#include "model/interfaces_of_kernel.h"
#include "network/link.h"
#include "runner/checkpoint_private.h"
#include "runner/network.h"

/* exists everywhere, and is covered in a mount namespace of our own; CRIU's own scratch folders are there too */
#define SCRATCH "/tmp"
#define INPUT_MOST (1 << 20)
#define CRIU_STREAMS 4 /* descriptors in CRIU: three, and the terminal */

/* --- the network namespace --- */

static int in_network(const struct job *j, int (*what)(const struct job *j, struct err *e), struct err *e)
{
	own_str char *path = mem_printf("/proc/%d/ns/net", (int)j->first);
	own_fd int here = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC), there = open(path, O_RDONLY | O_CLOEXEC);

	if (here < 0 || there < 0 || setns(there, CLONE_NEWNET) < 0)
		return err_errno(e, errno, "enter %s", path);
	int r = what(j, e);
	if (setns(here, CLONE_NEWNET) < 0)
		return err_errno(e, errno, "come back from %s", path);
	return r;
}

static int raise_loopback(const struct job *j, struct err *e)
{
	(void)j;
	return inside_raise_loopback(e);
}

static void seen_port(void *data, const struct link_found *link)
{
	struct job *j = data;

	if (str_eq(link->owner, j->plan.id) && j->cable_count < INTERFACES_MOST)
		j->cables[j->cable_count++] = link->above;
}

/*
 * Interfaces are made anew at a resume, as the workspace has them then: those of the plan, and what was plugged later, which
 * is a cable's end, or a card inside a machine. Some kernels put a few of their own into each namespace.
 */
static bool will_be_there(const struct job *j, const struct if_nameindex *i)
{
	if (interface_is_kernels(i->if_name) || (j->inside && link_find(i->if_name).card))
		return true;
	for (size_t n = 0; n < j->cable_count; n++)
		if (j->cables[n] == i->if_index)
			return true;
	for (const char **at = j->plan.interfaces; *at; at += INTERFACE_TEXTS)
		if (str_eq(at[INTERFACE_DEVICE], i->if_name))
			return true;
	return false;
}

static int refuse_interfaces(const struct job *j, struct err *e)
{
	struct if_nameindex *all = if_nameindex();
	int r = all ? 0 : err_errno(e, errno, "list the interfaces of the workspace");

	for (struct if_nameindex *i = all; r == 0 && i->if_index; i++) {
		if (will_be_there(j, i))
			continue;
		(void)err_set(e, ERR_UNSUPPORTED, "the workspace made itself an interface, %s, that could not be made again",
			      i->if_name);
		r = err_hint(e, "take it away first (ip link del %s)", i->if_name);
	}
	if (all)
		if_freenameindex(all);
	return r;
}

static int check_interfaces(struct job *j, struct err *e)
{
	int r = j->inside ? 0 : link_survey(seen_port, j, e);

	return r < 0 ? r : in_network(j, refuse_interfaces, e);
}

/* --- dump --- */

static int save_first(const struct job *j, struct err *e)
{
	own_str char *path = mem_printf("/proc/%d/exe", (int)j->first);
	own_strbuf struct str bytes = { 0 };
	bool wanted = false;

	for (size_t i = 0; i < j->record.mount_count; i++)
		wanted |= j->record.mounts[i].from == CHECKPOINT_FIRST_FILE;
	if (!wanted)
		return 0;
	int r = fs_read_file(AT_FDCWD, path, 1 << 20, &bytes, e);
	return r < 0 ? r : fs_write_file(CHECKPOINT_FOLDER, CHECKPOINT_FIRST, bytes.bytes, bytes.length, 0600, false, e);
}

/* What nobody has read yet stays in the pipe: if the dump fails the program still finds it there. */
static int save_input(struct err *e)
{
	own_str char *path = mem_printf("/proc/self/fd/%d", CHECKPOINT_STREAMS);
	own_fd int reader = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	own_strbuf struct str bytes = { 0 };
	int copy[2];

	if (reader < 0 || pipe2(copy, O_CLOEXEC) < 0)
		return err_errno(e, errno, "look into the standard input");
	own_fd int out = copy[0], in = copy[1];
	(void)fcntl(in, F_SETPIPE_SZ, fcntl(reader, F_GETPIPE_SZ));
	ssize_t n = tee(reader, in, INPUT_MOST, SPLICE_F_NONBLOCK);
	if (n < 0 && errno != EAGAIN)
		return err_errno(e, errno, "copy the standard input");
	own_close(&in);
	in = -1;
	int r = fs_read_fd(out, INPUT_MOST, &bytes, e);
	if (r < 0 || !bytes.length)
		return r;
	return fs_write_file(CHECKPOINT_FOLDER, CHECKPOINT_INPUT, bytes.bytes, bytes.length, 0600, false, e);
}

static int note_streams(struct job *j, struct err *e)
{
	struct stat st;

	for (int i = 0; i < 3; i++)
		if (fstat(CHECKPOINT_STREAMS + i, &st) == 0 && S_ISFIFO(st.st_mode))
			j->record.pipes[i] = st.st_ino;
	if (fstat(CHECKPOINT_TERMINAL, &st) == 0 && S_ISCHR(st.st_mode) && isatty(CHECKPOINT_TERMINAL)) {
		j->record.terminal_device = st.st_rdev;
		j->record.terminal_file = st.st_dev;
	}
	return j->record.pipes[0] ? save_input(e) : 0;
}

static int note(struct job *j, struct err *e)
{
	own_str char *path = mem_printf("/proc/%d/mountinfo", (int)j->first);
	own_strbuf struct str mounts = { 0 }, record = { 0 };
	int r = fs_read_file(AT_FDCWD, path, 16 << 20, &mounts, e);

	if (r < 0 || (r = checkpoint_find_mounts(&j->plan, str_text(&mounts), &j->record, e)) < 0 ||
	    (r = note_streams(j, e)) < 0 || (r = checkpoint_cgroups_read(&j->plan, &j->record, e)) < 0 ||
	    (r = save_first(j, e)) < 0)
		return r;
	checkpoint_encode(&j->record, &record);
	return fs_write_file(CHECKPOINT_FOLDER, CHECKPOINT_RECORD, record.bytes, record.length, 0600, false, e);
}

/* Writing of all begins before the first is waited for. */
static int sync_all(struct err *e)
{
	for (int pass = 0; pass < 2; pass++) {
		own_dir DIR *dir = fdopendir(dup(CHECKPOINT_FOLDER));
		struct dirent *d;
		int r = dir ? 0 : err_errno(e, errno, "read the folder");
		while (r == 0 && (r = fs_next_entry(dir, &d, e)) > 0) {
			r = 0;
			if (d->d_name[0] == '.')
				continue;
			own_fd int fd = openat(CHECKPOINT_FOLDER, d->d_name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
			if (fd < 0 || (pass == 0 ? sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE) : fsync(fd)) < 0)
				return err_errno(e, errno, "write %s to the disk", d->d_name);
		}
		if (r < 0)
			return r;
		rewinddir(dir);
	}
	return fsync(CHECKPOINT_FOLDER) < 0 ? err_errno(e, errno, "write the folder to the disk") : 0;
}

static int dump(struct job *j, struct err *e)
{
	struct checkpoint_options o;
	struct checkpoint_answer a = { 0 };
	const char *file = j->plan.freeze_path;
	own_str char *freezer = *file ? mem_strndup(file, (size_t)(strrchr(file, '/') - file)) : NULL;
	int r = check_interfaces(j, e);

	if (r < 0 || (r = note(j, e)) < 0 || (r = criu_start(j, e)) < 0)
		return r;
	struct checkpoint_how how = { .folder_fd = CHECKPOINT_FOLDER, .pid = j->first, .freeze_folder = freezer,
				      .seconds = CHECKPOINT_PATIENCE_S };
	checkpoint_dump_options(&j->record, &how, &o);
	if ((r = criu_ask(j, CHECKPOINT_DUMP, &o, e)) < 0 || (r = criu_hear(j, &a, e)) < 0)
		return r;
	if (!a.success)
		return criu_failed(j, &a, "suspend", e);
	if ((r = fault_point("checkpoint.dumped")) > 0)
		return err_errno(e, r, "after the dump");
	if ((r = sync_all(e)) < 0)
		return r;
	return message_send(CHECKPOINT_SOCKET, MESSAGE_PREPARED, NULL, NULL, 0, e);
}

/* --- restore --- */

static int read_record(struct job *j, struct err *e)
{
	own_strbuf struct str text = { 0 };
	int r = fs_read_file(CHECKPOINT_FOLDER, CHECKPOINT_RECORD, CHECKPOINT_RECORD_MOST, &text, e);

	if (r < 0 || (r = checkpoint_decode(str_text(&text), text.length, &j->record, e)) < 0)
		return r;
	return checkpoint_check(&j->record, &j->plan, e);
}

static int make_streams(struct job *j, struct err *e)
{
	own_strbuf struct str input = { 0 };
	int r = 0;

	if (j->plan.flags & PLAN_TERMINAL)
		return checkpoint_tree_terminal(&j->tree, e);
	if (j->plan.flags & PLAN_INPUT)
		r = birth_make_pipe(&j->plan, &j->theirs[0], &j->ours[0], e);
	for (int i = 1; r >= 0 && i < 3; i++)
		r = birth_make_pipe(&j->plan, &j->ours[i], &j->theirs[i], e);
	if (r < 0 || j->ours[0] < 0 || fs_read_file(CHECKPOINT_FOLDER, CHECKPOINT_INPUT, INPUT_MOST, &input, NULL) < 0)
		return r;
	(void)fcntl(j->ours[0], F_SETPIPE_SZ, INPUT_MOST);
	return fs_write_all(j->ours[0], input.bytes, input.length, e);
}

/* The agent of the machine does its part, and says so. */
static int leave_it_to_them(int kind, const int *fds, size_t count, struct err *e)
{
	int said, r = message_send(CHECKPOINT_SOCKET, kind, NULL, fds, count, e);

	if (r < 0 || (r = message_receive(CHECKPOINT_SOCKET, &said, NULL, e)) < 0)
		return r;
	return r > 0 && said == MESSAGE_GO ? 0 : err_set(e, ERR_CANCELLED, "nobody waits for the workspace any more");
}

static int make_interfaces(const struct job *j, pid_t first, struct err *e)
{
	own_str char *path = mem_printf("/proc/%d/ns/net", (int)first);
	own_fd int network = -1;

	if (!j->inside) {
		int r = network_make(&j->plan, first, e);
		network_hold(&j->plan, true); /* a frame for a connection that is not there yet would end it */
		return r;
	}
	network = open(path, O_RDONLY | O_CLOEXEC);
	return network < 0 ? err_errno(e, errno, "open %s", path) : leave_it_to_them(MESSAGE_NAMESPACES, &network, 1, e);
}

/*
 * Images may come from a machine, whose kernel may write anything. Before one byte of the workspace's memory is there, the
 * first process that CRIU made of them stands in namespaces of its own, with the workspace's ids and no others: whatever
 * follows has no rights outside.
 */
static int check_walls(const struct job *j, pid_t first, struct err *e)
{
	static const char *const walls[] = { "user", "pid", "mnt", "ipc", "uts", "net" };
	static const char *const maps[] = { "uid_map", "gid_map" };

	for (size_t i = 0; i < ARRAY_SIZE(walls); i++) {
		own_str char *there = mem_printf("/proc/%d/ns/%s", (int)first, walls[i]),
			     *here = mem_printf("/proc/self/ns/%s", walls[i]);
		struct stat a, b;
		if (stat(there, &a) < 0 || stat(here, &b) < 0)
			return err_errno(e, errno, "look at %s", there);
		if (a.st_dev == b.st_dev && a.st_ino == b.st_ino)
			return err_set(e, ERR_DENIED, "the memory state is of processes without a wall (%s)", walls[i]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(maps); i++) {
		own_str char *path = mem_printf("/proc/%d/%s", (int)first, maps[i]);
		own_strbuf struct str text = { 0 };
		unsigned long long inside, outside, count;
		int end = 0, r = fs_read_file(AT_FDCWD, path, 4096, &text, e);
		if (r < 0)
			return r;
		if (sscanf(str_text(&text), "%llu %llu %llu%n", &inside, &outside, &count, &end) != 3 || inside ||
		    outside != j->plan.first_id || count != 65536 || !str_eq(str_text(&text) + end, "\n"))
			return err_set(e, ERR_DENIED, "the memory state is of users that are not the workspace's");
	}
	return 0;
}

static int set_up(struct job *j, pid_t first, struct err *e)
{
	int r = fault_point("checkpoint.namespaces");

	j->first = first;
	if (r > 0)
		return err_errno(e, r, "when the namespaces were made");
	if ((r = check_walls(j, first, e)) < 0)
		return r;
	if ((r = in_network(j, raise_loopback, e)) < 0 || (r = make_interfaces(j, first, e)) < 0)
		return r;
	return checkpoint_tree_complete(&j->tree, first, e);
}

/* carrel-run has all of the workspace before the memory state goes, so that from then on our end ends nobody else's. */
static int hand_over(struct job *j, struct err *e)
{
	own_fd int pidfd = (int)syscall(SYS_pidfd_open, j->first, 0);
	int fds[5] = { pidfd }, count = 1;

	if (pidfd < 0)
		return err_errno(e, errno, "open the first process");
	if (j->plan.flags & PLAN_TERMINAL) {
		fds[count++] = j->tree.terminal;
		fds[count++] = j->tree.terminal_peer;
	}
	for (int i = 0; i < 3; i++)
		if (j->ours[i] >= 0)
			fds[count++] = j->ours[i];
	return message_send(CHECKPOINT_SOCKET, MESSAGE_PREPARED, NULL, fds, (size_t)count, e);
}

/* Everybody is there and stands still. The memory state is used up now: what moves may change the volumes. CRIU does not ask
 * whether this worked, so a failure here ends them all. */
static int let_go(struct job *j, struct err *e)
{
	const struct plan *p = &j->plan;
	own_fd int freezer = p->flags & PLAN_PAUSED ? open(p->freeze_path, O_WRONLY | O_CLOEXEC) : -1;
	int r = 0, fault = fault_point("checkpoint.resume");

	if (fault)
		r = err_errno(e, fault, "before the first step");
	else if (p->flags & PLAN_PAUSED && (freezer < 0 || write(freezer, p->freeze_text, strlen(p->freeze_text)) < 0))
		r = err_errno(e, errno, "freeze the workspace");
	else if (j->inside)
		r = leave_it_to_them(MESSAGE_READY, NULL, 0, e);
	else if ((r = hand_over(j, e)) >= 0 && unlinkat(CHECKPOINT_FOLDER, MEMORY_MANIFEST, 0) < 0 && errno != ENOENT)
		r = err_errno(e, errno, "take the manifest away");
	else if (r >= 0 && fsync(CHECKPOINT_FOLDER) < 0)
		r = err_errno(e, errno, "sync the memory folder");
	if (r >= 0 && !j->inside)
		network_hold(&j->plan, false);
	if (r < 0) {
		(void)kill(j->criu_pid, SIGKILL);
		(void)kill(j->first, SIGKILL);
	}
	return r;
}

/* Once: at CRIU's word, or, of one that has none, at its end. */
static int tell_they_run(struct job *j, struct err *e)
{
	if (j->inside || j->told)
		return 0;
	j->told = true;
	return message_send(CHECKPOINT_SOCKET, MESSAGE_READY, NULL, NULL, 0, e);
}

static int notified(struct job *j, const struct checkpoint_answer *a, struct err *e)
{
	int r = 0;

	if (str_eq(a->script, "setup-namespaces"))
		r = set_up(j, a->pid, e);
	else if (str_eq(a->script, "post-restore"))
		r = checkpoint_cgroups_fill(&j->plan, &j->record, e);
	else if (str_eq(a->script, "pre-resume"))
		r = let_go(j, e);
	else if (str_eq(a->script, "post-resume"))
		r = tell_they_run(j, e);
	if (r < 0)
		return r;
	return criu_go_on(j, e);
}

/* The first process reads the images as root of the workspace, who is nobody here. Only this folder's parents keep others
 * out. */
static int open_images(struct err *e)
{
	own_dir DIR *dir = fdopendir(openat(CHECKPOINT_FOLDER, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));

	if (!dir || fchmod(CHECKPOINT_FOLDER, 0711) < 0)
		return err_errno(e, errno, "open the memory folder to the workspace");
	struct dirent *d;
	int r;
	while ((r = fs_next_entry(dir, &d, e)) > 0)
		if (d->d_type == DT_REG && fchmodat(CHECKPOINT_FOLDER, d->d_name, 0644, 0) < 0)
			return err_errno(e, errno, "open %s to the workspace", d->d_name);
	return r;
}

static int restore(struct job *j, struct err *e)
{
	struct checkpoint_options o;
	struct checkpoint_answer a = { 0 };
	int r = read_record(j, e);

	j->tree = (struct checkpoint_tree){ .plan = &j->plan, .record = &j->record, .volumes = j->volumes,
					    .volume_count = j->volume_count, .folder = CHECKPOINT_FOLDER, .scratch = SCRATCH,
					    .terminal = -1, .terminal_peer = -1 };
	if (r < 0 || (!j->inside && (r = open_images(e)) < 0) || (r = checkpoint_tree_prepare(&j->tree, e)) < 0 ||
	    (r = make_streams(j, e)) < 0 || (r = checkpoint_cgroups_make(&j->plan, &j->record, e)) < 0 ||
	    (r = criu_start(j, e)) < 0)
		return r;
	struct checkpoint_how how = { .folder_fd = CHECKPOINT_FOLDER, .scratch = SCRATCH, .seconds = CHECKPOINT_PATIENCE_S,
				      .terminal = CRIU_STREAMS + 3, .work_fd = j->inside ? j->logs : 0,
				      .streams = { CRIU_STREAMS, CRIU_STREAMS + 1, CRIU_STREAMS + 2 } };
	checkpoint_restore_options(&j->record, &how, &o);
	if ((r = criu_ask(j, CHECKPOINT_RESTORE, &o, e)) < 0)
		return r;
	while ((r = criu_hear(j, &a, e)) >= 0 && a.type == CHECKPOINT_NOTIFY)
		if ((r = notified(j, &a, e)) < 0)
			return r;
	if (r < 0)
		return r;
	if (!a.success)
		return criu_failed(j, &a, "resume", e);
	if ((r = fault_point("checkpoint.restored")) > 0)
		return err_errno(e, r, "after the restore");
	return j->inside ? hand_over(j, e) : tell_they_run(j, e);
}

/* --- life --- */

static int read_plan(struct job *j, struct err *e)
{
	struct stat st;

	if (fstat(CHECKPOINT_PLAN, &st) < 0 || st.st_size <= 0 || st.st_size > PLAN_BYTES_MOST)
		return err_set(e, ERR_INVALID, "plan of an impossible size");
	void *bytes = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, CHECKPOINT_PLAN, 0);
	if (bytes == MAP_FAILED)
		return err_errno(e, errno, "map the plan");
	return plan_decode(bytes, (size_t)st.st_size, &j->plan, e);
}

int main(int argc, char **argv)
{
	static struct job j = { .folder = CHECKPOINT_FOLDER, .logs = CHECKPOINT_FOLDER, .ours = { -1, -1, -1 },
				.theirs = { -1, -1, -1 }, .criu = -1, .criu_pidfd = -1,
				.tree = { .terminal = -1, .terminal_peer = -1 } };
	struct err e = { 0 };

	log_init("carrel-checkpoint", LOG_INFO);
	if (argc == 3 && str_eq(argv[1], "probe"))
		return checkpoint_try(argv[2]);
	j.inside = argc == 4 && str_eq(argv[3], "inside");
	if ((argc != 3 && !j.inside) || (!str_eq(argv[1], "dump") && !str_eq(argv[1], "restore"))) {
		(void)fprintf(stderr, "carrel-checkpoint is started by carrel-run, not by hand\n");
		return 2;
	}
	(void)signal(SIGPIPE, SIG_IGN);
	j.kind = str_eq(argv[1], "dump") ? JOB_DUMP : JOB_RESTORE;
	uint64_t number = 0;
	int r = str_to_u64(argv[2], INT32_MAX, &number) < 0 ? err_set(&e, ERR_INVALID, "%s is no number", argv[2]) :
							      read_plan(&j, &e);
	if (j.kind == JOB_DUMP)
		j.first = (pid_t)number;
	/* the images cannot be written to */
	else if (r >= 0 && j.inside && (j.logs = open("/run", O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
		r = err_errno(&e, errno, "open /run");
	for (j.volume_count = 0; j.kind == JOB_RESTORE && j.volume_count < number && j.volume_count < BIRTH_VOLUMES_MOST;
	     j.volume_count++)
		j.volumes[j.volume_count] = (struct volume_mount){ CHECKPOINT_VOLUMES + (int)j.volume_count, -1 };
	if (r >= 0)
		r = j.kind == JOB_DUMP ? dump(&j, &e) : restore(&j, &e);
	if (r < 0)
		(void)!message_send(CHECKPOINT_SOCKET, MESSAGE_FAILED, &e, NULL, 0, &e);
	criu_end(&j);
	if (j.kind == JOB_RESTORE)
		checkpoint_cgroups_hand_down(&j.plan, &j.record);
	return r < 0;
}
