/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. A start has an outcome that its caller waits for in the loop:
 *
 *   QEMU executed -> hello -> configured -> running     the program was executed: the caller goes on
 *            \-> no hello in time: killed, begun once more; then failed, with the last lines of the console
 *
 * What the machine says meanwhile and later, and how it ends, is in machine_events.c; what is asked of it in machine_control.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/own.h"
#include "engine/qemu/confine.h"
#include "runner/machine_private.h"
#include "runner/machine_words.h"
#include "runner/network.h"
#include "runner/suspend.h"

#define ARRIVAL 5 /* times as long as to boot */
#define ATTEMPTS 2
#define FDS_MOST (MACHINE_FD_DISKS + MACHINE_DISKS_MOST + MACHINE_NETWORK_FDS_MOST)

void machine_close_fd(int *fd)
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
	loop_remove(m->whole_source);
	m->ended = m->console_source = m->errors_source = m->timer = m->whole_source = NULL;
	machine_disk_free(TAKE(m->disk));
	channel_free(m->channel);
	qmp_free(m->qmp);
	m->channel = NULL;
	m->qmp = NULL;
	machine_close_fd(&m->pidfd);
	machine_close_fd(&m->line);
	machine_close_fd(&m->console);
	machine_close_fd(&m->errors);
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
	if (!m->heard && !m->plan.resumes && m->plan.template != TEMPLATE_USED && ++m->attempt < ATTEMPTS) {
		log_info("workspace %s: the machine did not boot; once more", m->runner->plan.id);
		take_down(m);
		if (begin(m, &e) < 0)
			machine_settle_badly(m, &e);
		return;
	}
	own_str char *lines = machine_words_last(&m->tail);
	const char *times = m->attempt < ATTEMPTS ? "" : " (twice)";
	(void)err_set(&e, ERR_TIMEOUT, "the machine %s after %llu s%s; it said last: %s",
		      m->heard ? "does not run its program" : "did not boot", (unsigned long long)m->plan.boot_ms / 1000, times,
		      *lines ? lines : "nothing");
	machine_settle_badly(m, &e);
}

/* What arrives is read and made again first, however much it is. */
void machine_await(struct machine *m)
{
	m->timer = loop_add_timer(m->runner->loop, m->plan.boot_ms * (m->heard && m->plan.arrives ? ARRIVAL : 1), no_hello, m);
}

/* --- one attempt --- */

static void configured(void *data, int result, const struct err *e)
{
	struct machine *m = data;

	if (result < 0 && !m->quiet) /* of an attempt that is taken down */
		machine_settle_badly(m, e);
}

static void send_config(struct machine *m)
{
	own_strbuf struct str payload = { 0 };

	m->config.rescan = m->plan.template == TEMPLATE_USED;
	machine_words_config(&m->config, &payload);
	channel_request(m->channel, GUEST_CONFIGURE, payload.bytes, payload.length, 2 * m->plan.boot_ms, configured, m);
}

/* A clone that cannot become itself must not run as another. */
static void identified(void *data, int result, const struct err *e)
{
	struct machine *m = data;
	struct err why;

	if (m->quiet || !m->plan.identity.length)
		return;
	if (result >= 0) {
		m->runner->status.told = (uint32_t)result;
		m->identified = true;
		machine_runs(m);
		return;
	}
	why = *e;
	(void)err_wrap(&why, "the clone's identity");
	log_error(&why, "workspace %s", m->runner->plan.id);
	machine_settle_badly(m, &why);
	machine_kill(m);
}

static int send_identity(struct machine *m, struct err *e)
{
	uint64_t deadline_ms = m->runner->plan.flags & PLAN_PAUSED ? CHANNEL_PATIENCE_MS : m->plan.boot_ms;
	own_strbuf struct str payload = { 0 };
	int r = machine_words_identity(&m->plan.identity, &payload, e);

	if (r >= 0)
		channel_request(m->channel, GUEST_IDENTITY, payload.bytes, payload.length, deadline_ms, identified, m);
	return r;
}

