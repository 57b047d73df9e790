/* SPDX-License-Identifier: Apache-2.0 */
#include "model/assignment.h"

#include <stddef.h>

#include "base/str.h"
#include "model/name.h"

#define N(member) offsetof(struct assignment_snapshot, member)
static const struct field snapshot_fields[] = {
	{ "id", FIELD_TEXT, N(id), "id", .required = true, .max = ID_LENGTH },
	{ "name", FIELD_TEXT, N(name), "name", .required = true, .check = name_check },
	{ "memory", FIELD_BOOL, N(memory), "of a running workspace, with its memory" },
	{ "brief", FIELD_BOOL, N(brief), "clones begin from it at once, and then it goes: its memory needs no digest" },
	{ 0 },
};
static const struct shape snapshot_shape = { "assignment-snapshot", sizeof(struct assignment_snapshot), snapshot_fields,
					     "A snapshot that shall exist.", .open = true };

#define K(member) offsetof(struct assignment_kernel, member)
static const struct field kernel_fields[] = {
	{ "name", FIELD_TEXT, K(name), "name", .required = true, .max = 256 },
	{ "release", FIELD_TEXT, K(release), "as uname(1) tells it", .required = true, .max = 128 },
	{ "digest", FIELD_TEXT, K(digest), "digest of the kernel partition", .required = true, .max = 71 },
	{ "size", FIELD_BYTES, K(size_bytes), "bytes of the partition" },
	{ 0 },
};
const struct shape assignment_kernel_shape = { "assignment-kernel", sizeof(struct assignment_kernel), kernel_fields,
					       "What a machine boots.", .open = true };

#define O(member) offsetof(struct assignment_origin, member)
static const struct field origin_fields[] = {
	{ "workspace", FIELD_TEXT, O(workspace), "id of the workspace that it is a clone of", .required = true,
	  .max = ID_LENGTH },
	{ "snapshot", FIELD_TEXT, O(snapshot), "id of the snapshot of it", .required = true, .max = ID_LENGTH },
	{ "name", FIELD_TEXT, O(name), "name that it had then", .max = NAME_LONGEST },
	{ "number", FIELD_NUMBER, O(number), "of this clone: 1, 2, ...", .required = true },
	{ "memory", FIELD_BOOL, O(memory), "it goes on where the other one stood" },
	{ 0 },
};
const struct shape assignment_origin_shape = { "assignment-origin", sizeof(struct assignment_origin), origin_fields,
					       "What a clone begins from.", .open = true };

#define A(member) offsetof(struct assignment, member)
static const struct field assignment_fields[] = {
	{ "id", FIELD_TEXT, A(id), "id of the workspace", .required = true, .max = ID_LENGTH },
	{ "generation", FIELD_NUMBER, A(generation), "grows with each change of the wish", .required = true },
	{ "wish", FIELD_ENUM, A(wish), "what shall be", .required = true, .names = wish_names },
	{ "run", FIELD_NUMBER, A(run), "number of the run that is wanted" },
	{ "held", FIELD_BOOL, A(held), "output waits for the first attach" },
	{ "owner", FIELD_NUMBER, A(owner_uid), "user id of the owner" },
	{ "spec", FIELD_OBJECT, A(spec), "the spec", .required = true, .shape = &spec_shape },
	{ "image", FIELD_OBJECT, A(image), "the image", .required = true, .shape = &image_shape },
	{ "kernel", FIELD_OBJECT, A(kernel), "what a machine boots", .shape = &assignment_kernel_shape },
	{ "origin", FIELD_OBJECT, A(origin), "what a clone begins from", .shape = &assignment_origin_shape },
	{ "attachments", FIELD_OBJECTS, A(attachments), "its interfaces", .max = NETWORK_INTERFACES,
	  .shape = &attachment_shape },
	{ "stop-timeout", FIELD_DURATION, A(stop_timeout_ms), "time for a clean shutdown in this stop; absent: the spec's",
	  .max = 3600000, .preset = FIELD_NO_PRESET },
	{ "snapshots", FIELD_OBJECTS, A(snapshots), "snapshots that shall exist", .shape = &snapshot_shape },
	{ "restore", FIELD_NUMBER, A(restore), "restores asked for so far" },
	{ "restore-from", FIELD_TEXT, A(restore_from), "snapshot of the last restore", .max = ID_LENGTH },
	{ 0 },
};
const struct shape assignment_shape = { "assignment", sizeof(struct assignment), assignment_fields,
					"The wish for one workspace.", .open = true };

