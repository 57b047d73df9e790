/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. CRIU makes the user namespace, and looks for the root it shall use (`--root`) and for external mounts by path. The
 * overlay must belong to that very user namespace, or set-user-id programs would lose their meaning in it; so it can be made
 * only in the moment between the two, which CRIU tells of ("setup-namespaces"). A child of ours then enters the user namespace,
 * in a mount namespace of its own, stacks the layers with the workspace's rights exactly as a first process does at a start
 * (tree.c), and hands the mounts back as descriptors; we put them into the scratch folder. That is shared: what comes there
 * also comes to the copy of our mounts that the new first process has.
 */
#include "engine/workspace/checkpoint_tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "engine/workspace/inside.h"
#include "engine/workspace/message.h"

#define FIRST_MOST (1 << 20)
#define CGROUPS_MOST 4096

/* --- the scratch folder --- */

static char *place_of(const struct checkpoint_tree *t, size_t mount) { return mem_printf("%s/%zu", t->scratch, mount); }

static int make_place(const char *path, bool folder, struct err *e)
{
	own_fd int file = -1;

	if (folder ? mkdir(path, 0755) < 0 : (file = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644)) < 0)
		return err_errno(e, errno, "make %s", path);
	return 0;
}

static int put(const struct checkpoint_tree *t, size_t i, int mount, struct err *e)
{
	own_str char *path = place_of(t, i);
	struct stat st;

	if (fstat(mount, &st) < 0)
		return err_errno(e, errno, "look at a mount");
	int r = make_place(path, S_ISDIR(st.st_mode), e);
	if (r >= 0 && syscall(SYS_move_mount, mount, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH) < 0)
		r = err_errno(e, errno, "place what goes to %s", t->record->mounts[i].target);
	return r;
}

static int put_host(const struct checkpoint_tree *t, size_t i, struct err *e)
{
	const struct step *s = checkpoint_step(&t->record->mounts[i], t->plan);
	struct mount_attr a = { .attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV };
	own_fd int mount = (int)syscall(SYS_open_tree, AT_FDCWD, s->source, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);

	if (mount < 0 || syscall(SYS_mount_setattr, mount, "", AT_EMPTY_PATH | AT_RECURSIVE, &a, sizeof a) < 0)
		return err_errno(e, errno, "open %s of the host", s->source);
	return put(t, i, mount, e);
}

static int put_tun(const struct checkpoint_tree *t, size_t i, struct err *e)
{
	own_fd int mount = -1;
	int r = birth_make_tun(&mount, e);

	return r < 0 ? r : put(t, i, mount, e);
}

/* The very file that the first process executed: an installation may have another by now. */
static int put_first(const struct checkpoint_tree *t, size_t i, struct err *e)
{
	own_str char *path = place_of(t, i);
	own_strbuf struct str bytes = { 0 };
	int r = fs_read_file(t->folder, CHECKPOINT_FIRST, FIRST_MOST, &bytes, e);
	if (r < 0)
		return r;
	own_fd int file = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0755);
	if (file < 0)
		return err_errno(e, errno, "make %s", path);
	return (r = fs_write_all(file, bytes.bytes, bytes.length, e)) < 0 || fchmod(file, 0755) == 0 ?
		       r :
		       err_errno(e, errno, "chmod %s", path);
}

int checkpoint_tree_prepare(struct checkpoint_tree *t, struct err *e)
{
	own_str char *root = mem_printf("%s/root", t->scratch);
	int r = 0;

	t->terminal = t->terminal_peer = -1;
	t->in = (struct inside){ .plan = t->plan, .sync = -1, .first = -1, .foreign = -1 };
	if ((r = inside_open_layers(t->plan, &t->in, e)) < 0)
		return r;
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0 ||
	    mount("carrel", t->scratch, "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777,size=64m") < 0 ||
	    mount(NULL, "/", NULL, MS_REC | MS_SHARED, NULL) < 0 || mkdir(root, 0755) < 0)
		return err_errno(e, errno, "make a scratch folder in %s", t->scratch);
	for (size_t i = 0; r >= 0 && i < t->record->mount_count; i++)
		if (t->record->mounts[i].from == CHECKPOINT_FIRST_FILE)
			r = put_first(t, i, e);
		else if (t->record->mounts[i].from == CHECKPOINT_HOST)
			r = put_host(t, i, e);
		else if (t->record->mounts[i].from == CHECKPOINT_TUN)
			r = put_tun(t, i, e);
	return r;
}