static bool has_program(const struct machine *m)
{
	uint64_t flags = m->runner->plan.flags;

	/* a system's console is the kernel's otherwise */
	return !(flags & PLAN_MAINTENANCE) && (!(flags & PLAN_SYSTEM) || flags & PLAN_TRAVELS);
}

int machine_open_program(struct machine *m, struct err *e)
{
	struct runner *r = m->runner;
	uint64_t flags = r->plan.flags;
	static char nothing[] = "";
	struct guest_open o = { .kind = GUEST_PROGRAM, .terminal = (flags & PLAN_TERMINAL) != 0,
				.input = (flags & PLAN_INPUT) != 0, .user = nothing, .directory = nothing, .path = nothing };
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
		machine_settle_badly(data, e);
	else
		machine_settle(data);
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

static void let_disk_go(struct machine *m)
{
	if (!(m->runner->plan.flags & PLAN_PAUSED))
		qmp_send(m->qmp, "cont", NULL, QMP_DEADLINE_MS, disk_started, m);
}

static int begin_disk(struct machine *m, int agent, struct err *e)
{
	m->disk = machine_disk_new(m->runner->loop, agent);
	int r = open_dead_channel(m, e);
	if (r < 0)
		return r;
	m->heard = true;
	m->runner->status.pid = m->pid;
	if (!m->plan.resumes)
		let_disk_go(m);
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
	if (r >= 0 && m->plan.arrives) /* a frame for a connection that is not there yet would end it */
		network_hold(&m->runner->plan, true);
	if (r >= 0 && (fault = fault_point("runner.taps")) > 0)
		r = err_errno(e, fault, "after the taps");
	struct confine how = { .machine = &m->plan, .host = &m->runner->plan, .fds = fds, .fd_count = count + taps,
			       .errors = errors[1] };
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
	int r;

	machine_open_channel(m);
	if (m->plan.template != TEMPLATE_MADE)
		send_config(m);
	if (has_program(m) && !m->plan.arrives && (r = machine_open_program(m, e)) < 0)
		return r;
	if (m->runner->plan.flags & PLAN_PAUSED)
		return 0;
	qmp_send(m->qmp, "cont", NULL, QMP_DEADLINE_MS, NULL, NULL);
	machine_await(m);
	return 0;
}

/* Nothing of it is this workspace's yet: it is told like one that has just booted. */
static void template_loaded(void *data, int result, const struct err *e)
{
	struct machine *m = data;
	struct err why = { 0 };
	int fault = fault_point("runner.template");

	if (result < 0)
		why = *e;
	else if (fault)
		result = err_errno(&why, fault, "start from the template");
	if (result < 0) /* that a host is slow or full, or somebody killed QEMU, says nothing about the state */
		m->unloadable = why.kind != ERR_TIMEOUT && why.kind != ERR_NO_CAPACITY && why.kind != ERR_UNAVAILABLE;
	else
		result = talk(m, &why);
	if (result < 0)
		machine_settle_badly(m, &why);
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
		machine_settle_badly(m, &why);
		return;
	}
	result = fault ? err_errno(&why, fault, "resume") : suspend_take_manifest(m->folder, &why);
	if (result >= 0) {
		(void)fault_point("runner.resumed");
		result = m->disk ? 0 : talk(m, &why);
	}
	if (result < 0) {
		machine_settle_badly(m, &why);
		return;
	}
	if (m->disk) {
		machine_disk_thaw(m->disk, true); /* it may have been paused when it was suspended */
		machine_disk_set_clock(m->disk);
		let_disk_go(m);
	} else if (send_identity(m, &why) < 0) {
		machine_settle_badly(m, &why);
		return;
	}
	if (m->runner->plan.flags & PLAN_PAUSED)
		machine_settle(m);
}

static void load(struct machine *m)
{
	machine_memory_load(m->memory, m->qmp, fcntl(m->state, F_DUPFD_CLOEXEC, 0), m->plan.resumes ? loaded : template_loaded,
			    m);
}

