/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. A start has an outcome that its caller waits for in the loop:
 *
 *   QEMU executed -> hello -> configured -> running     the program was executed: the caller goes on
 *            \-> no hello in time: killed, begun once more; then failed, with the last lines of the console
 *
 * From then on things end in one order: the guest tells how the program ended when its volumes are unmounted, the machine is killed
 * (nothing is left that could be lost), QEMU's pidfd says that the disks are free, and then the runner tells the agent. A machine
 * that dies without a word ends its sessions with 137, as a killed program does.
 *
 * The guest is not believed: it can end its own workspace, and say with which status; nothing else follows from what it says.
 */
#include "runner/machine.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/own.h"
#include "engine/qemu/arguments.h"
#include "engine/qemu/confine.h"
#include "engine/qemu/qmp.h"
#include "runner/machine_channel.h"
#include "runner/machine_disk.h"
#include "runner/machine_memory.h"
#include "runner/machine_network.h"
#include "runner/machine_words.h"
#include "runner/runner.h"
#include "runner/suspend.h"

#define GONE_MS 30000      /* from the program's end to the machine's */
#define STOP_GRACE_MS 5000 /* on top of what the guest was given */
#define ATTEMPTS 2
#define FDS_MOST (MACHINE_FD_DISKS + MACHINE_DISKS_MOST + MACHINE_NETWORK_FDS_MOST)

struct machine {
	struct runner *runner;
	struct machine_plan plan;
	struct guest_config config;
	int disks[MACHINE_DISKS_MOST];
	size_t disk_count;
	pid_t pid;
	int pidfd;
	struct loop_source *ended;
	struct qmp *qmp;
	struct channel *channel;
	struct machine_disk *disk; /* it boots a disk of its own: the channel is a dead one; NULL: carrel-init is inside */
	struct machine_network *network;
	struct machine_memory *memory;
	int folder, state;   /* of the memory state that it goes on from; -1: it boots, or went on */
	int line, console, errors; /* of the present attempt; the line becomes the channel's */
	struct loop_source *console_source, *errors_source, *timer, *last_timer;
	struct str tail;     /* what console and QEMU said last */
	unsigned attempt;
	bool heard;          /* hello */
	bool grown;
	bool settled;        /* the start has its outcome */
	bool reported;       /* the guest told the exit status */
	bool reset, powered_off, session_over, gone;
	bool quiet;          /* an attempt is taken down: the end of its session is no end */
	int exit_status;
	struct err error;    /* of the start */
};

/* --- what was said last --- */

static void console_ready(void *data, uint32_t events)
{
	struct machine *m = data;

	(void)events;
	if (machine_words_read(&m->tail, m->console))
		return;
	loop_remove(m->console_source);
	m->console_source = NULL;
}

static void errors_ready(void *data, uint32_t events)
{
	struct machine *m = data;

	(void)events;
	if (machine_words_read(&m->tail, m->errors))
		return;
	loop_remove(m->errors_source);
	m->errors_source = NULL;
}

/* --- the start's outcome --- */

static void settle(struct machine *m)
{
	if (m->settled)
		return;
	m->settled = true;
	loop_remove(m->timer);
	m->timer = NULL;
	loop_stop(m->runner->loop);
}

static void settle_badly(struct machine *m, const struct err *e)
{
	if (m->settled)
		return;
	m->error = *e;
	settle(m);
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
	*fd = -1;
}

static void wait_dead(struct machine *m)
{
	if (m->pidfd < 0)
		return;
	(void)syscall(SYS_pidfd_send_signal, m->pidfd, SIGKILL, NULL, 0);
	(void)waitid(P_PIDFD, (id_t)m->pidfd, &(siginfo_t){ 0 }, WEXITED);
}

/* Everything of one attempt. */
static void take_down(struct machine *m)
{
	struct runner *r = m->runner;

	m->quiet = true;
	wait_dead(m);
	loop_remove(m->ended);
	loop_remove(m->console_source);
	loop_remove(m->errors_source);
	loop_remove(m->timer);
	m->ended = m->console_source = m->errors_source = m->timer = NULL;
	machine_disk_free(TAKE(m->disk));
	channel_free(m->channel);
	qmp_free(m->qmp);
	m->channel = NULL;
	m->qmp = NULL;
	close_fd(&m->pidfd);
	close_fd(&m->line);
	close_fd(&m->console);
	close_fd(&m->errors);
	if (r->session)
		session_free(r->session);
	r->session = NULL;
	m->quiet = false;
}