/* --- children with the workspace's rights --- */

struct builder {
	const struct checkpoint_tree *tree;
	struct inside *in;
	int user_namespace; /* -1: a new one, which the parent maps */
	int sync;
	int (*build)(const struct builder *b, int *ret_fds, size_t *ret_count, struct err *e);
};

/* Seen from where the workspace stands, and in nobody's way: it leaves again when it ends. */
static int stand_there(const struct plan *p, struct err *e)
{
	own_str char *path = mem_printf("%s/cgroup.procs", p->cgroup_v2);
	own_fd int fd = *p->cgroup_v2 ? open(path, O_WRONLY | O_CLOEXEC) : -1;

	return *p->cgroup_v2 && (fd < 0 || write(fd, "0", 1) < 0) ? err_errno(e, errno, "enter %s", path) : 0;
}

static int become_theirs(const struct builder *b, struct err *e)
{
	int kind, r = stand_there(b->tree->plan, e);

	if (r < 0)
		return r;

	if (b->user_namespace >= 0 ? setns(b->user_namespace, CLONE_NEWUSER) < 0 : unshare(CLONE_NEWUSER) < 0)
		return err_errno(e, errno, "enter the user namespace");
	if ((r = message_send(b->sync, MESSAGE_ENTERED, NULL, NULL, 0, e)) < 0 ||
	    (r = message_receive(b->sync, &kind, NULL, e)) <= 0)
		return r < 0 ? r : err_set(e, ERR_CANCELLED, "nobody waits for the mounts");
	if (unshare(CLONE_NEWNS) < 0 || setgroups(0, NULL) < 0 || setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0)
		return err_errno(e, errno, "become root of the workspace");
	(void)umask(0);
	return inside_make_scratch(e);
}

static void be_builder(const struct builder *b) __attribute__((noreturn));
static void be_builder(const struct builder *b)
{
	struct err e = { 0 };
	int fds[MESSAGE_FDS_MOST];
	size_t count = 0;
	int r = become_theirs(b, &e);

	if (r >= 0)
		r = b->build(b, fds, &count, &e);
	(void)!message_send(b->sync, r < 0 ? MESSAGE_FAILED : MESSAGE_PREPARED, r < 0 ? &e : NULL, fds, r < 0 ? 0 : count, &e);
	_exit(0);
}

static int write_map(pid_t pid, const char *file, uint64_t first, struct err *e)
{
	own_str char *path = mem_printf("/proc/%d/%s", (int)pid, file),
		     *text = mem_printf("0 %llu 65536\n", (unsigned long long)first);
	own_fd int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		return err_errno(e, errno, "write the id range to %s", path);
	return 0;
}

/* *ret_fds has room for MESSAGE_FDS_MOST; unused ones are -1. */
static int build(struct builder *b, int *ret_fds, struct err *e)
{
	int pair[2], kind, r = message_pair(pair, e);

	if (r < 0)
		return r;
	own_fd int ours = pair[0], theirs = pair[1];
	pid_t pid = fork();
	if (pid == 0) {
		own_close(&ours);
		b->sync = theirs;
		be_builder(b);
	}
	own_close(&theirs);
	theirs = -1;
	if (pid < 0)
		return err_errno(e, errno, "make a process that mounts");
	r = message_receive(ours, &kind, NULL, e);
	if (r > 0 && b->user_namespace < 0 && ((r = write_map(pid, "uid_map", b->tree->plan->first_id, e)) < 0 ||
					       (r = write_map(pid, "gid_map", b->tree->plan->first_id, e)) < 0))
		kind = 0;
	if (r >= 0 && (r = message_send(ours, MESSAGE_GO, NULL, NULL, 0, e)) >= 0)
		r = message_receive(ours, &kind, ret_fds, e);
	own_close(&ours);
	ours = -1;
	(void)waitpid(pid, NULL, 0);
	return r > 0 ? 0 : r < 0 ? r : err_set(e, ERR_INTERNAL, "the process that mounts died");
}

/* --- the terminal --- */