/* However long it took: from now on the machine has its deadlines. */
static void on_whole(void *data, uint32_t events)
{
	struct machine *m = data;
	struct err e;
	char byte;
	ssize_t n = read(m->whole, &byte, 1);

	(void)events;
	if (n < 0 && errno == EINTR)
		return;
	loop_remove(m->whole_source);
	m->whole_source = NULL;
	machine_close_fd(&m->whole);
	if (n == 1) {
		load(m);
		return;
	}
	(void)err_set(&e, ERR_CORRUPT, "the memory state: its memory did not become whole");
	machine_settle_badly(m, &e);
}

static int begin(struct machine *m, struct err *e)
{
	int ours[3] = { -1, -1, -1 }, theirs[3] = { -1, -1, -1 };
	int r = make_lines(ours, theirs, e);

	if (r >= 0)
		r = execute(m, theirs, e);
	for (int i = 0; i < 3; i++)
		machine_close_fd(&theirs[i]);
	if (r < 0) {
		for (int i = 0; i < 3; i++)
			machine_close_fd(&ours[i]);
		return r;
	}
	m->line = ours[1];
	m->console = ours[2];
	machine_listen(m, ours[0]);
	m->heard = false;
	if (m->plan.boots_disk && (r = begin_disk(m, TAKE_FD(m->line), e)) < 0)
		return r;
	m->runner->status.pid = m->pid;
	if (m->plan.identity.length) /* the network would be told where the original is */
		qmp_send(m->qmp, "migrate-set-parameters", "{\"announce-rounds\":0}", QMP_DEADLINE_MS, NULL, NULL);
	if (m->plan.resumes || m->plan.template == TEMPLATE_USED) {
		if (m->whole >= 0)
			m->whole_source = loop_add_fd(m->runner->loop, m->whole, EPOLLIN, on_whole, m);
		else
			load(m);
		return 0;
	}
	return m->disk ? 0 : talk(m, e);
}

/* --- life --- */

static void take_fd(struct machine *m, int fd)
{
	if (m->disk_count < m->plan.disks)
		m->disks[m->disk_count++] = fd;
	else if (m->folder < 0 && (m->plan.resumes || m->plan.arrives))
		m->folder = fd;
	else if (m->state < 0)
		m->state = fd;
	else if (m->plan.waits && m->whole < 0)
		m->whole = fd;
	else
		(void)close(fd);
}

static int receive_disks(struct machine *m, int socket, struct err *e)
{
	bool has_state = m->plan.resumes || m->plan.template == TEMPLATE_USED;

	while (m->disk_count < m->plan.disks || (has_state && m->state < 0) || (m->plan.waits && m->whole < 0) ||
	       (m->plan.arrives && m->folder < 0)) {
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
		/* what cannot be made again here, or is not there, cannot after a boot */
		if (m->plan.template == TEMPLATE_USED && !m->refused && !(m->plan.arrives && m->heard))
			e->number = m->unloadable ? EBADMSG : ESTALE;
		return -e->number;
	}
	if (paused && r->status.state == RUNNER_STARTING)
		r->status.state = RUNNER_PAUSED;
	r->released = true;
	if (r->status.state == RUNNER_STARTING)
		r->status.state = RUNNER_RUNNING;
	return 0;
}

static void abandon(struct machine *m)
{
	m->settled = true;
	take_down(m);
	m->runner->machine = NULL;
	loop_remove(m->last_timer);
	for (size_t i = 0; i < m->disk_count; i++)
		machine_close_fd(&m->disks[i]);
	machine_network_free(m->network);
	machine_memory_free(m->memory);
	machine_close_fd(&m->folder);
	machine_close_fd(&m->state);
	machine_close_fd(&m->whole);
	guest_done(&guest_config_shape, &m->config);
	machine_plan_done(&m->plan);
	str_done(&m->tail);
	free(m);
}

int machine_start(struct runner *r, const void *bytes, size_t length, int socket, struct err *e)
{
	struct machine *m = mem_alloc(sizeof *m);

	*m = (struct machine){ .runner = r, .pidfd = -1, .line = -1, .console = -1, .errors = -1, .exit_status = 255,
			       .folder = -1, .state = -1, .whole = -1 };
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
		abandon(m);
	return result;
}