static int begin(struct machine *m, struct err *e);

static void no_hello(void *data)
{
	struct machine *m = data;
	struct err e;

	m->timer = NULL;
	if (!m->heard && !m->plan.resumes && ++m->attempt < ATTEMPTS) {
		log_info("workspace %s: the machine did not boot; once more", m->runner->plan.id);
		take_down(m);
		if (begin(m, &e) < 0)
			settle_badly(m, &e);
		return;
	}
	own_str char *lines = machine_words_last(&m->tail);
	const char *times = m->attempt < ATTEMPTS ? "" : " (twice)";
	(void)err_set(&e, ERR_TIMEOUT, "the machine %s after %llu s%s; it said last: %s", m->heard ? "does not run its program" : "did not boot",
		      (unsigned long long)m->plan.boot_ms / 1000, times, *lines ? lines : "nothing");
	settle_badly(m, &e);
}

/* --- the end --- */

static void try_end(struct machine *m)
{
	struct runner *r = m->runner;

	if (!m->session_over || !m->gone)
		return;
	for (size_t i = 0; i < m->disk_count; i++)
		close_fd(&m->disks[i]);
	m->disk_count = 0;
	loop_remove(m->last_timer);
	m->last_timer = NULL;
	runner_ended(r, m->exit_status);
}

static int status_of_machine(const struct machine *m, const siginfo_t *info)
{
	if (m->reported)
		return m->exit_status;
	/* what it said before its line ended counts, also when the end of the line had it killed before it was gone */
	if (m->runner->plan.flags & PLAN_SYSTEM && (m->reset || m->powered_off))
		return m->reset ? 133 : 0;
	return info->si_code != CLD_EXITED ? 128 + info->si_status : 255;
}

static void qemu_ended(void *data, uint32_t events)
{
	struct machine *m = data;
	struct runner *r = m->runner;
	siginfo_t info = { 0 };
	struct err e;

	(void)events;
	loop_remove(m->ended);
	m->ended = NULL;
	(void)waitid(P_PIDFD, (id_t)m->pidfd, &info, WEXITED);
	if (m->errors >= 0)
		(void)machine_words_read(&m->tail, m->errors);
	if (!m->settled) {
		own_str char *lines = machine_words_last(&m->tail);
		(void)err_set(&e, ERR_INTERNAL, "QEMU ended (%s %d) before the workspace ran; it said last: %s",
			      info.si_code == CLD_EXITED ? "status" : "signal", info.si_status, lines);
		close_fd(&m->pidfd);
		settle_badly(m, &e);
		return;
	}
	m->exit_status = status_of_machine(m, &info);
	m->gone = true;
	(void)err_set(&e, ERR_UNAVAILABLE, "the machine has ended");
	if (r->session && !m->reported)
		session_end(r->session, m->exit_status);
	channel_end(m->channel, &e);
	if (m->disk)
		machine_disk_end(m->disk, &e);
	if (r->session)
		session_end(r->session, m->exit_status);
	try_end(m);
}

static void too_long(void *data)
{
	struct machine *m = data;

	m->last_timer = NULL;
	machine_kill(m);
}

void machine_session_over(struct machine *m)
{
	if (m->quiet)
		return;
	m->session_over = true;
	if (!m->gone && !m->last_timer)
		m->last_timer = loop_add_timer(m->runner->loop, GONE_MS, too_long, m);
	try_end(m);
}

void machine_kill(struct machine *m)
{
	if (m->pidfd >= 0)
		(void)syscall(SYS_pidfd_send_signal, m->pidfd, SIGKILL, NULL, 0);
}

/* --- what QEMU and the guest say --- */

/* Such a machine stands still for ever, and QEMU does not end by itself. */
static void processor_failed(struct machine *m)
{
	struct err e;

	(void)err_set(&e, ERR_UNAVAILABLE, "the machine's processor met something that this host cannot run (QEMU: internal-error)");
	(void)err_hint(&e, "use the engine emulator");
	log_error(&e, "workspace %s", m->runner->plan.id);
	settle_badly(m, &e);
	machine_kill(m);
}

static void status_known(void *data, int result, struct qmp_value value, const struct err *e)
{
	struct machine *m = data;
	char status[32] = "";

	(void)e;
	if (result >= 0 && qmp_text(value, "status", status, sizeof status) &&
	    (strcmp(status, "internal-error") == 0 || fault_point("runner.processor")))
		processor_failed(m);
}

