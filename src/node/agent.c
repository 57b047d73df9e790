/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. A workspace has at most one job on the workers. `consider` starts one when there may be something to do; the
 * job (task_converge) decides what. Events that arrive while it runs - a new wish, the end of the runner, a timer - are flags that
 * the next job takes with it, so none is lost and none is handled twice.
 *
 * The end of a runner is the end of file on the connection to it, whoever started it: this agent or one before.
 *
 * Reports go out when a job is done, and while it runs at most every 100 ms: a deployment that takes 5 ms is one report.
 */
#include "node/agent.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "node/network.h"
#include "node/snapshot.h"
#include "node/task.h"

#define BUCKETS 4096
#define TELL_EVERY_MS 100
#define READY_AFTER_MS 5   /* who has just started something waits for an answer, */
#define BLANKS_AFTER_MS 150 /* and mkfs would take its processor */
#define RETRY_FIRST_MS 100
#define RETRY_LONGEST_MS 5000

struct workspace {
	struct agent *agent;
	struct record *record;
	struct assignment next; /* newest wish; next.id NULL: none waits */
	bool busy, again, gone, restart_due, wished, forget, marked;
	int control;
	struct loop_source *watch, *timer;
	struct work work;
	struct err job_error;
	bool job_failed, job_gone, job_restart;
	uint64_t told_ms, retry_ms;
	json_t *report;
	struct workspace *in_bucket;
};

struct agent {
	struct node *node;
	const struct agent_events *events;
	void *data;
	struct workspace *buckets[BUCKETS];
	bool refilling, refill_blanks, refill_again;
	uint64_t blanks_due_ms; /* 0: none are missing */
	struct loop_source *idle_timer, *refill_timer;
};

static void consider(struct workspace *w);

static struct workspace **bucket_of(struct agent *a, const char *id)
{
	uint32_t hash = 2166136261;
	for (const char *c = id; *c; c++)
		hash = (hash ^ (uint8_t)*c) * 16777619;
	return &a->buckets[hash % BUCKETS];
}

static struct workspace *find(struct agent *a, const char *id)
{
	struct workspace *w = *bucket_of(a, id);
	while (w && !str_eq(w->record->id, id))
		w = w->in_bucket;
	return w;
}

/* --- reports --- */

static void publish(struct workspace *w, json_t *report) /* takes it */
{
	if (w->report && json_equal(w->report, report)) {
		json_decref(report);
		return;
	}
	json_decref(w->report);
	w->report = report;
	w->agent->events->report(w->agent->data, report);
}

struct update {
	struct workspace *w;
	json_t *report;
	const char *step;
	uint64_t done, total;
};

static void on_update(void *data)
{
	struct update *u = data;

	publish(u->w, u->report);
	if (u->total && u->step)
		u->w->agent->events->progress(u->w->agent->data, u->w->record->id, u->step, u->done, u->total);
	free(u);
}

/* On a worker's thread; the job's `done` is posted after this, so the workspace is there when it arrives. */
static void tell(struct work *work)
{
	struct workspace *w = work->data;
	struct report *report = work->record->truth.report;
	uint64_t now = loop_now_ms();

	if (now - w->told_ms < TELL_EVERY_MS)
		return;
	w->told_ms = now;
	struct update *u = mem_alloc(sizeof *u);
	char *kept = report->step;
	uint64_t generation = report->generation;
	report->step = (char *)(uintptr_t)work->step;
	report->generation = work->answered; /* not before it is done */
	*u = (struct update){ w, encode(&report_shape, report), work->step, work->progress_done, work->progress_total };
	report->step = kept;
	report->generation = generation;
	loop_post(w->agent->node->loop, on_update, u);
}

/* --- what is made ahead, and idle mounts: when nothing else is to be done --- */

static void refill_job(void *data)
{
	struct agent *a = data;
	struct err e = { 0 };

	int made = ready_refill(a->node->ready, &e);
	if (made < 0)
		log_error(&e, "make ready");
	if (made <= 0 && a->refill_blanks && (made = volume_pool_refill(a->node->pool, &e)) < 0)
		log_error(&e, "refill");
	a->refill_again = made > 0;
}

static void refill_done(void *data);
static void refill_now(void *data)
{
	struct agent *a = data;
	a->refill_timer = NULL;
	a->refilling = true;
	a->refill_blanks = a->blanks_due_ms && loop_now_ms() >= a->blanks_due_ms;
	workers_run(a->node->workers, refill_job, refill_done, a, true);
}

