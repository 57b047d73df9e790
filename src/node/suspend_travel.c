/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A workspace departs from its machine: carrel-inner has CRIU write it to the luggage while the machine lives, the machine
 * stands still, and what is on the luggage becomes a memory state as namespaces leave one. The commit ends the machine; before
 * it, all go on at any failure.
 */
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "base/mem.h"
#include "base/own.h"
#include "engine/workspace/checkpoint_program.h"
#include "node/checkpoint.h"
#include "node/suspend.h"
#include "node/travel.h"

static int check(struct node *n, const struct record *r, struct err *e)
{
	return travel_check(n, r, spec_engine_names[r->wish.spec->engine], e);
}

static int save(struct work *w, int folder, struct memory_manifest *m, void **ret_saved, struct err *e)
{
	const char *engine = w->record->truth.report->engine;
	char version[CHECKPOINT_VERSION_SIZE];
	own_fd int connection = -1;
	int fault, r = checkpoint_probe(version, e);

	if (r < 0 || (r = isolate_depart(w->node, w->record, folder, &connection, e)) < 0)
		return r;
	if ((fault = fault_point("travel-departed")))
		return err_errno(e, fault, "depart");
	m->kind = MEMORY_CRIU;
	m->engine = engine && str_eq(engine, spec_engine_names[ENGINE_KVM]) ? ENGINE_KVM : ENGINE_EMULATOR;
	m->program = mem_strdup("criu");
	m->version = mem_strdup(version);
	travel_features(&m->features);
	if ((r = travel_unpack(w->record, folder, m, e)) < 0)
		return r; /* the connection closes: it goes on */
	*ret_saved = suspend_connection(TAKE_FD(connection));
	return 0;
}

const struct suspend_engine suspend_travel = {
	.name = "travel", .check = check, .save = save, .commit = suspend_connection_commit, .abort = suspend_connection_abort,
};