static void qmp_event(void *data, const char *name, struct qmp_value value)
{
	struct machine *m = data;
	char reason[32] = "";

	machine_network_event(m->network, name, value);
	if (strcmp(name, "STOP") == 0)
		qmp_send(m->qmp, "query-status", NULL, QMP_DEADLINE_MS, status_known, m);
	machine_memory_event(m->memory, name, value);
	if (strcmp(name, "SHUTDOWN") != 0)
		return;
	(void)qmp_text(value, "reason", reason, sizeof reason);
	m->reset = strcmp(reason, "guest-reset") == 0;
	m->powered_off = strcmp(reason, "guest-shutdown") == 0;
}

/* A QEMU that no longer speaks is of no use; one that ended is noticed by its pidfd. */
static void qmp_closed(void *data, const struct err *e)
{
	struct machine *m = data;

	(void)e;
	machine_kill(m);
}

static void guest_hello(void *data, const struct guest_hello *h)
{
	struct machine *m = data;

	(void)h;
	m->heard = true;
	if (m->settled)
		return;
	loop_remove(m->timer);
	m->timer = loop_add_timer(m->runner->loop, m->plan.boot_ms, no_hello, m);
}

static void guest_failed(struct machine *m, const struct guest_state *s)
{
	struct err e = { 0 };

	if (guest_error_get(&s->error, &e) >= 0)
		(void)err_set(&e, ERR_INTERNAL, "the machine failed and does not say why");
	settle_badly(m, &e);
	machine_kill(m);
}

/* Volumes may have grown since the last run; for those that did not, nothing happens. */
static void grow_volumes(struct machine *m)
{
	const struct guest_volume *v = m->config.volumes.items;

	channel_request(m->channel, GUEST_GROW, m->config.root, strlen(m->config.root), CHANNEL_DEADLINE_MS, NULL, NULL);
	for (size_t i = 0; i < m->config.volumes.count; i++)
		channel_request(m->channel, GUEST_GROW, v[i].serial, strlen(v[i].serial), CHANNEL_DEADLINE_MS, NULL, NULL);
}

static void guest_state(void *data, const struct guest_state *s)
{
	struct machine *m = data;

	switch (s->phase) {
	case GUEST_RUNNING:
		if (!m->grown)
			grow_volumes(m);
		m->grown = true;
		settle(m);
		break;
	case GUEST_FAILED:
		guest_failed(m, s);
		break;
	case GUEST_ENDED:
		m->reported = true;
		m->exit_status = s->exit_status <= 255 ? (int)s->exit_status : 255;
		settle(m);
		machine_kill(m); /* its volumes are unmounted */
		break;
	default:
		break;
	}
}

static void configured(void *data, int result, const struct err *e)
{
	struct machine *m = data;

	if (result < 0 && !m->quiet) /* of an attempt that is taken down */
		settle_badly(m, e);
}

/* --- one attempt --- */

static void send_config(struct machine *m)
{
	own_strbuf struct str payload = { 0 };

	machine_words_config(&m->config, &payload);
	channel_request(m->channel, GUEST_CONFIGURE, payload.bytes, payload.length, 2 * m->plan.boot_ms, configured, m);
}

static void send_identity(struct machine *m)
{
	own_strbuf struct str payload = { 0 };

	machine_words_identity(&payload);
	channel_request(m->channel, GUEST_IDENTITY, payload.bytes, payload.length, m->plan.boot_ms, NULL, NULL);
}

static bool has_program(const struct machine *m) { return !(m->runner->plan.flags & (PLAN_SYSTEM | PLAN_MAINTENANCE)); }

static int open_program(struct machine *m, struct err *e)
{
	struct runner *r = m->runner;
	uint64_t flags = r->plan.flags;
	static char nothing[] = "";
	struct guest_open o = { .kind = GUEST_PROGRAM, .terminal = (flags & PLAN_TERMINAL) != 0, .input = (flags & PLAN_INPUT) != 0,
				.user = nothing, .directory = nothing, .path = nothing };
	struct session_options how;

	runner_session_options(r, &how);
	r->session = channel_open(m->channel, &o, &how, e);
	return r->session ? 0 : -EIO;
}

/* A disk of its own has started when its first instruction may be executed; what it makes of that is its own affair. */
static void disk_started(void *data, int result, struct qmp_value value, const struct err *e)
{
	(void)value;
	if (result < 0)
		settle_badly(data, e);
	else
		settle(data);
}