static void refill_done(void *data)
{
	struct agent *a = data;

	uint64_t now = loop_now_ms();

	a->refilling = false;
	if (a->refill_again) {
		refill_now(a);
		return;
	}
	if (a->refill_blanks)
		a->blanks_due_ms = 0;
	if (a->blanks_due_ms && !a->refill_timer)
		a->refill_timer = loop_add_timer(a->node->loop, a->blanks_due_ms > now ? a->blanks_due_ms - now : 1, refill_now, a);
}

static void refill(struct agent *a)
{
	if (!a->blanks_due_ms)
		a->blanks_due_ms = loop_now_ms() + BLANKS_AFTER_MS;
	if (a->refilling)
		return;
	loop_remove(a->refill_timer);
	a->refill_timer = loop_add_timer(a->node->loop, READY_AFTER_MS, refill_now, a);
}

static void on_idle(void *data)
{
	struct agent *a = data;
	uint64_t next = mounts_idle(a->node->mounts, a->node->config.keep_mounted_ms);

	a->idle_timer = next ? loop_add_timer(a->node->loop, next, on_idle, a) : NULL;
}

static void look_for_idle(struct agent *a)
{
	if (!a->idle_timer)
		a->idle_timer = loop_add_timer(a->node->loop, a->node->config.keep_mounted_ms + 1, on_idle, a);
}

/* --- jobs --- */

static void on_control(void *data, uint32_t events)
{
	struct workspace *w = data;
	char buffer[4096];
	ssize_t n = recv(w->control, buffer, sizeof buffer, MSG_DONTWAIT);

	(void)events;
	if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)))
		return;
	loop_remove(TAKE(w->watch));
	own_close(&w->control);
	w->control = -1;
	w->gone = true;
	consider(w);
}

static void watch_runner(struct workspace *w, int control)
{
	if (control < 0)
		return;
	loop_remove(TAKE(w->watch));
	own_close(&w->control);
	w->control = control;
	w->watch = loop_add_fd(w->agent->node->loop, control, EPOLLIN, on_control, w);
}

/* After a start. A program that has ended already leaves a runner that is gone or about to go. */
static void connect_runner(struct workspace *w)
{
	const struct truth *t = &w->record->truth;
	int control = -1;

	if (w->watch || w->gone || w->job_failed || t->restart_waits || !state_is_live((enum state)t->report->state))
		return;
	if (isolate_connect(w->agent->node, w->record->id, &control, NULL) == 0) {
		watch_runner(w, control);
		return;
	}
	w->gone = w->again = true;
}

static void on_restart(void *data)
{
	struct workspace *w = data;
	w->timer = NULL;
	w->restart_due = true;
	consider(w);
}

static void on_retry(void *data)
{
	struct workspace *w = data;
	w->timer = NULL;
	consider(w);
}

static void take_wish(struct workspace *w)
{
	struct record *r = w->record;
	struct assignment empty = { 0 };

	if (!w->next.id)
		return;
	/* The image and so the partitions of a workspace never change: references that are held stay right. */
	assignment_done(&r->wish);
	r->wish = w->next;
	w->next = empty;
	if (state_is_live((enum state)r->truth.report->state))
		networks_update(w->agent->node->networks, &r->wish, r->truth.report->pid);
	bool nothing_to_keep = r->wish.wish == WISH_REMOVED && !r->on_disk;
	w->job_failed = !nothing_to_keep && record_save_wish(r, &w->job_error) < 0;
}

static void job_run(void *data)
{
	struct workspace *w = data;

	if (!w->job_failed)
		w->job_failed = task_converge(&w->work, w->job_gone, w->job_restart, &w->job_error) < 0;
}

static void drop_workspace(struct workspace *w)
{
	struct workspace **at = bucket_of(w->agent, w->record->id);

	while (*at != w)
		at = &(*at)->in_bucket;
	*at = w->in_bucket;
	loop_remove(w->watch);
	loop_remove(w->timer);
	own_close(&w->control);
	assignment_done(&w->next);
	json_decref(w->report);
	record_free(w->record);
	free(w);
}

/* The agent's own trouble, like a full disk under its records. What had not begun fails at once, with the reason, until there is a newer
 * wish; what runs is told about and tried again. */
