/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tables are the API's contract: OpenAPI, decoding of bodies and the documentation are made from them. Two directions:
 * *_view structs exist for their table alone, since what goes out is built with jansson and is never decoded here; *_request
 * structs are decoded. Keys of requests have dashes, as a spec's; those of answers have underscores.
 *
 * A workspace's JSON is rendered once a version and kept at the workspace, as lists of thousands are polled; whoever changes
 * what is shown drops it (workspace_store and the report's path do).
 */
#include "service/views.h"

#include <string.h>

#include "base/mem.h"
#include "base/own.h"
#include "service/network.h"
#include "service/operation.h"

struct error_view {
	char *kind, *message, *hint, *step, *rule;
};
#define E(member) offsetof(struct error_view, member)
static const struct field error_fields[] = {
	{ "kind", FIELD_TEXT, E(kind), "stable name of the kind", .required = true },
	{ "message", FIELD_TEXT, E(message), "object, action and reason", .required = true },
	{ "hint", FIELD_TEXT, E(hint), "what can be done about it" },
	{ "step", FIELD_TEXT, E(step), "step of the deployment that failed" },
	{ "rule", FIELD_TEXT, E(rule), "rule that refused" },
	{ 0 },
};
const struct shape error_shape = { "error", sizeof(struct error_view), error_fields, "Why something was refused or failed.",
				   .open = true };

struct snapshot_view {
	char *id, *name, *created;
	bool ready, memory;
};
#define N(member) offsetof(struct snapshot_view, member)
static const struct field snapshot_fields[] = {
	{ "id", FIELD_TEXT, N(id), "id", .required = true },
	{ "name", FIELD_TEXT, N(name), "name, unique in the workspace", .required = true },
	{ "created", FIELD_TEXT, N(created), "when it was asked for", .required = true },
	{ "ready", FIELD_BOOL, N(ready), "the host has made it", .required = true },
	{ "memory", FIELD_BOOL, N(memory), "it has the memory of the running workspace" },
	{ 0 },
};
const struct shape snapshot_view_shape = { "snapshot", sizeof(struct snapshot_view), snapshot_fields,
					   "A snapshot of a workspace's volumes.", .open = true };

static const struct field clone_of_fields[] = {
	{ "id", FIELD_TEXT, offsetof(struct assignment_origin, workspace), "id of the original, which may be gone",
	  .required = true },
	{ "name", FIELD_TEXT, offsetof(struct assignment_origin, name), "name that it had then" },
	{ "number", FIELD_NUMBER, offsetof(struct assignment_origin, number),
	  "of this clone among those that were made together", .required = true },
	{ 0 },
};
static const struct shape clone_of_shape = { "clone-of", sizeof(struct assignment_origin), clone_of_fields,
					     "What a workspace is a clone of.", .open = true };

struct machine_view {
	uint64_t processors, memory_bytes;
};
static const struct field machine_view_fields[] = {
	{ "processors", FIELD_NUMBER, offsetof(struct machine_view, processors), "virtual processors", .required = true },
	{ "memory", FIELD_BYTES, offsetof(struct machine_view, memory_bytes), "memory", .required = true },
	{ 0 },
};
static const struct shape machine_view_shape = { "workspace-machine", sizeof(struct machine_view), machine_view_fields,
						 "A machine until it ends: other sizes wait for the next start." };

struct workspace_view {
	char *id, *name, *host, *step, *notice, *created, *started, *ended, *operation;
	char *engine, *began;
	uint64_t owner, generation, run, exit_status, restarts, pid, memory_bytes;
	unsigned state, wish;
	void *spec, *error, *machine;
	json_t *image;
	void *kernel, *clone_of;
	struct objects snapshots, interfaces;
};
#define W(member) offsetof(struct workspace_view, member)
static const struct field workspace_fields[] = {
	{ "id", FIELD_TEXT, W(id), "id", .required = true },
	{ "name", FIELD_TEXT, W(name), "name", .required = true },
	{ "owner", FIELD_NUMBER, W(owner), "user id of the owner", .required = true },
	{ "state", FIELD_ENUM, W(state), "what the host reported last", .required = true, .names = state_names },
	{ "wish", FIELD_ENUM, W(wish), "what was asked for last", .required = true, .names = wish_names },
	{ "generation", FIELD_NUMBER, W(generation), "grows with each change of the wish", .required = true },
	{ "run", FIELD_NUMBER, W(run), "number of the last start", .required = true },
	{ "spec", FIELD_OBJECT, W(spec), "the spec", .required = true, .shape = &spec_shape },
	{ "image", FIELD_JSON, W(image), "name, digest, architecture and size of the image it was made from",
	  .required = true },
	{ "kernel", FIELD_OBJECT, W(kernel), "what it boots when it is a machine", .shape = &assignment_kernel_shape },
	{ "clone_of", FIELD_OBJECT, W(clone_of), "the original, of a clone", .shape = &clone_of_shape },
	{ "host", FIELD_TEXT, W(host), "host where it is", .required = true },
	{ "exit_status", FIELD_NUMBER, W(exit_status), "of the last run that ended" },
	{ "restarts", FIELD_NUMBER, W(restarts), "by the restart policy, in this run", .required = true },
	{ "step", FIELD_TEXT, W(step), "what is under way" },
	{ "error", FIELD_OBJECT, W(error), "why it failed", .shape = &error_shape },
	{ "notice", FIELD_TEXT, W(notice), "what the host has to say about the last change" },
	{ "pid", FIELD_NUMBER, W(pid), "its first process, as the host numbers it" },
	{ "engine", FIELD_TEXT, W(engine), "what it runs under, or ran under last" },
	{ "began", FIELD_TEXT, W(began),
	  "how a machine came to its memory at its last start: boot, template, memory (of a suspend), or clone" },
	{ "machine", FIELD_OBJECT, W(machine), "what the machine has that it runs as, or was suspended as",
	  .shape = &machine_view_shape },
	{ "memory_bytes", FIELD_NUMBER, W(memory_bytes), "size of the memory state of a suspended workspace, on disk" },
	{ "created", FIELD_TEXT, W(created), "when it was deployed", .required = true },
	{ "started", FIELD_TEXT, W(started), "start of the last run" },
	{ "ended", FIELD_TEXT, W(ended), "end of the last run" },
	{ "operation", FIELD_TEXT, W(operation), "id of the operation under way" },
	{ "interfaces", FIELD_OBJECTS, W(interfaces), "interfaces, eth0 first", .shape = &attachment_shape },
	{ "snapshots", FIELD_OBJECTS, W(snapshots), "snapshots, oldest first", .required = true,
	  .shape = &snapshot_view_shape },
	{ 0 },
};
const struct shape workspace_shape = { "workspace", sizeof(struct workspace_view), workspace_fields, "A workspace.",
				       .open = true };

#define K(member) offsetof(struct assignment_snapshot, member)
static const struct field carried_snapshot_fields[] = {
	{ "id", FIELD_TEXT, K(id), "id", .required = true, .max = ID_LENGTH },
	{ "name", FIELD_TEXT, K(name), "name", .required = true, .check = name_check },
	{ 0 },
};
static const struct shape carried_snapshot_shape = { "carried-snapshot", sizeof(struct assignment_snapshot),
						     carried_snapshot_fields, "A snapshot that comes with it." };
static const struct field carried_fields[] = {
	{ "id", FIELD_TEXT, offsetof(struct carried, id), "id that it had; another one when that is taken here",
	  .required = true, .max = ID_LENGTH },
	{ "bundle", FIELD_TEXT, offsetof(struct carried, bundle), "which file it comes from: SHA-256 of its header", .max = 64,
	  .check = name_check_key },
	{ "snapshots", FIELD_OBJECTS, offsetof(struct carried, snapshots), "snapshots that come with it", .max = SNAPSHOTS_MOST,
	  .shape = &carried_snapshot_shape },
	{ 0 },
};
static const struct shape carried_shape = { "carried", sizeof(struct carried), carried_fields,
					    "What comes from another service." };

#define C(member) offsetof(struct create_request, member)
static const struct field create_fields[] = {
	{ "spec", FIELD_OBJECT, C(spec), "what the workspace shall be", .required = true, .shape = &spec_shape },
	{ "held", FIELD_BOOL, C(held), "the program's output waits for the first attach" },
	{ "carried", FIELD_OBJECT, C(carried), "it comes from another service: it is prepared, and then filled by import",
	  .shape = &carried_shape },
	{ 0 },
};
const struct shape create_shape = { "workspace-create", sizeof(struct create_request), create_fields, "A deployment." };

#define H(member) offsetof(struct change_request, member)
static const struct field change_fields[] = {
	{ "name", FIELD_TEXT, H(name), "new name", .check = name_check },
	{ "labels", FIELD_JSON, H(labels_given), "labels that replace all that it has" },
	{ "resources", FIELD_JSON, H(resources),
	  "cpu, memory, processes: other limits, null takes one away; disk: new size of the root volume; it can only grow" },
	{ "network", FIELD_JSON, H(given[CHANGE_NETWORK]), "auto, none or host" },
	{ "networks", FIELD_JSON, H(given[CHANGE_NETWORKS]),
	  "interfaces that replace all that it has; what stays keeps its addresses" },
	{ "groups", FIELD_JSON, H(given[CHANGE_GROUPS]), "groups it is in from now on" },
	{ "allow", FIELD_JSON, H(given[CHANGE_ALLOW]), "rules that replace all of allow; []: the default" },
	{ "deny", FIELD_JSON, H(given[CHANGE_DENY]), "rules that replace all of deny" },
	{ "from", FIELD_JSON, H(given[CHANGE_FROM]), "rules that replace all of from; []: the default" },
	{ "isolated", FIELD_JSON, H(given[CHANGE_ISOLATED]), "talks to nobody" },
	{ "publish", FIELD_JSON, H(given[CHANGE_PUBLISH]), "published ports that replace all that it has" },
	{ "user-data", FIELD_JSON, H(given[CHANGE_USER_DATA]), "user data of the metadata address" },
	{ "ssh-keys", FIELD_JSON, H(given[CHANGE_SSH_KEYS]), "public keys of the metadata address" },
	{ "volumes", FIELD_JSON, H(volumes), "list of name and size of volumes that grow" },
	{ 0 },
};
const struct shape change_shape = { "workspace-change", sizeof(struct change_request), change_fields,
				    "What shall be different." };

static const struct field stop_fields[] = {
	{ "timeout", FIELD_DURATION, offsetof(struct stop_request, timeout_ms),
	  "time for a clean shutdown, instead of the spec's", .max = 3600000, .preset = FIELD_NO_PRESET },
	{ "discard-memory", FIELD_BOOL, offsetof(struct stop_request, discard_memory),
	  "of a suspended workspace: its memory is thrown away" },
	{ 0 },
};
const struct shape stop_shape = { "stop", sizeof(struct stop_request), stop_fields, "How to stop." };

struct suspend_check_view {
	char *level, *engine, *reason, *hint, *to, *way;
	json_t *needs;
	struct texts obstacles, notes;
};
#define S(member) offsetof(struct suspend_check_view, member)
static const struct field suspend_check_fields[] = {
	{ "level", FIELD_TEXT, S(level), "memory: all of it is kept; volumes: only a stop is possible, which keeps the volumes",
	  .required = true },
	{ "engine", FIELD_TEXT, S(engine), "what it runs under" },
	{ "to", FIELD_TEXT, S(to), "of a live move: what it shall run under" },
	{ "way", FIELD_TEXT, S(way), "of a live move: which way it takes" },
	{ "reason", FIELD_TEXT, S(reason), "why not more" },
	{ "hint", FIELD_TEXT, S(hint), "what can be done about it" },
	{ "needs", FIELD_JSON, S(needs),
	  "of the host that it is resumed on: architecture, program, version, machine, features" },
	{ "obstacles", FIELD_TEXTS, S(obstacles), "all that is known to be in the way now" },
	{ "notes", FIELD_TEXTS, S(notes), "what goes along and may not like it" },
	{ 0 },
};
const struct shape suspend_check_shape = { "suspend-check", sizeof(struct suspend_check_view), suspend_check_fields,
					   "What a suspend would come to.", .open = true };

static const struct field move_fields[] = {
	{ "engine", FIELD_ENUM, offsetof(struct move_request, engine), "engine that it shall run under", .required = true,
	  .names = spec_engine_names },
	{ "live", FIELD_BOOL, offsetof(struct move_request, live), "with its memory, instead of a stop and a start" },
	{ "timeout", FIELD_DURATION, offsetof(struct move_request, timeout_ms),
	  "time for a clean shutdown, instead of the spec's", .max = 3600000, .preset = FIELD_NO_PRESET },
	{ 0 },
};
const struct shape move_shape = { "move", sizeof(struct move_request), move_fields, "Where to." };

static const struct field clone_fields[] = {
	{ "count", FIELD_NUMBER, offsetof(struct clone_request, count), "how many", .min = 1, .max = 256, .preset = 1 },
	{ "name-prefix", FIELD_TEXT, offsetof(struct clone_request, name_prefix),
	  "they are called PREFIX-1, PREFIX-2, ...; the name of the original when missing", .check = name_check },
	{ 0 },
};
const struct shape clone_shape = { "clone", sizeof(struct clone_request), clone_fields, "Copies to make." };

static const struct field snapshot_request_fields[] = {
	{ "name", FIELD_TEXT, offsetof(struct snapshot_request, name), "name of the snapshot; one is made up when missing",
	  .check = name_check },
	{ "memory", FIELD_BOOL, offsetof(struct snapshot_request, memory),
	  "of a running machine: with its memory; a restore lets it go on from there" },
	{ 0 },
};
const struct shape snapshot_request_shape = { "snapshot-create", sizeof(struct snapshot_request), snapshot_request_fields,
					      "A snapshot to make." };

static void set_text(json_t *json, const char *key, const char *text)
{
	if (text)
		(void)json_object_set_new(json, key, json_string(text));
}

static void set_time(json_t *json, const char *key, uint64_t ms)
{
	own_str char *text = service_time_text(ms);
	set_text(json, key, text);
}

static void set_number(json_t *json, const char *key, uint64_t number)
{
	(void)json_object_set_new(json, key, json_integer((json_int_t)number));
}

json_t *error_of_report(const struct report_error *error)
{
	json_t *json = json_pack("{s:s, s:s}", "kind", error->kind ? error->kind : "internal", "message",
				 error->message ? error->message : "");
	set_text(json, "hint", error->hint);
	set_text(json, "step", error->step);
	return json;
}

json_t *snapshot_to_json(const struct workspace *w, const struct snapshot *n)
{
	json_t *json = json_pack("{s:s, s:s}", "id", n->id, "name", n->name);
	bool ready = false;

	for (size_t i = 0; i < w->truth.snapshots.count; i++)
		ready |= str_eq(w->truth.snapshots.items[i], n->id);
	set_time(json, "created", n->created_ms);
	(void)json_object_set_new(json, "ready", json_boolean(ready));
	if (n->memory)
		(void)json_object_set_new(json, "memory", json_true());
	return json;
}

static json_t *image_short(const struct image *i)
{
	json_t *json = json_object();
	set_text(json, "name", i->name);
	set_text(json, "digest", i->digest);
	set_text(json, "architecture", i->architecture);
	set_number(json, "size", i->size_bytes);
	return json;
}

static void set_truth(json_t *json, const struct workspace *w)
{
	if (w->truth.exit_status != FIELD_NO_PRESET)
		set_number(json, "exit_status", w->truth.exit_status);
	set_number(json, "restarts", w->truth.restarts);
	set_text(json, "step", w->truth.step);
	set_text(json, "notice", w->truth.notice);
	if (w->truth.error)
		(void)json_object_set_new(json, "error", error_of_report(w->truth.error));
	if (w->truth.pid)
		set_number(json, "pid", w->truth.pid);
	set_text(json, "engine", w->truth.engine);
	set_text(json, "began", w->truth.began);
	bool lives = state_is_live((enum state)w->truth.state) || w->truth.state == STATE_SUSPENDED;
	if (lives && w->truth.machine_memory_bytes) {
		const struct machine_view m = { w->truth.machine_processors, w->truth.machine_memory_bytes };
		(void)json_object_set_new(json, "machine", encode(&machine_view_shape, &m));
	}
	if (w->truth.memory_bytes)
		set_number(json, "memory_bytes", w->truth.memory_bytes);
	set_time(json, "started", w->truth.started_ms);
	set_time(json, "ended", w->truth.ended_ms);
}

static json_t *to_json(const struct workspace *w)
{
	json_t *json = json_pack("{s:s, s:s, s:I, s:s, s:s, s:I, s:I, s:o, s:o, s:s}", "id", w->id, "name", w->name, "owner",
				 (json_int_t)w->owner_uid, "state", state_names[w->truth.state], "wish",
				 wish_names[w->wish.wish], "generation", (json_int_t)w->wish.generation, "run",
				 (json_int_t)w->truth.run, "spec", encode(&spec_shape, w->wish.spec), "image",
				 image_short(w->wish.image), "host", w->host);
	const struct attachment *a = w->wish.attachments.items;
	json_t *snapshots = json_array(), *interfaces = json_array();

	if (w->wish.kernel)
		(void)json_object_set_new(json, "kernel", encode(&assignment_kernel_shape, w->wish.kernel));
	if (w->wish.origin)
		(void)json_object_set_new(json, "clone_of", encode(&clone_of_shape, w->wish.origin));
	set_truth(json, w);
	set_time(json, "created", w->created_ms);
	if (w->operation)
		set_text(json, "operation", w->operation->id);
	for (size_t i = 0; i < w->snapshots.count; i++)
		(void)json_array_append_new(snapshots, snapshot_to_json(w, &w->snapshots.items[i]));
	(void)json_object_set_new(json, "snapshots", snapshots);
	for (size_t i = 0; i < w->wish.attachments.count; i++)
		(void)json_array_append_new(interfaces, encode(&attachment_shape, &a[i]));
	(void)json_object_set_new(json, "interfaces", interfaces);
	return json;
}

const char *workspace_render(struct workspace *w, size_t *ret_length)
{
	if (!w->rendered) {
		json_t *json = to_json(w);
		w->rendered = json_dumps(json, JSON_COMPACT);
		w->rendered_length = strlen(w->rendered);
		json_decref(json);
	}
	*ret_length = w->rendered_length;
	return w->rendered;
}

void workspace_etag(const struct workspace *w, char out[32])
{
	(void)snprintf(out, 32, "\"%llu\"", (unsigned long long)w->version);
}

int workspace_check_match(const struct request *r, const struct workspace *w, struct err *e)
{
	const char *match = request_header(r, "If-Match");
	char etag[32];

	workspace_etag(w, etag);
	if (!match || str_eq(match, "*") || strstr(match, etag))
		return 0;
	(void)err_set(e, ERR_PRECONDITION, "workspace '%s' has changed since (it is %s now)", w->name, etag);
	return err_hint(e, "show it again and decide anew");
}
