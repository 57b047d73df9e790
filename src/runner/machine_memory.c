/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. QEMU calls it a migration: capabilities, a descriptor (getfd takes it, the migration uses it up), the command, and an
 * event when it is over. The commands are sent together; the first that fails is the result, and so is the event or the
 * time-out. What comes after the result is passed over.
 *
 * The event of a save comes from a thread of QEMU's that has still something to do: until it is at the end the machine is in
 * the state "finish-migrate", and QEMU refuses to let it go on. Nothing tells of that end, so the state is asked for until it
 * is another one.
 */
#include "runner/machine_memory.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"

#define STATE_MS 20000 /* some 10 ms are usual */
#define AGAIN_MS 2
#define CAPABILITIES                                                                                                           \
	"{\"capabilities\":[{\"capability\":\"x-ignore-shared\",\"state\":true},{\"capability\":\"events\",\"state\":true}]}"

struct machine_memory {
	struct loop *loop;
	struct qmp *qmp;
	struct loop_source *timer, *again;
	machine_memory_done_fn *done; /* NULL: nothing under way */
	void *data;
	bool saves, over; /* a save, and QEMU has said how it ended */
	bool saved;       /* there was one before */
	int result;
	struct err why;
};

struct machine_memory *machine_memory_new(struct loop *l)
{
	struct machine_memory *m = mem_alloc(sizeof *m);

	*m = (struct machine_memory){ .loop = l };
	return m;
}

void machine_memory_free(struct machine_memory *m)
{
	if (!m)
		return;
	loop_remove(m->timer);
	loop_remove(m->again);
	free(m);
}

bool machine_memory_busy(const struct machine_memory *m) { return m->done != NULL; }

static void finish(struct machine_memory *m, int result, const struct err *e)
{
	machine_memory_done_fn *done = m->done;

	m->done = NULL;
	m->saves = m->over = false;
	loop_remove(m->timer);
	loop_remove(m->again);
	m->timer = m->again = NULL;
	if (done)
		done(m->data, result, e);
}

static void too_late(void *data)
{
	struct machine_memory *m = data;
	struct err e;

	m->timer = NULL;
	int r = err_set(&e, ERR_TIMEOUT, "QEMU has not moved the machine's state after %d s", STATE_MS / 1000);
	qmp_send(m->qmp, "migrate_cancel", NULL, QMP_DEADLINE_MS, NULL, NULL);
	finish(m, r, &e);
}

static void answered(void *data, int result, struct qmp_value value, const struct err *e)
{
	struct machine_memory *m = data;

	(void)value;
	if (result < 0 && m->done)
		finish(m, result, e);
}

/* "The capability is not there" or "is set already" are told by the migration itself. */
static void begin(struct machine_memory *m, struct qmp *q, int fd, machine_memory_done_fn *done, void *data)
{
	m->qmp = q;
	m->done = done;
	m->data = data;
	m->timer = loop_add_timer(m->loop, STATE_MS, too_late, m);
	qmp_send(q, "migrate-set-capabilities", CAPABILITIES, STATE_MS, answered, m);
	qmp_send_fd(q, "getfd", "{\"fdname\":\"state\"}", fd, STATE_MS, answered, m);
}

void machine_memory_save(struct machine_memory *m, struct qmp *q, int fd, machine_memory_done_fn *done, void *data)
{
	/* QEMU saves a machine that stands since it was saved only after it ran, were it for a moment: one that is paused */
	if (m->saved)
		qmp_send(q, "cont", NULL, STATE_MS, NULL, NULL);
	qmp_send(q, "stop", NULL, STATE_MS, NULL, NULL);
	begin(m, q, fd, done, data);
	m->saves = m->saved = true;
	qmp_send(q, "migrate", "{\"uri\":\"fd:state\"}", STATE_MS, answered, m);
}

void machine_memory_load(struct machine_memory *m, struct qmp *q, int fd, machine_memory_done_fn *done, void *data)
{
	begin(m, q, fd, done, data);
	qmp_send(q, "migrate-incoming", "{\"uri\":\"fd:state\"}", STATE_MS, answered, m);
}

static void ask_state(void *data);

static void state_told(void *data, int result, struct qmp_value value, const struct err *e)
{
	struct machine_memory *m = data;
	char status[32] = "";

	if (!m->over || m->again)
		return;
	if (result >= 0 && qmp_text(value, "status", status, sizeof status) && str_eq(status, "finish-migrate")) {
		m->again = loop_add_timer(m->loop, AGAIN_MS, ask_state, m);
		return;
	}
	struct err why = m->result < 0 || !e ? m->why : *e;
	finish(m, m->result < 0 ? m->result : result, &why);
}

static void ask_state(void *data)
{
	struct machine_memory *m = data;

	m->again = NULL;
	qmp_send(m->qmp, "query-status", NULL, STATE_MS, state_told, m);
}

static void over(struct machine_memory *m, int result, const struct err *e)
{
	if (!m->saves) {
		finish(m, result, e);
	} else if (!m->over) {
		m->over = true;
		m->result = result;
		if (e)
			m->why = *e;
		ask_state(m);
	}
}

void machine_memory_event(struct machine_memory *m, const char *name, struct qmp_value value)
{
	char status[32] = "";
	struct err e;

	if (!m->done || strcmp(name, "MIGRATION") != 0 || !qmp_text(value, "status", status, sizeof status))
		return;
	if (str_eq(status, "completed"))
		over(m, 0, NULL);
	else if (str_eq(status, "failed") || str_eq(status, "cancelled"))
		over(m, err_set(&e, ERR_INTERNAL, "QEMU could not move the machine's state (%s)", status), &e);
}