static void after_failure(struct workspace *w)
{
	struct report *report = w->record->truth.report;

	log_error(&w->job_error, "workspace %s", w->record->id);
	record_set_error(w->record, "record", &w->job_error);
	if (report->state < STATE_STARTING && w->record->wish.wish != WISH_REMOVED && !w->record->restoring) {
		report->state = STATE_FAILED;
		report->generation = w->record->wish.generation;
		return;
	}
	if (w->record->restoring) /* no answer yet */
		report->generation = w->work.answered;
	w->gone |= w->job_gone;
	w->restart_due |= w->job_restart;
	if (!w->timer)
		w->timer = loop_add_timer(w->agent->node->loop, w->retry_ms, on_retry, w);
	w->retry_ms = w->retry_ms * 2 > RETRY_LONGEST_MS ? RETRY_LONGEST_MS : w->retry_ms * 2;
}

static void job_done(void *data)
{
	struct workspace *w = data;
	struct truth *t = &w->record->truth;

	w->busy = false;
	if (w->job_failed)
		after_failure(w);
	else
		w->retry_ms = RETRY_FIRST_MS;
	publish(w, encode(&report_shape, t->report));
	connect_runner(w);
	if (!w->job_failed && t->restart_waits && !w->timer)
		w->timer = loop_add_timer(w->agent->node->loop, task_restart_delay_ms(t->failed_starts), on_restart, w);
	w->agent->events->volumes(w->agent->data);
	look_for_idle(w->agent);
	refill(w->agent);
	if (w->forget && t->report->state == STATE_REMOVED) {
		agent_forget(w->agent, w->record->id);
		return;
	}
	if (w->again)
		consider(w);
}

static bool has_work(const struct workspace *w)
{
	const struct record *r = w->record;
	struct task_view view = { .wish = &r->wish, .truth = &r->truth, .runner_gone = w->gone, .restart_due = w->restart_due,
				  .grown = r->truth.report->generation == r->wish.generation };
	return w->next.id || r->unsaved || r->restoring || r->truth.report->generation != r->wish.generation || task_next(&view) != TASK_NONE;
}

static void consider(struct workspace *w)
{
	if (w->busy) {
		w->again = true;
		return;
	}
	w->again = false;
	if (w->record->lost_wish || (!w->record->wish.id && !w->next.id) || !has_work(w))
		return;
	w->busy = true;
	w->job_gone = w->gone;
	w->job_restart = w->restart_due;
	w->gone = w->restart_due = w->job_failed = false;
	loop_remove(TAKE(w->timer));
	w->work.node = w->agent->node;
	w->work.record = w->record;
	w->work.tell = tell;
	w->work.data = w;
	w->told_ms = loop_now_ms();
	take_wish(w);
	workers_run(w->agent->node->workers, job_run, job_done, w, false);
}

/* --- wishes --- */

static struct workspace *add(struct agent *a, struct record *r)
{
	struct workspace **bucket = bucket_of(a, r->id);
	struct workspace *w = mem_alloc(sizeof *w);

	w->agent = a;
	w->record = r;
	w->control = -1;
	w->retry_ms = RETRY_FIRST_MS;
	w->in_bucket = *bucket;
	*bucket = w;
	return w;
}

static void settle(struct workspace *w);

/* The service's copy of a wish that could not be read here; takes its content. */
static void adopt(struct workspace *w, struct assignment *wish)
{
	struct assignment empty = { 0 };
	json_t *copy = encode(&assignment_shape, wish);
	struct err e = { 0 };

	assignment_done(&w->record->wish);
	if (decode_json(copy, "record", &assignment_shape, &w->record->wish, &e) < 0) {
		log_error(&e, "workspace %s", w->record->id);
	} else {
		log_info("workspace %s: its record is replaced by the service's", w->record->id);
		w->record->lost_wish = false;
		settle(w);
		w->next = *wish;
		*wish = empty;
		consider(w);
	}
	json_decref(copy);
}

void agent_assign(struct agent *a, struct assignment *wish)
{
	struct workspace *w = id_valid(wish->id) ? find(a, wish->id) : NULL;
	struct assignment empty = { 0 };

	if (!w && id_valid(wish->id))
		w = add(a, record_new(a->node->workspaces, wish->id));
	uint64_t known = !w ? UINT64_MAX : w->next.id ? w->next.generation : w->record->wish.id ? w->record->wish.generation : 0;
	if (w)
		w->wished = true;
	if (w && w->record->lost_wish) {
		adopt(w, wish);
	} else if (w && wish->generation >= known && (wish->generation > known || !w->record->wish.id)) {
		assignment_done(&w->next);
		w->next = *wish;
		*wish = empty;
		consider(w);
	}
	assignment_done(wish);
}

