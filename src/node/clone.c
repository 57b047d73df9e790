/* SPDX-License-Identifier: Apache-2.0 */
#include "node/clone.h"

#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "engine/runner_client.h"
#include "model/guest_protocol.h"
#include "node/suspend.h"
#include "node/suspend_machine.h"

#define HOOKS_MS 10000
#define MESSAGE_MOST 65536

/* $0: the number, $1: the name. The file is for a carrel-init that did not write it. */
static const char hooks[] = "mkdir -p /run/carrel && echo \"$0\" > " GUEST_CLONE_FILE "\n"
			    "for hook in " GUEST_HOOKS_FOLDER "/*; do [ -x \"$hook\" ] && \"$hook\" \"$0\" \"$1\"; done\n";

static char *origin_path(const struct node *n, const struct record *r, const char *inner)
{
	const struct assignment_origin *o = r->wish.origin;

	if (!id_valid(o->workspace) || !id_valid(o->snapshot))
		return mem_strdup("");
	return mem_printf("%s/%s/snapshots/%s/%s", n->workspaces, o->workspace, o->snapshot, inner);
}

bool clone_waits(const struct record *r)
{
	return r->wish.origin && r->wish.origin->memory && r->truth.report->run == 0 && r->truth.report->state < STATE_STARTING;
}

char *clone_volume(const struct node *n, const struct record *r, const char *path, const char *name)
{
	if (!r->wish.origin || fs_exists(AT_FDCWD, path))
		return NULL;
	own_str char *inner = mem_printf("%s.ext4", name);
	return origin_path(n, r, inner);
}

int clone_take_memory(struct work *w, struct err *e)
{
	struct report *report = w->record->truth.report;
	own_str char *from = origin_path(w->node, w->record, MEMORY_FOLDER), *to = record_path(w->record, MEMORY_FOLDER);
	struct memory_manifest m = { 0 };
	int fault = fault_point("clone-memory");
	int r = fault ? err_errno(e, fault, "clone") : suspend_discard(w->record, e);

	if (r == 0)
		r = suspend_machine_clone_state(w, from, to, e);
	if (r == 0)
		r = suspend_read(w->record, &m, e);
	if (r < 0)
		return err_wrap(e, "the memory of workspace %s", w->record->wish.origin->workspace);
	free(report->engine);
	report->engine = mem_strdup(spec_engine_names[m.engine]);
	report->run = w->record->wish.run;
	report->started_ms = unix_ms();
	report->state = STATE_SUSPENDED;
	memory_manifest_done(&m);
	suspend_count_bytes(w->record);
	return 0;
}

/* Until it has ended, or has had its time. */
static void await(int fd)
{
	own_str char *bytes = mem_alloc(MESSAGE_MOST);

	for (uint64_t until = loop_now_ms() + HOOKS_MS, now; (now = loop_now_ms()) < until;) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		if (poll(&p, 1, (int)(until - now)) > 0 && read(fd, bytes, MESSAGE_MOST) <= 0)
			return;
	}
	log_warn("the hooks of a clone go on after %d s; nobody waits for them", HOOKS_MS / 1000);
}

void clone_tell(const struct work *w)
{
	const struct record *r = w->record;
	own_str char *run = mem_printf("%s/%s", w->node->runs, r->id),
		     *number = mem_printf("%" PRIu64, r->wish.origin ? r->wish.origin->number : 1);
	const char *const command[] = { "/bin/sh", "-c", hooks, number, r->wish.spec->name, NULL };
	const struct runner_exec what = { .command = command, .user = "0" };
	struct runner_status status = { 0 };
	own_fd int fd = -1;
	struct err e;

	if (runner_status(run, &status, &e) >= 0 && status.told == GUEST_TOLD)
		return;
	if (runner_exec(run, &what, &fd, &e) < 0)
		log_info("workspace %s: it is not told that it is a clone: %s", r->id, e.message);
	else
		await(fd);
}