/* Nobody of ours listens inside: what is said to the channel goes nowhere. */
static int open_dead_channel(struct machine *m, struct err *e)
{
	static const struct channel_events none;
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		return err_errno(e, errno, "make a socket pair");
	(void)close(pair[1]);
	m->channel = channel_new(m->runner->loop, pair[0], &none);
	return 0;
}

static int begin_disk(struct machine *m, int agent, struct err *e)
{
	m->disk = machine_disk_new(m->runner->loop, agent);
	int r = open_dead_channel(m, e);
	if (r < 0)
		return r;
	m->heard = true;
	m->runner->status.pid = m->pid;
	if (!(m->runner->plan.flags & PLAN_PAUSED))
		qmp_send(m->qmp, "cont", NULL, QMP_DEADLINE_MS, disk_started, m);
	return 0;
}

static int make_lines(int ours[3], int theirs[3], struct err *e)
{
	for (int i = 0; i < 3; i++) {
		int pair[2];
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
			return err_errno(e, errno, "make a socket pair");
		ours[i] = pair[0];
		theirs[i] = pair[1];
	}
	return 0;
}

static int execute(struct machine *m, const int theirs[3], struct err *e)
{
	int fds[FDS_MOST], errors[2];
	size_t count = 0, taps = 0;

	if (pipe2(errors, O_CLOEXEC | O_NONBLOCK) < 0)
		return err_errno(e, errno, "make a pipe");
	m->errors = errors[0];
	for (int i = 0; i < 3; i++)
		fds[count++] = theirs[i];
	for (size_t i = 0; i < m->disk_count; i++)
		fds[count++] = m->disks[i];
	int r = machine_network_open(m->network, fds + count, &taps, e), fault;
	if (r >= 0 && (fault = fault_point("runner.taps")) > 0)
		r = err_errno(e, fault, "after the taps");
	struct confine how = { .machine = &m->plan, .host = &m->runner->plan, .fds = fds, .fd_count = count + taps, .errors = errors[1] };
	if (r >= 0)
		r = confine_start(&how, &m->pidfd, &m->pid, e);
	for (size_t i = 0; i < taps; i++)
		(void)close(fds[count + i]);
	(void)close(errors[1]);
	return r;
}

/* The machine has memory and devices, new or from a state: it is let go, and its guest spoken to. */
static int talk(struct machine *m, struct err *e)
{
	const struct channel_events channel = { .hello = guest_hello, .state = guest_state, .data = m };
	int r;

	m->channel = channel_new(m->runner->loop, m->line, &channel);
	m->line = -1;
	send_config(m);
	if (has_program(m) && (r = open_program(m, e)) < 0)
		return r;
	if (m->runner->plan.flags & PLAN_PAUSED)
		return 0;
	qmp_send(m->qmp, "cont", NULL, QMP_DEADLINE_MS, NULL, NULL);
	m->timer = loop_add_timer(m->runner->loop, m->plan.boot_ms, no_hello, m);
	return 0;
}

/* From here on the state is no more: the machine changes memory and disks. */
static void loaded(void *data, int result, const struct err *e)
{
	struct machine *m = data;
	struct err why;
	int fault = fault_point("runner.loaded");

	if (result < 0) {
		why = *e;
		(void)err_wrap(&why, "the memory state");
		settle_badly(m, &why);
		return;
	}
	result = fault ? err_errno(&why, fault, "resume") : suspend_take_manifest(m->folder, &why);
	if (result >= 0) {
		(void)fault_point("runner.resumed");
		result = talk(m, &why);
	}
	if (result < 0) {
		settle_badly(m, &why);
		return;
	}
	send_identity(m);
	if (m->runner->plan.flags & PLAN_PAUSED)
		settle(m);
}

static int begin(struct machine *m, struct err *e)
{
	struct loop *l = m->runner->loop;
	int ours[3] = { -1, -1, -1 }, theirs[3] = { -1, -1, -1 };
	int r = make_lines(ours, theirs, e);

	if (r >= 0)
		r = execute(m, theirs, e);
	for (int i = 0; i < 3; i++)
		close_fd(&theirs[i]);
	if (r < 0) {
		for (int i = 0; i < 3; i++)
			close_fd(&ours[i]);
		return r;
	}
	const struct qmp_events qmp = { .event = qmp_event, .closed = qmp_closed, .data = m };
	m->qmp = qmp_new(l, ours[0], &qmp);
	m->line = ours[1];
	m->console = ours[2];
	m->console_source = loop_add_fd(l, m->console, EPOLLIN, console_ready, m);
	m->errors_source = loop_add_fd(l, m->errors, EPOLLIN, errors_ready, m);
	m->ended = loop_add_fd(l, m->pidfd, EPOLLIN, qemu_ended, m);
	m->heard = false;
	if (m->plan.boots_disk)
		return begin_disk(m, TAKE_FD(m->line), e);
	m->runner->status.pid = m->pid;
	if (m->plan.resumes) {
		machine_memory_load(m->memory, m->qmp, fcntl(m->state, F_DUPFD_CLOEXEC, 0), loaded, m);
		return 0;
	}
	return talk(m, e);
}

