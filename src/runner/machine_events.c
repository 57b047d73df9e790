/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. What a machine says, and what follows from it. Things end in one order: the guest tells how the program ended when
 * its volumes are unmounted, the machine is killed (nothing is left that could be lost), QEMU's pidfd says that the disks are
 * free, and then the runner tells the agent. A machine that dies without a word ends its sessions with 137, as a killed program
 * does.
 *
 * The guest is not believed: it can end its own workspace, and say with which status; nothing else follows from what it says.
 */
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/own.h"
#include "runner/machine_private.h"
#include "runner/machine_threads.h"
#include "runner/machine_words.h"
#include "runner/network.h"
#include "runner/suspend.h"

#define LAST_WORDS_MS 2000
#define GONE_MS 30000 /* from the program's end to the machine's */

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

void machine_settle(struct machine *m)
{
	if (m->settled)
		return;
	m->settled = true;
	loop_remove(m->timer);
	m->timer = NULL;
	loop_stop(m->runner->loop);
}

/* QEMU's line is over a moment before its process is; why it ended it has told by then. */
static void add_last_words(struct machine *m)
{
	struct pollfd ended = { .fd = m->pidfd, .events = POLLIN };

	if (m->error.kind != ERR_UNAVAILABLE || m->pidfd < 0 || m->errors < 0)
		return;
	(void)poll(&ended, 1, LAST_WORDS_MS);
	(void)machine_words_read(&m->tail, m->errors);
	own_str char *lines = machine_words_last(&m->tail);
	own_str char *why = mem_strdup(m->error.message);
	if (*lines)
		(void)err_set(&m->error, ERR_UNAVAILABLE, "%s; it said last: %s", why, lines);
}

void machine_settle_badly(struct machine *m, const struct err *e)
{
	if (m->settled)
		return;
	m->error = *e;
	add_last_words(m);
	machine_settle(m);
}

void machine_runs(struct machine *m)
{
	if (m->runs && (m->identified || !m->plan.identity.length))
		machine_settle(m);
}

/* --- the end --- */

static void try_end(struct machine *m)
{
	struct runner *r = m->runner;

	if (!m->session_over || !m->gone)
		return;
	for (size_t i = 0; i < m->disk_count; i++)
		machine_close_fd(&m->disks[i]);
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
		/* newer ones end when a state is not theirs */
		m->unloadable = info.si_code == CLD_EXITED && machine_memory_busy(m->memory);
		machine_close_fd(&m->pidfd);
		machine_settle_badly(m, &e);
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

	(void)err_set(&e, ERR_UNAVAILABLE,
		      "the machine's processor met something that this host cannot run (QEMU: internal-error)");
	(void)err_hint(&e, "use the engine emulator");
	log_error(&e, "workspace %s", m->runner->plan.id);
	machine_settle_badly(m, &e);
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
	bool again = m->heard;

	(void)h;
	m->heard = true;
	if (m->settled || again) /* one that says hello for ever gets no more time by it */
		return;
	loop_remove(m->timer);
	m->timer = NULL;
	if (m->plan.template == TEMPLATE_MADE)
		machine_settle(m);
	else
		machine_await(m);
}

static void guest_failed(struct machine *m, const struct guest_state *s)
{
	struct err e = { 0 };

	if (guest_error_get(&s->error, &e) >= 0)
		(void)err_set(&e, ERR_INTERNAL, "the machine failed and does not say why");
	m->refused = s->exit_status != 0;
	machine_settle_badly(m, &e);
	machine_kill(m);
}

/* Volumes may have grown since the last run; for those that did not, nothing happens. What a memory knows of never does. */
static void grow_volumes(struct machine *m)
{
	const struct guest_volume *v = m->config.volumes.items;

	channel_request(m->channel, GUEST_GROW, m->config.root, strlen(m->config.root), CHANNEL_DEADLINE_MS, NULL, NULL);
	for (size_t i = 0; i < m->config.volumes.count; i++)
		channel_request(m->channel, GUEST_GROW, v[i].serial, strlen(v[i].serial), CHANNEL_DEADLINE_MS, NULL, NULL);
}

static void gone_on(void *data, int result, const struct err *e)
{
	struct machine *m = data;
	struct err why;

	if (m->quiet)
		return;
	if (result >= 0) {
		result = machine_open_program(m, &why);
		e = &why;
	}
	if (result < 0)
		machine_settle_badly(m, e);
}

/* All are made again inside and stand still. From here on the state is no more: they change memory and disks. */
static void guest_arrived(struct machine *m)
{
	struct err e;

	if (m->settled || m->went || !m->plan.arrives)
		return;
	int fault = fault_point("runner.arrived"),
	    r = fault ? err_errno(&e, fault, "arrive") : suspend_take_manifest(m->folder, &e);
	if (r < 0) {
		machine_settle_badly(m, &e);
		return;
	}
	m->went = true;
	network_hold(&m->runner->plan, false);
	(void)fault_point("runner.went");
	channel_request(m->channel, GUEST_GO, NULL, 0, CHANNEL_DEADLINE_MS, gone_on, m);
}

static void guest_state(void *data, const struct guest_state *s)
{
	struct machine *m = data;

	switch (s->phase) {
	case GUEST_RUNNING:
		if (!m->grown && !m->plan.resumes)
			grow_volumes(m);
		m->grown = m->runs = true;
		machine_runs(m);
		break;
	case GUEST_ARRIVED:
		guest_arrived(m);
		break;
	case GUEST_FAILED:
		guest_failed(m, s);
		break;
	case GUEST_ENDED:
		m->reported = true;
		m->exit_status = s->exit_status <= 255 ? (int)s->exit_status : 255;
		machine_settle(m);
		machine_kill(m); /* its volumes are unmounted */
		break;
	default:
		break;
	}
}

/* --- its lines --- */

/* QEMU has answered: its threads are there, and none has run the guest yet, or only for a moment. In the group of the whole
 * they are limited too, only less exactly. */
static void threads_are_there(void *data, int result, struct qmp_value value, const struct err *e)
{
	const struct machine *m = data;
	struct err why = { 0 };

	(void)value, (void)e;
	if (result >= 0 && machine_threads_place(m->pid, m->plan.processors, &why) < 0)
		log_error(&why, "workspace %s", m->runner->plan.id);
}

void machine_listen(struct machine *m, int qmp)
{
	struct loop *l = m->runner->loop;
	const struct qmp_events events = { .event = qmp_event, .closed = qmp_closed, .data = m };

	m->qmp = qmp_new(l, qmp, &events);
	if (*m->plan.processors)
		qmp_send(m->qmp, "query-status", NULL, QMP_DEADLINE_MS, threads_are_there, m);
	m->console_source = loop_add_fd(l, m->console, EPOLLIN, console_ready, m);
	m->errors_source = loop_add_fd(l, m->errors, EPOLLIN, errors_ready, m);
	m->ended = loop_add_fd(l, m->pidfd, EPOLLIN, qemu_ended, m);
}

void machine_open_channel(struct machine *m)
{
	const struct channel_events events = { .hello = guest_hello, .state = guest_state, .data = m };

	m->channel = channel_new(m->runner->loop, m->line, &events);
	m->line = -1;
}