#define E(member) offsetof(struct report_error, member)
static const struct field error_fields[] = {
	{ "kind", FIELD_TEXT, E(kind), "stable name of the kind" },
	{ "message", FIELD_TEXT, E(message), "what and why" },
	{ "hint", FIELD_TEXT, E(hint), "what to do" },
	{ "step", FIELD_TEXT, E(step), "step that failed" },
	{ 0 },
};
static const struct shape error_shape = { "report-error", sizeof(struct report_error), error_fields, "Why a workspace failed.",
					  .open = true };

#define T(member) offsetof(struct report, member)
static const struct field report_fields[] = {
	{ "id", FIELD_TEXT, T(id), "id of the workspace", .required = true, .max = ID_LENGTH },
	{ "generation", FIELD_NUMBER, T(generation), "generation of the assignment it answers" },
	{ "state", FIELD_ENUM, T(state), "what is", .required = true, .names = state_names },
	{ "run", FIELD_NUMBER, T(run), "number of the last run that was started" },
	{ "exit-status", FIELD_NUMBER, T(exit_status), "of the run that ended", .preset = FIELD_NO_PRESET },
	{ "restarts", FIELD_NUMBER, T(restarts), "by the restart policy" },
	{ "step", FIELD_TEXT, T(step), "what is under way" },
	{ "notice", FIELD_TEXT, T(notice), "what the user should know about the last change" },
	{ "error", FIELD_OBJECT, T(error), "why it failed", .shape = &error_shape },
	{ "snapshots", FIELD_TEXTS, T(snapshots), "ids of the snapshots that exist" },
	{ "restore", FIELD_NUMBER, T(restore), "restores done" },
	{ "started", FIELD_NUMBER, T(started_ms), "milliseconds of Unix time" },
	{ "ended", FIELD_NUMBER, T(ended_ms), "milliseconds of Unix time" },
	{ "pid", FIELD_NUMBER, T(pid), "first process, as the host numbers it" },
	{ "engine", FIELD_TEXT, T(engine), "what it runs under, or ran under last" },
	{ "began", FIELD_TEXT, T(began), "how the last start of a machine came to its memory: boot, template, memory, clone" },
	{ "machine-processors", FIELD_NUMBER, T(machine_processors), "of the machine that it runs as" },
	{ "machine-memory", FIELD_NUMBER, T(machine_memory_bytes), "of that machine, bytes" },
	{ "memory-bytes", FIELD_NUMBER, T(memory_bytes), "of its memory state on disk" },
	{ "stood-still", FIELD_NUMBER, T(stood_still_ms), "milliseconds, in its last move with its memory" },
	{ 0 },
};
const struct shape report_shape = { "report", sizeof(struct report), report_fields, "The truth about one workspace.",
				    .open = true };

/* It runs, and shall run under another engine, and no new run is asked for: it goes over with its memory. */
static bool shall_travel(const struct assignment *a, const struct report *truth)
{
	return a->wish == WISH_RUNNING && truth->state == STATE_RUNNING && a->spec->travels && a->spec->engine != ENGINE_AUTO &&
	       truth->engine && truth->run >= a->run && !str_eq(spec_engine_names[a->spec->engine], truth->engine);
}

enum action assignment_next_action(const struct assignment *a, const struct report *truth)
{
	enum state state = (enum state)truth->state;
	enum wish wish = (enum wish)a->wish;
	bool wants_life = wish == WISH_RUNNING || wish == WISH_PAUSED;

	if (state == STATE_FAILED && wish != WISH_REMOVED)
		return truth->generation == a->generation ? ACTION_NONE : state_next_action(wish, STATE_DEFINED);
	if (wants_life && state_is_live(state) && truth->run < a->run)
		return state == STATE_STOPPING || state == STATE_SUSPENDING ? ACTION_WAIT : ACTION_STOP;
	if (shall_travel(a, truth))
		return ACTION_SUSPEND;
	if (wants_life && state == STATE_SUSPENDED && truth->run < a->run)
		return ACTION_DISCARD;
	if (wants_life && state == STATE_STOPPED && truth->run >= a->run)
		return ACTION_NONE;
	return state_next_action(wish, state);
}

uint64_t assignment_stop_timeout_ms(const struct assignment *a)
{
	return a->stop_timeout_ms != FIELD_NO_PRESET ? a->stop_timeout_ms : a->spec->stop_timeout_ms;
}

bool assignment_wants_snapshot(const struct assignment *a, const char *id)
{
	const struct assignment_snapshot *wanted = a->snapshots.items;

	for (size_t i = 0; i < a->snapshots.count; i++)
		if (str_eq(wanted[i].id, id))
			return true;
	return false;
}

void assignment_done(struct assignment *a) { shape_done(&assignment_shape, a); }
void report_done(struct report *r) { shape_done(&report_shape, r); }