/* --- life --- */

static void take_fd(struct machine *m, int fd)
{
	if (m->disk_count < m->plan.disks)
		m->disks[m->disk_count++] = fd;
	else if (m->folder < 0)
		m->folder = fd;
	else if (m->state < 0)
		m->state = fd;
	else
		(void)close(fd);
}

static int receive_disks(struct machine *m, int socket, struct err *e)
{
	while (m->disk_count < m->plan.disks || (m->plan.resumes && m->state < 0)) {
		int fds[PLAN_FDS_MOST];
		size_t count = 0;
		int r = runner_receive_fds(socket, fds, &count, e);
		if (r < 0)
			return r;
		for (size_t i = 0; i < count; i++)
			take_fd(m, fds[i]);
	}
	return 0;
}

static int decode(struct machine *m, const void *bytes, size_t length, struct err *e)
{
	struct runner *r = m->runner;
	int result = machine_plan_decode(bytes, length, &m->plan, e);

	if (result < 0)
		return result;
	result = plan_decode(m->plan.host.bytes, m->plan.host.length, &r->plan, e);
	if (result >= 0 && !m->plan.boots_disk)
		result = guest_decode(&guest_config_shape, m->plan.config.bytes, m->plan.config.length, &m->config, e);
	if (result >= 0 && m->plan.disks > MACHINE_DISKS_MOST)
		result = err_set(e, ERR_INVALID, "a plan with %llu disks", (unsigned long long)m->plan.disks);
	return result;
}

static int boot(struct machine *m, struct err *e)
{
	struct runner *r = m->runner;
	int result = begin(m, e);

	if (result < 0)
		return result;
	bool paused = r->plan.flags & PLAN_PAUSED;
	if (paused && !m->plan.resumes) {
		m->settled = true;
		r->status.state = RUNNER_PAUSED;
		return 0;
	}
	if ((result = loop_run(r->loop, e)) < 0)
		return result;
	if (m->error.kind) {
		*e = m->error;
		return -m->error.number;
	}
	if (paused && r->status.state == RUNNER_STARTING)
		r->status.state = RUNNER_PAUSED;
	r->released = true;
	if (r->status.state == RUNNER_STARTING)
		r->status.state = RUNNER_RUNNING;
	return 0;
}

int machine_start(struct runner *r, const void *bytes, size_t length, int socket, struct err *e)
{
	struct machine *m = mem_alloc(sizeof *m);

	*m = (struct machine){ .runner = r, .pidfd = -1, .line = -1, .console = -1, .errors = -1, .exit_status = 255, .folder = -1, .state = -1 };
	m->memory = machine_memory_new(r->loop);
	r->machine = m;
	int result = decode(m, bytes, length, e), fault;
	m->network = machine_network_new(&r->plan, &m->plan);
	if (result >= 0)
		result = runner_prepare(r, e);
	if (result >= 0)
		result = control_listen(r, e);
	if (result >= 0)
		result = receive_disks(m, socket, e);
	if (result >= 0 && (fault = fault_point("runner.volumes")) > 0)
		result = err_errno(e, fault, "after the disks");
	if (result >= 0)
		result = boot(m, e);
	if (result < 0)
		machine_free(m);
	return result;
}

void machine_free(struct machine *m)
{
	m->settled = true;
	take_down(m);
	m->runner->machine = NULL;
	loop_remove(m->last_timer);
	for (size_t i = 0; i < m->disk_count; i++)
		close_fd(&m->disks[i]);
	machine_network_free(m->network);
	machine_memory_free(m->memory);
	close_fd(&m->folder);
	close_fd(&m->state);
	guest_done(&guest_config_shape, &m->config);
	machine_plan_done(&m->plan);
	str_done(&m->tail);
	free(m);
}

/* --- sessions --- */

