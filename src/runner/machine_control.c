/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is asked of a machine that runs: sessions, stop, freeze, memory, interfaces. Everything is answered later, by the guest
 * (channel.h) or by QEMU (qmp.h), so each call has a `done` that is called exactly once, with an error when the machine has
 * ended; none of them waits.
 *
 * A freeze has two parts that fail apart: the guest writes its volumes to the end, for FREEZE_MS at most, and then QEMU stops
 * the processors whether it did or not. A thaw is sent even if the freezing was never answered, since the guest may hear of it
 * late. Leaving for another engine (depart) is the guest's own work, for which it must run, and ends with stopped processors
 * too.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/mem.h"
#include "runner/machine_private.h"
#include "runner/machine_words.h"

#define DEPART_MS (20 * 60 * 1000) /* memory of many gigabytes on a slow disk */
#define STOP_GRACE_MS 5000 /* on top of what the guest was given */

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
	if (m->disk)
		return machine_disk_copy(m->disk, q->kind == RUNNER_COPY_IN, texts[0], how, ret_session, e);
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
		machine_disk_stop(m->disk, m->qmp, timeout_ms);
	else
		channel_request(m->channel, GUEST_SHUTDOWN, bytes, sizeof bytes, timeout_ms + STOP_GRACE_MS, NULL, NULL);
}

#define FREEZE_MS 10000 /* for what the guest has still to write */

struct freezing {
	void (*done)(void *data, int result, const struct err *e);
	void *data;
	struct machine *machine;
	bool frozen;
};

/* Sent even if the freezing was not answered: it may come late. */
static void thaw_volumes(struct machine *m)
{
	if (m->disk)
		machine_disk_thaw(m->disk, false);
	else if (m->channel)
		channel_request(m->channel, GUEST_THAW, NULL, 0, FREEZE_MS, NULL, NULL);
}

static void frozen_now(void *data, int result, struct qmp_value value, const struct err *e)
{
	struct freezing *f = data;

	(void)value;
	if (!f->frozen && result >= 0)
		thaw_volumes(f->machine);
	f->done(f->data, result, e);
	free(f);
}

/* The guest has written everything that it had in memory, or did not answer in time: it stands still now in any case. */
static void volumes_frozen(void *data, int result, const struct err *e)
{
	struct freezing *f = data;
	struct err gone;

	(void)result;
	(void)e;
	if (f->machine->gone) {
		int r = err_set(&gone, ERR_UNAVAILABLE, "the machine has ended");
		f->done(f->data, r, &gone);
		free(f);
		return;
	}
	qmp_send(f->machine->qmp, "stop", NULL, QMP_DEADLINE_MS, frozen_now, f);
}

static void freeze_volumes(struct freezing *f)
{
	struct machine *m = f->machine;

	if (m->disk)
		machine_disk_freeze(m->disk, volumes_frozen, f);
	else
		channel_request(m->channel, GUEST_FREEZE, NULL, 0, FREEZE_MS, volumes_frozen, f);
}

void machine_freeze(struct machine *m, bool frozen, void (*done)(void *data, int result, const struct err *e), void *data)
{
	struct freezing *f = mem_alloc(sizeof *f);

	*f = (struct freezing){ done, data, m, frozen };
	if (frozen && m->runner->status.state == RUNNER_RUNNING && (m->disk || m->channel)) {
		freeze_volumes(f);
		return;
	}
	if (!frozen && !m->runner->released && !m->timer && !m->disk)
		machine_await(m);
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

static void departed(void *data, int result, const struct err *e)
{
	struct freezing *f = data;

	if (result >= 0 && f->machine->qmp && !f->machine->gone) {
		qmp_send(f->machine->qmp, "stop", NULL, QMP_DEADLINE_MS, frozen_now, f);
		return;
	}
	f->done(f->data, result, e);
	free(f);
}

/* It is paused or it runs; to write itself it must run. */
void machine_depart(struct machine *m, void (*done)(void *data, int result, const struct err *e), void *data)
{
	struct freezing *f = mem_alloc(sizeof *f);
	struct err e;

	*f = (struct freezing){ done, data, m };
	if (!m->gone && m->qmp && m->plan.travels) {
		qmp_send(m->qmp, "cont", NULL, QMP_DEADLINE_MS, NULL, NULL);
		channel_request(m->channel, GUEST_DEPART, NULL, 0, DEPART_MS, departed, f);
		return;
	}
	int r = m->gone || !m->qmp ? err_set(&e, ERR_CONFLICT, "the machine is gone") :
				     err_set(&e, ERR_UNSUPPORTED, "the machine was not started to travel");
	departed(f, r, &e);
}

void machine_stay(struct machine *m, void (*done)(void *data, int result, const struct err *e), void *data)
{
	qmp_send(m->qmp, "cont", NULL, QMP_DEADLINE_MS, NULL, NULL);
	channel_request(m->channel, GUEST_STAY, NULL, 0, DEPART_MS, done, data);
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