void agent_mark(struct agent *a)
{
	for (size_t i = 0; i < BUCKETS; i++)
		for (struct workspace *w = a->buckets[i]; w; w = w->in_bucket)
			w->wished = false;
}

/* Somebody removed it while this host was away: as if that had been said. */
static void wish_away(struct workspace *w)
{
	struct assignment wish = { 0 };
	json_t *copy = encode(&assignment_shape, w->next.id ? &w->next : &w->record->wish);

	if (decode_json(copy, "record", &assignment_shape, &wish, NULL) == 0) {
		wish.wish = WISH_REMOVED;
		wish.generation++;
		agent_assign(w->agent, &wish);
		w->forget = true;
	}
	json_decref(copy);
}

void agent_sweep(struct agent *a, bool authoritative)
{
	for (size_t i = 0; i < BUCKETS; i++)
		for (struct workspace *w = a->buckets[i], *next; w; w = next) {
			next = w->in_bucket;
			if (w->wished || w->record->lost_wish)
				continue;
			if (authoritative && (w->next.id || w->record->wish.id))
				wish_away(w);
			else
				log_warn("workspace %s is not known to the service; it is left alone", w->record->id);
		}
}

void agent_forget(struct agent *a, const char *id)
{
	struct workspace *w = find(a, id);
	struct err e = { 0 };

	if (!w)
		return;
	w->forget = true;
	if (w->busy || w->record->truth.report->state != STATE_REMOVED)
		return;
	if (record_forget(w->record, &e) < 0)
		log_error(&e, "forget workspace %s", id);
	drop_workspace(w);
}

json_t *agent_reports(struct agent *a)
{
	json_t *list = json_array();

	for (size_t i = 0; i < BUCKETS; i++)
		for (struct workspace *w = a->buckets[i]; w; w = w->in_bucket) {
			if (!w->report && !w->busy)
				w->report = encode(&report_shape, w->record->truth.report);
			if (w->report && !w->record->lost_wish)
				(void)json_array_append(list, w->report);
		}
	return list;
}

json_t *agent_unknown(struct agent *a)
{
	json_t *list = json_array();

	for (size_t i = 0; i < BUCKETS; i++)
		for (struct workspace *w = a->buckets[i]; w; w = w->in_bucket)
			if (!w->wished || w->record->lost_wish)
				(void)json_array_append_new(list, json_string(w->record->id));
	return list;
}

bool agent_look(struct agent *a, const char *id, char **ret_folder, enum state *ret_state)
{
	struct workspace *w = find(a, id);

	if (!w || w->record->lost_wish)
		return false;
	if (ret_folder)
		*ret_folder = mem_strdup(w->record->folder);
	const char *text = w->report ? json_string_value(json_object_get(w->report, "state")) : NULL;
	*ret_state = STATE_DEFINED;
	for (int s = 0; text && s < STATE_COUNT; s++)
		if (str_eq(state_names[s], text))
			*ret_state = (enum state)s;
	return true;
}

bool agent_exit_status(struct agent *a, const char *id, uint64_t *ret_status)
{
	struct workspace *w = find(a, id);
	const json_t *status = w ? json_object_get(w->report, "exit-status") : NULL;

	if (!status)
		return false;
	*ret_status = (uint64_t)json_integer_value(status);
	return true;
}

int agent_borrow(struct agent *a, const char *id, struct record **ret_record, struct err *e)
{
	struct workspace *w = find(a, id);
	const struct report *report = w ? w->record->truth.report : NULL;

	if (!w || w->record->lost_wish)
		return err_set(e, ERR_NOT_FOUND, "this host has no workspace %s", id);
	if (w->busy || w->record->restoring || state_is_live((enum state)report->state)) {
		(void)err_set(e, ERR_PRECONDITION, "the workspace is being worked on");
		return err_hint(e, "try again in a moment");
	}
	if (report->state != STATE_STOPPED && report->state != STATE_PREPARED)
		return err_set(e, ERR_CONFLICT, "the workspace is %s and has no files yet", state_names[report->state]);
	w->busy = true;
	*ret_record = w->record;
	return 0;
}

void agent_give_back(struct agent *a, const char *id)
{
	struct workspace *w = find(a, id);

	if (!w)
		return;
	w->busy = false;
	look_for_idle(a);
	consider(w);
}

/* --- kept volumes --- */

