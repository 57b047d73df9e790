/* SPDX-License-Identifier: Apache-2.0 */
#include "../test.h"

#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "service/clone_check.h"
#include "service/operation.h"

static struct err e;

static char name[] = "web", emulator[] = "emulator", namespaces[] = "workspace";
static struct spec_volume kept = { .name = name, .keep = true };
static struct image_machine disk;

/* A machine that runs. */
struct original {
	struct workspace w;
	struct spec spec;
	struct image image;
};

static struct workspace *original(struct original *o)
{
	*o = (struct original){ .w = { .name = name, .wish = { .wish = WISH_RUNNING, .run = 1 },
				       .truth = { .state = STATE_RUNNING, .run = 1, .engine = emulator } } };
	o->w.wish.spec = &o->spec;
	o->w.wish.image = &o->image;
	return &o->w;
}

static void refused(const struct workspace *w, enum err_kind kind, const char *why, const char *hint)
{
	bool memory;

	e = (struct err){ 0 };
	assert_true(clone_check(w, &memory, &e) < 0);
	assert_int_equal(e.kind, kind);
	if (!strstr(e.message, why) || !strstr(e.hint, hint))
		fail_msg("%s (%s)", e.message, e.hint);
}

static void what_runs_is_cloned_with_its_memory(void **state)
{
	(void)state;
	struct original o;
	struct workspace *w = original(&o);
	bool memory = false;

	assert_int_equal(clone_check(w, &memory, &e), 0);
	assert_true(memory);
	w->truth.state = STATE_PAUSED;
	w->wish.wish = WISH_PAUSED;
	assert_int_equal(clone_check(w, &memory, &e), 0);
	assert_true(memory);
	w->truth.engine = (char[]){ "kvm" };
	assert_int_equal(clone_check(w, &memory, &e), 0);
}

static void what_rests_is_cloned_with_its_volumes(void **state)
{
	(void)state;
	static const enum state resting[] = { STATE_PREPARED, STATE_STOPPED, STATE_FAILED };
	struct original o;
	struct workspace *w = original(&o);
	bool memory = true;

	w->wish.wish = WISH_STOPPED;
	o.spec.travels = true; /* there are no processes */
	for (size_t i = 0; i < sizeof resting / sizeof *resting; i++) {
		w->truth.state = resting[i];
		w->truth.engine = i ? namespaces : NULL;
		assert_int_equal(clone_check(w, &memory, &e), 0);
		assert_false(memory);
	}
	/* its program ended by itself */
	w->wish.wish = WISH_RUNNING;
	w->truth.state = STATE_STOPPED;
	assert_int_equal(clone_check(w, &memory, &e), 0);
	w->wish.run = 2; /* and it is to be started again */
	refused(w, ERR_CONFLICT, "is stopped", "what runs");
}

static void others_are_refused_and_told_what_to_do(void **state)
{
	(void)state;
	static const enum state between[] = { STATE_STAGED, STATE_STARTING, STATE_STOPPING, STATE_SUSPENDING };
	struct original o;
	struct workspace *w = original(&o);
	struct operation work = { .kind = (char[]){ "resume" } };

	w->truth.engine = namespaces;
	refused(w, ERR_UNSUPPORTED, "namespaces", "carrel move --engine emulator web");
	w = original(&o);
	w->operation = &work;
	refused(w, ERR_CONFLICT, "resume", "carrel why web");
	for (size_t i = 0; i < sizeof between / sizeof *between; i++) {
		w = original(&o);
		w->truth.state = between[i];
		refused(w, ERR_CONFLICT, state_names[between[i]], "what runs");
	}
	w = original(&o);
	w->truth.state = STATE_SUSPENDED;
	w->wish.wish = WISH_SUSPENDED;
	refused(w, ERR_CONFLICT, "suspended", "carrel resume web");
	w = original(&o);
	w->wish.wish = WISH_STOPPED; /* it runs still */
	refused(w, ERR_CONFLICT, "running", "");
	w = original(&o);
	o.spec.travels = true;
	refused(w, ERR_UNSUPPORTED, "travels", "stop it");
	w = original(&o);
	o.image.machine = &disk;
	refused(w, ERR_UNSUPPORTED, "disk of its own", "carrel export");
	w = original(&o);
	o.spec.volumes = (struct objects){ &kept, 1 };
	refused(w, ERR_UNSUPPORTED, "kept volume", "");
	w = original(&o);
	w->snapshots.count = 100;
	refused(w, ERR_NO_CAPACITY, "100 snapshots", "");
}

static void what_is_one_workspaces_stays_with_it(void **state)
{
	(void)state;
	static const char text[] = "{\"name\":\"web\",\"image\":\"busybox\",\"hostname\":\"www\",\"publish\":[\"8080:80\"],\"labels\":{\"a\":\"b\"},"
				   "\"networks\":[{\"network\":\"n\",\"mac\":\"02:00:00:00:00:01\",\"ipv4\":\"10.0.0.2\",\"ipv6\":\"fd00::2\"}],"
				   "\"resources\":{\"memory\":\"256M\"}}";
	struct spec of = { 0 }, *made = NULL;

	assert_ok(decode_text(text, strlen(text), "a spec", &spec_shape, &of, &e), &e);
	assert_ok(clone_spec(&of, "web-2", &made, &e), &e);
	json_t *json = encode(&spec_shape, made);
	char *said = json_dumps(json, JSON_COMPACT | JSON_SORT_KEYS);
	static const char *const gone[] = { "www", "8080", "02:00", "10.0.0.2", "fd00::2" };
	static const char *const kept_words[] = { "web-2", "busybox", "\"a\":\"b\"", "\"network\":\"n\"" };

	for (size_t i = 0; i < sizeof gone / sizeof *gone; i++)
		if (strstr(said, gone[i]))
			fail_msg("%s: %s", gone[i], said);
	for (size_t i = 0; i < sizeof kept_words / sizeof *kept_words; i++)
		if (!strstr(said, kept_words[i]))
			fail_msg("%s: %s", kept_words[i], said);
	assert_int_equal(made->resources->memory_bytes, UINT64_C(256) << 20);
	free(said);
	json_decref(json);
	shape_done(&spec_shape, made);
	free(made);
	shape_done(&spec_shape, &of);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_runs_is_cloned_with_its_memory),
		cmocka_unit_test(what_rests_is_cloned_with_its_volumes),
		cmocka_unit_test(others_are_refused_and_told_what_to_do),
		cmocka_unit_test(what_is_one_workspaces_stays_with_it),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
