/* SPDX-License-Identifier: Apache-2.0 */
/*
 * carrel-run: one process per workspace, from its start to its end.
 *
 * The agent executes it once, with a socket as descriptor 3. That process is the nursery: for each socket that it is sent it
 * forks a runner, which costs a tenth of executing one (a static program's start asks the processor for its features, which a
 * hypervisor answers slowly) and shares its relocated pages. It ends with the agent; runners are no one's children then.
 *
 * A runner may wait long for something to do. It takes the plan and then the mounted volumes from the socket, makes the
 * workspace, and answers. From then on it needs nobody: it holds the terminal or pipes, writes the log, serves run.sock
 * (control.c), and when the first process ends it writes how into the status file and leaves. Everything that the workspace has
 * in the kernel hangs on this process and on the first one of the workspace: killed, they leave nothing but files in the run
 * folder.
 *
 * States: starting -> running <-> paused, any -> stopping -> ended. A workspace that is to start paused is `paused` before its
 * program was executed; resuming lets it go.
 */
#include "runner/runner.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/rights.h"
#include "engine/qemu/machine_plan.h"
#include "engine/workspace/enter.h"
#include "runner/checkpoint.h"
#include "runner/machine.h"
#include "engine/workspace/program.h"
#include "runner/network.h"

/* One descriptor: the agent's socket of the nursery is replaced by its own in a runner. */
#define AGENT_SOCKET 3
#define PLAN_SOCKET AGENT_SOCKET
#define LINGER_MS 50     /* between looks at clients that have not read everything */
#define LINGER_ROUNDS 200
#define FREEZE_MS 10000
#define MACHINE_GRACE_MS 5000 /* for the way into a machine and back */
#define INIT_MS 10000    /* an init that is not up by then is left to itself */