static void list_owner(struct agent *a, const char *owner, json_t *list)
{
	own_str char *folder = mem_printf("%s/%s", a->node->kept, owner);
	own_dir DIR *dir = opendir(folder);
	uint64_t uid, size, used;

	if (!dir || str_to_u64(owner, UINT32_MAX, &uid) < 0)
		return;
	for (struct dirent *entry; (entry = readdir(dir));) {
		own_str char *path = mem_printf("%s/%s", folder, entry->d_name);
		if (!str_ends(entry->d_name, ".ext4") || volume_measure(path, &size, &used, NULL) < 0)
			continue;
		int fd = -1;
		bool in_use = volume_open(path, &fd, NULL) < 0;
		own_close(&fd);
		(void)json_array_append_new(list, json_pack("{s:I, s:o, s:I, s:I, s:b}", "owner", (json_int_t)uid, "name",
							    json_stringn(entry->d_name, strlen(entry->d_name) - strlen(".ext4")), "size",
							    (json_int_t)size, "used", (json_int_t)used, "in-use", in_use));
	}
}

json_t *agent_volumes(struct agent *a)
{
	own_dir DIR *dir = opendir(a->node->kept);
	json_t *list = json_array();

	for (struct dirent *entry; dir && (entry = readdir(dir));)
		if (entry->d_name[0] != '.')
			list_owner(a, entry->d_name, list);
	return list;
}

int agent_remove_volume(struct agent *a, uint64_t owner, const char *name, struct err *e)
{
	own_str char *path = mem_printf("%s/%" PRIu64 "/%s.ext4", a->node->kept, owner, name);
	own_fd int fd = -1;
	int r = name_check(name, e);

	if (r == 0)
		r = volume_open(path, &fd, e);
	if (r == 0 && unlink(path) < 0)
		r = err_errno(e, errno, "remove %s", path);
	return r < 0 ? err_wrap(e, "volume %s", name) : 0;
}

/* --- the start of the agent --- */

/* A runner whose record was lost knows its range. */
static uint64_t first_id_of(uint64_t pid)
{
	own_str char *path = mem_printf("/proc/%" PRIu64 "/uid_map", pid);
	own_strbuf struct str text = { 0 };
	unsigned first = 0;

	if (fs_read_file(AT_FDCWD, path, 4096, &text, NULL) < 0 || sscanf(str_text(&text), "%*u %u", &first) != 1)
		return 0;
	return first;
}

static void mark_ids(struct workspace *w)
{
	struct truth *t = &w->record->truth;

	if (!t->first_id && t->report->pid)
		t->first_id = first_id_of(t->report->pid);
	if (t->first_id && !w->marked && !ids_mark(w->agent->node->ids, t->first_id))
		log_err("workspace %s: its id range %" PRIu64 " is not ours, or another's too", w->record->id, t->first_id);
	w->marked = t->first_id != 0;
}

static void clean_unfinished(const struct record *r)
{
	own_str char *volumes = record_path(r, "volumes"), *snapshots = record_path(r, "snapshots");
	own_dir DIR *dir = opendir(snapshots);

	(void)!volume_clean_folder(volumes, NULL);
	for (struct dirent *entry; dir && (entry = readdir(dir));)
		if (str_ends(entry->d_name, ".new"))
			(void)!fs_remove_tree(dirfd(dir), entry->d_name, NULL);
}

static void hold_partitions(struct workspace *w)
{
	struct record *r = w->record;
	enum state s = (enum state)r->truth.report->state;
	const struct image_partition *partitions = r->wish.image ? r->wish.image->partitions.items : NULL;
	struct err e = { 0 };
	struct digest d;
	size_t held = 0;

	if (!partitions || !(state_is_live(s) || s == STATE_STAGED || s == STATE_PREPARED))
		return;
	while (held < r->wish.image->partitions.count && digest_parse(partitions[held].digest, &d, &e) == 0 &&
	       mount_ref(w->agent->node->mounts, &d, NULL, NULL, NULL, &e) == 0)
		held++;
	r->staged = held == r->wish.image->partitions.count;
	if (r->staged)
		return;
	log_error(&e, "workspace %s", r->id);
	while (held-- > 0)
		if (digest_parse(partitions[held].digest, &d, &e) == 0)
			mount_unref(w->agent->node->mounts, &d);
}