static int build_terminal(const struct builder *b, int *ret_fds, size_t *ret_count, struct err *e)
{
	int r = tree_make_terminal(&ret_fds[0], &ret_fds[2], e);

	(void)b;
	if (r < 0)
		return r;
	if (mkdir("pts", 0755) < 0 || close(open("pts/0", O_CREAT | O_WRONLY | O_CLOEXEC, 0600)) < 0 ||
	    syscall(SYS_move_mount, ret_fds[2], "", AT_FDCWD, "pts/0", MOVE_MOUNT_F_EMPTY_PATH) < 0)
		return err_errno(e, errno, "place the terminal");
	ret_fds[1] = open("pts/0", O_RDWR | O_NOCTTY | O_CLOEXEC);
	ret_fds[2] = (int)syscall(SYS_open_tree, AT_FDCWD, "pts/0", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (ret_fds[1] < 0 || ret_fds[2] < 0)
		return err_errno(e, errno, "open the terminal");
	*ret_count = 3;
	return 0;
}

int checkpoint_tree_terminal(struct checkpoint_tree *t, struct err *e)
{
	struct builder b = { .tree = t, .user_namespace = -1, .build = build_terminal };
	int fds[MESSAGE_FDS_MOST];
	int r = t->plan->flags & PLAN_TERMINAL ? build(&b, fds, e) : 0;

	if (r < 0 || !(t->plan->flags & PLAN_TERMINAL))
		return r;
	t->terminal = fds[0];
	t->terminal_peer = fds[1];
	own_fd int mount = fds[2];
	for (size_t i = 0; r >= 0 && i < t->record->mount_count; i++)
		if (t->record->mounts[i].from == CHECKPOINT_CONSOLE)
			r = put(t, i, mount, e);
	return r;
}

/* --- the tree --- */

/* Mounts in this order: the root, then those of the record that need the workspace's rights. */
static bool is_built(const struct checkpoint_mount *m)
{
	return m->from == CHECKPOINT_HIDE_FILE || m->from == CHECKPOINT_HIDE_FOLDER || m->from == CHECKPOINT_VOLUME ||
	       m->from == CHECKPOINT_CGROUPS;
}

static int clone_mount(const char *path, int *ret_fd, struct err *e)
{
	*ret_fd = (int)syscall(SYS_open_tree, AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	return *ret_fd < 0 ? err_errno(e, errno, "take mount %s", path) : 0;
}

static int mount_cgroups(int *ret_fd, struct err *e)
{
	if (mkdir("cgroups", 0755) < 0 || unshare(CLONE_NEWCGROUP) < 0 ||
	    mount("none", "cgroups", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
		return err_errno(e, errno, "mount the cgroups");
	return clone_mount("cgroups", ret_fd, e);
}

static int build_tree(const struct builder *b, int *ret_fds, size_t *ret_count, struct err *e)
{
	const struct checkpoint *c = b->tree->record;
	struct tree t = { .plan = b->tree->plan, .in = b->in, .root = -1, .volume_count = b->tree->volume_count };
	size_t count = 0;
	int r = tree_make_nothing("nothing", true, e);

	for (size_t i = 0; i < t.volume_count; i++)
		t.volumes[i] = b->tree->volumes[i].mount_fd;
	if (r < 0 || (r = tree_make_nothing("none", false, e)) < 0 || (r = tree_stack(&t, e)) < 0 ||
	    (r = clone_mount("root", &ret_fds[count++], e)) < 0)
		return r;
	for (size_t i = 0; r >= 0 && i < c->mount_count; i++) {
		const struct checkpoint_mount *m = &c->mounts[i];
		if (!is_built(m))
			continue;
		if (count == MESSAGE_FDS_MOST)
			return err_set(e, ERR_UNSUPPORTED, "more than %d mounts", MESSAGE_FDS_MOST);
		if (m->from == CHECKPOINT_CGROUPS)
			r = mount_cgroups(&ret_fds[count++], e);
		else if (m->from == CHECKPOINT_VOLUME)
			r = tree_take_volume(&t, checkpoint_step(m, t.plan), &ret_fds[count++], e);
		else
			r = clone_mount(m->from == CHECKPOINT_HIDE_FILE ? "none" : "nothing", &ret_fds[count++], e);
	}
	*ret_count = count;
	return r;
}

static int map_all(const struct checkpoint_tree *t, int user_namespace, struct err *e)
{
	int r = 0;

	for (size_t i = 0; r >= 0 && i < t->in.layer_count; i++)
		r = birth_map_mount(t->in.layers[i], user_namespace, t->plan->partitions[i], e);
	for (size_t i = 0; r >= 0 && i < t->volume_count; i++)
		r = birth_map_mount(t->volumes[i].mount_fd, user_namespace, i ? t->plan->volumes[i - 1] : "the root volume", e);
	return r;
}

static int put_all(const struct checkpoint_tree *t, const int *fds, struct err *e)
{
	own_str char *root = mem_printf("%s/root", t->scratch);
	size_t at = 1;
	int r = 0;

	if (syscall(SYS_move_mount, fds[0], "", AT_FDCWD, root, MOVE_MOUNT_F_EMPTY_PATH) < 0)
		return err_errno(e, errno, "place the root");
	for (size_t i = 0; r >= 0 && i < t->record->mount_count; i++)
		if (is_built(&t->record->mounts[i]))
			r = put(t, i, fds[at++], e);
	return r;
}

int checkpoint_tree_complete(struct checkpoint_tree *t, pid_t first_process, struct err *e)
{
	own_str char *path = mem_printf("/proc/%d/ns/user", (int)first_process);
	own_fd int user_namespace = open(path, O_RDONLY | O_CLOEXEC);
	struct builder b = { .tree = t, .in = &t->in, .user_namespace = user_namespace, .build = build_tree };
	int fds[MESSAGE_FDS_MOST];

	if (user_namespace < 0)
		return err_errno(e, errno, "open %s", path);
	int r = map_all(t, user_namespace, e);
	if (r >= 0 && (r = build(&b, fds, e)) >= 0) {
		r = put_all(t, fds, e);
		for (size_t i = 0; i < MESSAGE_FDS_MOST && fds[i] >= 0; i++)
			(void)close(fds[i]);
	}
	for (size_t i = 0; i < t->in.layer_count; i++)
		(void)close(t->in.layers[i]);
	free(TAKE(t->in.layers));
	t->in.layer_count = 0;
	return r;
}

/* --- cgroups --- */

/* The number that a process has in the workspace's pid namespace; 0: it is gone, or not in there. */
static pid_t inner_pid(const char *pid)
{
	own_str char *path = mem_printf("/proc/%s/status", pid);
	own_strbuf struct str text = { 0 };
	const char *line = fs_read_file(AT_FDCWD, path, 65536, &text, NULL) < 0 ? NULL : strstr(str_text(&text), "\nNSpid:");

	if (!line)
		return 0;
	own_str char *numbers = mem_strndup(line + 7, strcspn(line + 7, "\n"));
	const char *last = strrchr(numbers, '\t');
	return last && last != numbers ? (pid_t)strtoul(last, NULL, 10) : 0;
}

static char *file_of(const struct plan *p, const char *below, const char *name)
{
	return mem_printf("%s%s/%s", p->cgroup_v2, below, name);
}

static int read_words(const char *path, struct str *ret_text, struct err *e)
{
	int r = fs_read_file(AT_FDCWD, path, 1 << 20, ret_text, e);

	for (size_t i = 0; r >= 0 && i < ret_text->length; i++)
		if (ret_text->bytes[i] == '\n')
			ret_text->bytes[i] = ' ';
	return r;
}

static int read_processes(const struct plan *p, struct checkpoint_cgroup *g, struct err *e)
{
	own_str char *path = file_of(p, g->path, "cgroup.procs");
	own_strbuf struct str text = { 0 };
	char *save = NULL;
	int r = read_words(path, &text, e);

	if (r < 0)
		return r;
	for (char *word = text.length ? strtok_r(text.bytes, " ", &save) : NULL; word; word = strtok_r(NULL, " ", &save)) {
		pid_t inner = inner_pid(word);
		if (!inner)
			continue;
		MEM_PUSH_ROOM(g->processes, g->process_count, g->process_room);
		g->processes[g->process_count++] = inner;
	}
	return 0;
}

static int read_cgroup(const struct plan *p, struct checkpoint *c, const char *below, struct err *e)
{
	own_str char *folder = mem_printf("%s%s", p->cgroup_v2, below), *handed = file_of(p, below, "cgroup.subtree_control");
	own_strbuf struct str subtree = { 0 };
	struct stat st;

	if (c->cgroup_count == CGROUPS_MOST || strchr(below, '\n'))
		return err_set(e, ERR_UNSUPPORTED, "the workspace has too many cgroups, or one of a strange name");
	if (stat(folder, &st) < 0)
		return err_errno(e, errno, "look at %s", folder);
	int r = read_words(handed, &subtree, e);
	if (r < 0)
		return r;
	struct checkpoint_cgroup *g = checkpoint_add_cgroup(c, below);
	g->mode = st.st_mode & 0777;
	g->theirs = st.st_uid != 0;
	free(g->subtree);
	g->subtree = mem_strdup(str_text(&subtree));
	if ((r = read_processes(p, g, e)) < 0)
		return r;
	own_dir DIR *dir = opendir(folder);
	if (!dir)
		return err_errno(e, errno, "read group %s", folder);
	for (struct dirent *d = NULL; r >= 0 && (r = fs_next_entry(dir, &d, e)) > 0;) {
		if (d->d_type != DT_DIR)
			continue;
		own_str char *next = mem_printf("%s/%s", below, d->d_name);
		r = read_cgroup(p, c, next, e);
	}
	return r;
}

int checkpoint_cgroups_read(const struct plan *p, struct checkpoint *c, struct err *e)
{
	return *p->cgroup_v2 ? read_cgroup(p, c, "", e) : 0;
}

static int give(const struct plan *p, const char *below, struct err *e)
{
	static const char *const files[] = { "", "/cgroup.procs", "/cgroup.threads", "/cgroup.subtree_control" };

	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		own_str char *path = mem_printf("%s%s%s", p->cgroup_v2, below, files[i]);
		if (chown(path, (uid_t)p->first_id, (gid_t)p->first_id) < 0 && errno != ENOENT)
			return err_errno(e, errno, "give %s to the workspace", path);
	}
	return 0;
}

int checkpoint_cgroups_make(const struct plan *p, const struct checkpoint *c, struct err *e)
{
	for (size_t i = 0; i < c->cgroup_count; i++) {
		const struct checkpoint_cgroup *g = &c->cgroups[i];
		own_str char *folder = mem_printf("%s%s", p->cgroup_v2, g->path);
		if (!*g->path)
			continue;
		if (!*p->cgroup_v2)
			return err_set(e, ERR_UNSUPPORTED,
				       "the workspace had cgroups of its own, and this host has none for it");
		if (mkdir(folder, (mode_t)g->mode) < 0 && errno != EEXIST)
			return err_errno(e, errno, "make %s", folder);
		int r = g->theirs ? give(p, g->path, e) : 0;
		if (r < 0)
			return r;
	}
	return 0;
}

static const struct checkpoint_cgroup *cgroup_of(const struct checkpoint *c, pid_t inner)
{
	for (size_t i = 0; i < c->cgroup_count; i++)
		for (size_t n = 0; n < c->cgroups[i].process_count; n++)
			if (c->cgroups[i].processes[n] == inner)
				return &c->cgroups[i];
	return NULL;
}

static int write_word(const char *path, const char *word, struct err *e)
{
	own_fd int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, word, strlen(word)) < 0)
		return err_errno(e, errno, "write %s to %s", word, path);
	return 0;
}

/* Parents first. A controller that this host has not is
 * passed over: limits below the workspace's own are the workspace's business. */
void checkpoint_cgroups_hand_down(const struct plan *p, const struct checkpoint *c)
{
	for (size_t i = 0; i < c->cgroup_count && *p->cgroup_v2; i++) {
		own_str char *path = file_of(p, c->cgroups[i].path, "cgroup.subtree_control"),
			     *words = mem_strdup(c->cgroups[i].subtree);
		char *save = NULL;
		for (char *word = strtok_r(words, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
			own_str char *plus = mem_printf("+%s", word);
			(void)!write_word(path, plus, NULL);
		}
	}
}

int checkpoint_cgroups_fill(const struct plan *p, const struct checkpoint *c, struct err *e)
{
	own_strbuf struct str text = { 0 };
	char *save = NULL;

	if (!*p->cgroup_v2 || c->cgroup_count < 2)
		return 0;
	own_str char *top = file_of(p, "", "cgroup.procs");
	int r = read_words(top, &text, e);
	for (char *word = r >= 0 && text.length ? strtok_r(text.bytes, " ", &save) : NULL; r >= 0 && word;
	     word = strtok_r(NULL, " ", &save)) {
		const struct checkpoint_cgroup *g = cgroup_of(c, inner_pid(word));
		if (!g || !*g->path)
			continue;
		own_str char *path = file_of(p, g->path, "cgroup.procs");
		r = write_word(path, word, e);
	}
	return r;
}