static uint64_t now_ms(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* --- state --- */

static void write_status(struct runner *r)
{
	static const char *const names[] = { "", "starting", "running", "paused", "stopping", "ended" };
	const struct runner_status *s = &r->status;
	own_strbuf struct str text = { 0 };
	struct err e;

	str_printf(&text,
		   "{\"state\":\"%s\",\"exit_status\":%d,\"pid\":%d,\"runner_pid\":%d,\"run\":%llu,\"started_ms\":%llu,"
		   "\"ended_ms\":%llu,\"killed_for_memory\":%s,\"maintenance\":%s}\n",
		   names[s->state], s->exit_status, s->pid, s->runner_pid, (unsigned long long)s->run,
		   (unsigned long long)s->started_ms, (unsigned long long)s->ended_ms, s->killed_for_memory ? "true" : "false",
		   s->maintenance ? "true" : "false");
	if (fs_write_file(AT_FDCWD, RUNNER_STATUS_FILE, text.bytes, text.length, 0600, false, &e) < 0)
		log_error(&e, "workspace %s", r->plan.id);
}

/* Who watches is told first: writing takes longer, and the file matters to those who come when nobody can be asked any more. */
void runner_set_state(struct runner *r, enum runner_state state)
{
	r->status.state = state;
	control_tell_watchers(r);
	write_status(r);
}

/* The kernel counts its kills in one file or the other. */
static bool killed_for_memory(const struct plan *p)
{
	static const char *const files[] = { "memory.oom_control", "memory.events" };

	for (size_t i = 0; p->cgroups_v1[i] || *p->cgroup_v2; i++) {
		const char *folder = p->cgroups_v1[i] ? p->cgroups_v1[i] : p->cgroup_v2;
		for (size_t f = 0; f < ARRAY_SIZE(files); f++) {
			own_str char *path = mem_printf("%s/%s", folder, files[f]);
			own_strbuf struct str text = { 0 };
			if (access(path, R_OK) < 0 || fs_read_file(AT_FDCWD, path, 4096, &text, NULL) < 0)
				continue;
			const char *at = strstr(str_text(&text), "oom_kill ");
			return at && strtoul(at + strlen("oom_kill "), NULL, 10) > 0;
		}
		if (!p->cgroups_v1[i])
			break;
	}
	return false;
}

static void leave(void *data)
{
	struct runner *r = data;

	if (session_has_clients(r->session) && r->patience-- > 0)
		(void)loop_add_timer(r->loop, LINGER_MS, leave, r);
	else
		loop_stop(r->loop);
}

/* The agent hears that this process is gone before the kernel takes a root volume apart, which takes longer than all that is
 * left. */
static void leave_volumes(struct runner *r)
{
	control_close(r);
	birth_close_volumes(&r->birth);
}

void runner_ended(struct runner *r, int status)
{
	r->status.exit_status = status;
	r->status.ended_ms = now_ms();
	r->status.killed_for_memory = killed_for_memory(&r->plan);
	/* Whoever hears of the end may use or remove the volumes; clients heard of it before. What is thrown away may only be
	 * removed, which goes while it is still mounted: that ends with this process. */
	if (!(r->plan.flags & PLAN_THROW_AWAY))
		birth_close_volumes(&r->birth);
	runner_set_state(r, RUNNER_ENDED);
	r->patience = LINGER_ROUNDS;
	(void)loop_add_timer(r->loop, 0, leave, r);
}

static void program_ended(void *data, struct session *s, int status)
{
	struct runner *r = data;

	(void)s;
	if (r->machine)
		machine_session_over(r->machine);
	else
		runner_ended(r, status);
}

void runner_session_options(struct runner *r, struct session_options *ret_how)
{
	uint64_t flags = r->plan.flags;

	*ret_how = (struct session_options){
		.log = &r->log,
		.patient = flags & PLAN_HELD,
		.held = flags & PLAN_HELD,
		.system = flags & PLAN_SYSTEM,
		.done = program_ended,
		.data = r,
	};
}

static void begin_session(struct runner *r)
{
	struct birth *b = &r->birth;
	struct session_options how;

	if (r->machine) {
		machine_begin_session(r->machine);
		return;
	}
	if (r->plan.flags & PLAN_THROW_AWAY)
		birth_hold_mounts(b);
	runner_session_options(r, &how);
	how.streams = (struct session_streams){ .pidfd = b->pidfd, .input = b->input, .output = b->output, .errors = b->errors,
						.terminal = b->terminal };
	r->session = session_new(r->loop, &how);
}

/* --- stopping --- */

void runner_kill_workspace(struct runner *r)
{
	if (r->session)
		session_let_go(r->session);
	if (r->machine) {
		machine_kill(r->machine);
		return;
	}
	(void)syscall(SYS_pidfd_send_signal, r->birth.pidfd, SIGKILL, NULL, 0);
	if (r->status.state == RUNNER_PAUSED)
		(void)!runner_freeze(r, false, NULL); /* frozen processes of a v1 freezer do not die */
}

static void out_of_patience(void *data)
{
	struct runner *r = data;

	r->stop_timer = NULL;
	runner_kill_workspace(r);
}

static void read_link_name(pid_t pid, char *out, size_t size)
{
	char path[64], target[256];

	(void)snprintf(path, sizeof path, "/proc/%d/exe", (int)pid);
	ssize_t n = readlink(path, target, sizeof target - 1);
	target[n > 0 ? n : 0] = '\0';
	const char *slash = strrchr(target, '/');
	(void)snprintf(out, size, "%s", slash ? slash + 1 : target);
}

static int tell_init(struct runner *r, struct err *e)
{
	int number = program_init_signal(r->birth.pid);

	if (number)
		return session_signal(r->session, number, e);
	static const char *const shutdown[] = { "/sbin/init", "0", NULL };
	struct enter n = { .plan = &r->plan, .init = r->birth.pid, .init_pidfd = r->birth.pidfd, .argv = shutdown, .user = "0",
			   .directory = "/" };
	int result = enter_workspace(&n, e);
	if (result < 0)
		return result;
	struct session_options how = { .streams = { n.pidfd, n.input_fd, n.output_fd, n.errors_fd, n.terminal_fd } };
	(void)session_new(r->loop, &how);
	return 0;
}

int runner_stop_workspace(struct runner *r, uint64_t timeout_ms, struct err *e)
{
	if (r->status.state == RUNNER_ENDED || r->status.state == RUNNER_STOPPING)
		return 0;
	if (!r->released) {
		runner_kill_workspace(r);
		return 0;
	}
	session_let_go(r->session);
	if (r->status.state == RUNNER_ENDED)
		return 0;
	int result = r->status.state == RUNNER_PAUSED && !r->machine ? runner_freeze(r, false, e) : 0;
	if (result < 0)
		return result;
	runner_set_state(r, RUNNER_STOPPING);
	r->stop_timer = loop_add_timer(r->loop, timeout_ms + (r->machine ? MACHINE_GRACE_MS : 0), out_of_patience, r);
	if (r->machine) {
		machine_stop(r->machine, timeout_ms);
		return 0;
	}
	if (r->plan.flags & PLAN_SYSTEM)
		result = tell_init(r, e);
	else
		result = session_signal(r->session, r->plan.flags & PLAN_MAINTENANCE ? SIGTERM : (int)r->plan.stop_signal, e);
	if (result < 0)
		runner_kill_workspace(r);
	return result;
}

/* --- freezing --- */

static bool frozen_now(const struct plan *p)
{
	own_strbuf struct str text = { 0 };
	own_str char *events = *p->cgroup_v2 ? mem_printf("%s/cgroup.events", p->cgroup_v2) : mem_strdup(p->freeze_path);

	return fs_read_file(AT_FDCWD, events, 4096, &text, NULL) >= 0 &&
	       strstr(str_text(&text), *p->cgroup_v2 ? "frozen 1" : p->freeze_text);
}

int runner_freeze(struct runner *r, bool frozen, struct err *e)
{
	const struct plan *p = &r->plan;
	const char *text = frozen ? p->freeze_text : p->thaw_text;

	if (!*p->freeze_path)
		return err_set(e, ERR_UNSUPPORTED, "this host has no freezer");
	own_fd int fd = open(p->freeze_path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		return err_errno(e, errno, "write %s to %s", text, p->freeze_path);
	for (uint64_t end = loop_now_ms() + FREEZE_MS; frozen && !frozen_now(p);) {
		if (loop_now_ms() > end)
			return err_set(e, ERR_TIMEOUT, "workspace %s is not frozen after %d s", p->id, FREEZE_MS / 1000);
		(void)poll(NULL, 0, 1);
	}
	return 0;
}

/* --- start --- */

/* One message of the agent: a version and descriptors. 0: the agent hung up. */
int runner_receive_fds(int socket, int *ret_fds, size_t *ret_count, struct err *e)
{
	uint32_t version = 0;
	ssize_t n = rights_receive(socket, &version, sizeof version, ret_fds, PLAN_FDS_MOST, 0);

	if (n == 0)
		return err_set(e, ERR_CANCELLED, "the agent does not want it any more");
	if (n < 0)
		return err_errno(e, errno, "receive the plan");
	if (version != RUNNER_VERSION || ret_fds[0] < 0)
		return err_set(e, ERR_UNSUPPORTED, "plan of version %u, this runner takes %d", version, RUNNER_VERSION);
	for (*ret_count = 0; *ret_count < PLAN_FDS_MOST && ret_fds[*ret_count] >= 0;)
		++*ret_count;
	return 0;
}

/* Mounts and loop devices of the volumes, in pairs. */
static int receive_volumes(struct runner *r, int socket, struct err *e)
{
	int fds[PLAN_FDS_MOST];
	size_t count = 0;
	int result = runner_receive_fds(socket, fds, &count, e);

	if (result < 0)
		return result;
	for (size_t i = 0; i + 1 < count && r->birth.volume_count < BIRTH_VOLUMES_MOST; i += 2)
		r->birth.volumes[r->birth.volume_count++] = (struct volume_mount){ fds[i], fds[i + 1] };
	return 0;
}

static int map_plan(int fd, const void **ret_bytes, size_t *ret_length, struct err *e)
{
	struct stat st;

	if (fstat(fd, &st) < 0 || st.st_size <= 0 || st.st_size > PLAN_BYTES_MOST)
		return err_set(e, ERR_INVALID, "plan of an impossible size");
	void *bytes = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (bytes == MAP_FAILED)
		return err_errno(e, errno, "map the plan");
	*ret_bytes = bytes;
	*ret_length = (size_t)st.st_size;
	return 0;
}

/* systemd answers nobody before it has its own socket: until then it is not up, and systemctl would say "offline". Looked for
 * inside the workspace's root only, by a descriptor that opens nothing. */
static bool init_is_up(int root)
{
	struct open_how how = { .flags = O_PATH | O_CLOEXEC | O_NOFOLLOW, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS };
	own_fd int fd = (int)syscall(SYS_openat2, root, "run/systemd/private", &how, sizeof how);

	return fd >= 0;
}

static void await_init(struct runner *r)
{
	char program[256], path[64];
	struct pollfd dead = { .fd = r->birth.pidfd, .events = POLLIN };

	read_link_name(r->birth.pid, program, sizeof program);
	if (!(r->plan.flags & PLAN_SYSTEM) || !str_eq(program, "systemd"))
		return;
	(void)snprintf(path, sizeof path, "/proc/%d/root", (int)r->birth.pid);
	own_fd int root = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	for (uint64_t end = loop_now_ms() + INIT_MS; root >= 0 && !init_is_up(root) && loop_now_ms() < end;)
		if (poll(&dead, 1, 2) != 0)
			return;
}

int runner_release(struct runner *r, struct err *e)
{
	int result = birth_release(&r->birth, e);

	r->released = true;
	if (result < 0 || (result = birth_executed(&r->birth, e)) < 0)
		return result;
	await_init(r);
	r->status.started_ms = now_ms();
	return 0;
}

static int start_paused(struct runner *r, struct err *e)
{
	int result = runner_freeze(r, true, e);

	if (result < 0)
		return result;
	r->status.state = RUNNER_PAUSED;
	return 0;
}

/* The runner listens, and connections wait, while the first process builds its tree. */
static int start(struct runner *r, int socket, struct err *e)
{
	int result = birth_begin(&r->birth, e);

	if (result < 0 || (result = network_make(&r->plan, r->birth.pid, e)) < 0 || (result = control_listen(r, e)) < 0)
		return result;
	if ((result = fault_point("runner.born")) > 0)
		return err_errno(e, result, "after the first process");
	if ((result = receive_volumes(r, socket, e)) < 0)
		return result;
	if ((result = fault_point("runner.volumes")) > 0)
		return err_errno(e, result, "after the volumes");
	if ((result = birth_complete(&r->birth, e)) < 0)
		return result;
	r->status.pid = r->birth.pid;
	if (r->plan.flags & PLAN_PAUSED)
		return start_paused(r, e);
	if ((result = runner_release(r, e)) < 0)
		return result;
	r->status.state = RUNNER_RUNNING;
	return 0;
}

/* The workspace as it was when it was suspended. */
static int start_from_memory(struct runner *r, int socket, int folder, struct err *e)
{
	int result = control_listen(r, e);

	r->plan.flags &= ~(uint64_t)PLAN_HELD; /* whoever ran it is not attached any more */
	if (result < 0 || (result = receive_volumes(r, socket, e)) < 0 || (result = checkpoint_resume(r, folder, e)) < 0)
		return result;
	r->status.started_ms = now_ms();
	r->status.state = r->plan.flags & PLAN_PAUSED ? RUNNER_PAUSED : RUNNER_RUNNING;
	return 0;
}

int runner_prepare(struct runner *r, struct err *e)
{
	if (chdir(r->plan.run_dir) < 0)
		return err_errno(e, errno, "go to %s", r->plan.run_dir);
	logfile_open(&r->log, r->plan.log_path, r->plan.log_bytes, r->plan.log_files);
	r->status = (struct runner_status){ .version = RUNNER_VERSION, .size = sizeof r->status, .state = RUNNER_STARTING,
					    .exit_status = -1, .runner_pid = getpid(), .run = r->plan.run,
					    .maintenance = (r->plan.flags & PLAN_MAINTENANCE) != 0 };
	return 0;
}

static int prepare(struct runner *r, int socket, struct err *e)
{
	int fds[PLAN_FDS_MOST];
	size_t count = 0, length = 0;
	const void *bytes = NULL;
	int result = runner_receive_fds(socket, fds, &count, e);

	if (result < 0 || (result = map_plan(r->plan_fd = fds[0], &bytes, &length, e)) < 0)
		return result;
	if (machine_plan_is(bytes, length)) {
		result = machine_start(r, bytes, length, socket, e);
		if (result >= 0 && r->status.state == RUNNER_RUNNING)
			r->status.started_ms = now_ms();
		return result;
	}
	if ((result = plan_decode(bytes, length, &r->plan, e)) < 0 || (result = runner_prepare(r, e)) < 0)
		return result;
	if (count < 2)
		return start(r, socket, e);
	own_fd int folder = fds[1];
	return start_from_memory(r, socket, folder, e);
}

static void answer(int socket, const struct runner *r, int result, const struct err *e)
{
	struct runner_answer a = { .version = RUNNER_VERSION, .size = sizeof a, .result = result, .status = r->status };

	if (result < 0)
		a.error = *e;
	(void)!send(socket, &a, sizeof a, MSG_NOSIGNAL);
}

static int run(struct runner *r)
{
	struct err e = { 0 };

	r->loop = loop_new();
	birth_init(&r->birth, &r->plan);
	int result = prepare(r, PLAN_SOCKET, &e);

	if (result < 0) {
		birth_undo(&r->birth);
		(void)unlink(RUNNER_SOCKET);
		answer(PLAN_SOCKET, r, result, &e);
		return 1;
	}
	answer(PLAN_SOCKET, r, 0, NULL);
	(void)close(PLAN_SOCKET);
	begin_session(r);
	runner_set_state(r, r->status.state);
	result = loop_run(r->loop, &e);
	if (result < 0)
		log_error(&e, "workspace %s", r->plan.id);
	leave_volumes(r);
	return result < 0;
}

/* The next runner's socket; negative when the agent is gone. */
static int receive_order(void)
{
	char byte = 0;
	int fd;

	(void)rights_receive(AGENT_SOCKET, &byte, 1, &fd, 1, 0);
	return fd;
}

static int be_runner(int socket)
{
	static struct runner runner = { .listener = -1 };

	(void)signal(SIGCHLD, SIG_DFL);
	(void)setsid();
	(void)dup3(socket, PLAN_SOCKET, O_CLOEXEC);
	(void)close(socket);
	return run(&runner);
}

/* A socket whose runner could not be made is closed: the agent sees that nobody is there. */
static int be_nursery(void)
{
	int socket;

	(void)signal(SIGCHLD, SIG_IGN); /* runners need not be reaped */
	while ((socket = receive_order()) >= 0) {
		if (fork() == 0)
			return be_runner(socket);
		(void)close(socket);
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct stat st;

	(void)argv;
	log_init("carrel-run", LOG_INFO);
	if (argc != 1 || fstat(AGENT_SOCKET, &st) < 0 || !S_ISSOCK(st.st_mode)) {
		(void)fprintf(stderr, "carrel-run is started by carrel-node, not by hand\n");
		return 2;
	}
	(void)fcntl(AGENT_SOCKET, F_SETFD, FD_CLOEXEC);
	(void)signal(SIGPIPE, SIG_IGN);
	(void)umask(022);
	return be_nursery();
}