static int signal_system(void *data, int number, struct err *e)
{
	struct machine *m = data;

	(void)e;
	channel_signal(m->channel, number);
	return 0;
}

void machine_begin_session(struct machine *m)
{
	struct runner *r = m->runner;
	struct session_options how;

	if (r->session)
		return;
	loop_remove(m->console_source);
	m->console_source = NULL;
	runner_session_options(r, &how);
	how.streams = (struct session_streams){ -1, -1, -1, -1, m->console };
	m->console = -1;
	how.signal = signal_system;
	how.other = m;
	logfile_write(&r->log, 1, m->tail.bytes, m->tail.length);
	r->session = session_new(r->loop, &how);
	if (m->gone)
		session_end(r->session, m->exit_status);
}

int machine_open(struct machine *m, const struct runner_request *q, const char *const *texts, size_t count,
		 const struct session_options *how, struct session **ret_session, struct err *e)
{
	struct guest_open o = machine_words_open(q, texts, count);

	if (m->gone)
		return err_set(e, ERR_CONFLICT, "the workspace is not running");
	if (m->disk && q->kind == RUNNER_EXEC)
		return machine_disk_exec(m->disk, q, texts, count, how, ret_session, e);
	if (m->disk) {
		(void)err_set(e, ERR_UNSUPPORTED, "the machine boots a disk of its own, where nobody copies files");
		return err_hint(e, "copy over its network, or run tar in it with carrel exec");
	}
	*ret_session = channel_open(m->channel, &o, how, e);
	return *ret_session ? 0 : -EIO;
}

int machine_display(struct machine *m, const struct session_options *how, struct session **ret_session, struct err *e)
{
	if (m->gone || !m->disk)
		return m->gone ? err_set(e, ERR_CONFLICT, "the workspace is not running") :
				 err_set(e, ERR_UNSUPPORTED, "the workspace has no display: it boots no disk of its own");
	if (!m->plan.display) /* QEMU would take the viewer and never answer it */
		return err_set(e, ERR_UNSUPPORTED, "the machine has no display (machine: display: none)");
	return machine_disk_display(m->disk, m->qmp, how, ret_session, e);
}

/* --- control --- */

void machine_stop(struct machine *m, uint64_t timeout_ms)
{
	uint8_t bytes[4];

	guest_put_u32(bytes, timeout_ms > UINT32_MAX ? UINT32_MAX : (uint32_t)timeout_ms);
	qmp_send(m->qmp, "cont", NULL, QMP_DEADLINE_MS, NULL, NULL);
	if (m->disk)
		machine_disk_stop(m->disk, m->qmp);
	else
		channel_request(m->channel, GUEST_SHUTDOWN, bytes, sizeof bytes, timeout_ms + STOP_GRACE_MS, NULL, NULL);
}

struct freezing {
	void (*done)(void *data, int result, const struct err *e);
	void *data;
};

static void frozen_now(void *data, int result, struct qmp_value value, const struct err *e)
{
	struct freezing *f = data;

	(void)value;
	f->done(f->data, result, e);
	free(f);
}

void machine_freeze(struct machine *m, bool frozen, void (*done)(void *data, int result, const struct err *e), void *data)
{
	struct freezing *f = mem_alloc(sizeof *f);

	*f = (struct freezing){ done, data };
	if (!frozen && !m->runner->released && !m->timer && !m->disk)
		m->timer = loop_add_timer(m->runner->loop, m->plan.boot_ms, no_hello, m);
	qmp_send(m->qmp, frozen ? "stop" : "cont", NULL, QMP_DEADLINE_MS, frozen_now, f);
}

void machine_save(struct machine *m, int state, void (*done)(void *data, int result, const struct err *e), void *data)
{
	struct err e;

	if (!m->gone && m->qmp && !machine_memory_busy(m->memory)) {
		machine_memory_save(m->memory, m->qmp, state, done, data);
		return;
	}
	(void)close(state);
	int r = err_set(&e, ERR_CONFLICT, "the machine is %s", m->gone ? "gone" : "at work on its memory");
	done(data, r, &e);
}

void machine_connect(struct machine *m, const char *const *interfaces, channel_done_fn *done, void *data)
{
	struct err e;

	if (!m->gone && m->qmp) {
		machine_network_set(m->network, m->qmp, m->channel, interfaces,
				    !m->disk && m->runner->status.state == RUNNER_RUNNING, done, data);
		return;
	}
	int r = err_set(&e, ERR_CONFLICT, "the workspace is not running");
	done(data, r, &e);
}