/* The runner of a workspace that was live: connected to again, or gone. */
static void find_runner(struct workspace *w)
{
	struct record *r = w->record;
	struct report *report = r->truth.report;
	struct isolate_status status = { 0 };
	int control = -1;

	if (!state_is_live((enum state)report->state) || r->truth.restart_waits) {
		struct err e = { 0 }; /* the agent may have ended between writing the truth and cleaning up after the run */
		if (isolate_undo(w->agent->node, r->id, &e) < 0 || isolate_limits_undo(w->agent->node, r->id, &e) < 0)
			log_error(&e, "workspace %s", r->id);
		return;
	}
	bool here = str_eq(r->truth.boot_id, boot_id()) && isolate_status(w->agent->node, r->id, &status, NULL) == 0 &&
		    status.run == report->run && isolate_connect(w->agent->node, r->id, &control, NULL) == 0;
	if (!here) {
		w->gone = true;
		return;
	}
	watch_runner(w, control);
	report->pid = status.pid;
	networks_adopt(w->agent->node->networks, &r->wish, status.pid);
	(void)!isolate_freeze_volumes(w->agent->node, r, false, NULL); /* a snapshot may have been under way */
	if (report->state == STATE_STARTING || report->state == STATE_STOPPING) /* a stop is then said again */
		report->state = r->wish.wish == WISH_PAUSED && report->state == STATE_STARTING ? STATE_PAUSED : STATE_RUNNING;
}

/* The wish is known: goes on where the last agent ended. */
static void settle(struct workspace *w)
{
	struct record *r = w->record;
	struct err e = { 0 };

	if (r->lost_truth) {
		struct isolate_status status;
		record_presume(r);
		if (isolate_status(w->agent->node, r->id, &status, NULL) == 0)
			r->truth.report->run = status.run;
	}
	if (restore_recover(w->agent->node, r, &e) < 0)
		log_error(&e, "workspace %s: restore", r->id);
	clean_unfinished(r);
	if (record_read_snapshots(r, &e) < 0)
		log_error(&e, "workspace %s", r->id);
	hold_partitions(w);
	find_runner(w);
	mark_ids(w);
	if (r->truth.restart_waits)
		w->timer = loop_add_timer(w->agent->node->loop, task_restart_delay_ms(r->truth.failed_starts), on_restart, w);
}

static void load_one(struct agent *a, const char *id)
{
	struct record *r = NULL;
	struct err e = { 0 };

	if (record_load(a->node->workspaces, id, &r, &e) < 0)
		return; /* there was nothing */
	if (r->trouble)
		log_error(r->trouble, "workspace %s: %s", id, r->lost_wish ? "waits for the service's copy of its wish" : "it is as was wished, or has ended");
	struct workspace *w = add(a, r);
	if (r->lost_wish)
		mark_ids(w);
	else
		settle(w);
}

static int load_all(struct agent *a, struct err *e)
{
	own_dir DIR *dir = opendir(a->node->workspaces);

	if (!dir)
		return err_errno(e, errno, "read %s", a->node->workspaces);
	for (struct dirent *entry; (entry = readdir(dir));)
		if (id_valid(entry->d_name))
			load_one(a, entry->d_name);
	return 0;
}

static bool is_known(void *data, const char *id) { return find(data, id) != NULL; }

static void clean_kept(struct agent *a)
{
	own_dir DIR *dir = opendir(a->node->kept);

	for (struct dirent *entry; dir && (entry = readdir(dir));) {
		own_str char *folder = mem_printf("%s/%s", a->node->kept, entry->d_name);
		if (entry->d_name[0] != '.')
			(void)!volume_clean_folder(folder, NULL);
	}
}

int agent_new(struct node *n, const struct agent_events *events, void *data, struct agent **ret_agent, struct err *e)
{
	struct agent *a = mem_alloc(sizeof *a);

	a->node = n;
	a->events = events;
	a->data = data;
	int r = load_all(a, e);
	if (r == 0)
		r = isolate_collect(n, is_known, a, e);
	if (r < 0) {
		agent_free(a);
		return r;
	}
	clean_kept(a);
	look_for_idle(a);
	refill(a);
	for (size_t i = 0; i < BUCKETS; i++)
		for (struct workspace *w = a->buckets[i]; w; w = w->in_bucket)
			consider(w);
	*ret_agent = a;
	return 0;
}

void agent_free(struct agent *a)
{
	for (size_t i = 0; i < BUCKETS; i++)
		while (a->buckets[i])
			drop_workspace(a->buckets[i]);
	loop_remove(a->idle_timer);
	loop_remove(a->refill_timer);
	free(a);
}
