/* SPDX-License-Identifier: Apache-2.0 */
#include "service/clone_check.h"

#include <stdlib.h>

#include "base/mem.h"
#include "base/own.h"
#include "service/operation.h"
#include "service/views.h"

static void drop_json(json_t **j) { json_decref(*j); }
#define own_json __attribute__((cleanup(drop_json)))

/* *ret_memory: with it, or only with what is on its volumes. */
static int check_state(const struct workspace *w, bool *ret_memory, struct err *e)
{
	bool wanted = w->wish.wish == WISH_RUNNING || w->wish.wish == WISH_PAUSED;
	enum state s = (enum state)w->truth.state;

	*ret_memory = s == STATE_RUNNING || s == STATE_PAUSED;
	if (w->operation) {
		(void)err_set(e, ERR_CONFLICT, "workspace '%s' is being worked on (%s)", w->name, w->operation->kind);
		return err_hint(e, "wait for it: carrel why %s", w->name);
	}
	if (*ret_memory && !workspace_is_machine(w)) {
		(void)err_set(e, ERR_UNSUPPORTED, "workspace '%s' runs in namespaces, whose memory cannot be cloned", w->name);
		return err_hint(
			e, "run it as a machine (carrel move --engine emulator %s), or stop it: then its volumes are cloned",
			w->name);
	}
	if (*ret_memory && wanted)
		return 0;
	if (!wanted && (s == STATE_PREPARED || s == STATE_STOPPED || s == STATE_FAILED))
		return 0;
	if (s == STATE_STOPPED && w->truth.run >= w->wish.run)
		return 0;
	(void)err_set(e, ERR_CONFLICT, "workspace '%s' is %s", w->name, state_names[s]);
	if (s == STATE_SUSPENDED)
		return err_hint(e, "carrel resume %s, and clone it while it runs", w->name);
	return err_hint(e, "only what runs, or has volumes and rests, is cloned");
}

static int check_spec(const struct workspace *w, bool memory, struct err *e)
{
	const struct spec_volume *v = w->wish.spec->volumes.items;

	if (memory && w->wish.spec->travels) {
		(void)err_set(
			e, ERR_UNSUPPORTED,
			"workspace '%s' travels (deployed with --travels), so its processes keep the identity that they have",
			w->name);
		return err_hint(e, "stop it: then its volumes are cloned");
	}
	if (w->wish.image->machine) {
		(void)err_set(e, ERR_UNSUPPORTED,
			      "workspace '%s' boots a disk of its own, where nobody could give a clone its identity", w->name);
		return err_hint(e, "carrel export and import make copies of it");
	}
	for (size_t i = 0; i < w->wish.spec->volumes.count; i++)
		if (v[i].keep)
			return err_set(e, ERR_UNSUPPORTED,
				       "the kept volume '%s' of workspace '%s' can be in use by one workspace only", v[i].name,
				       w->name);
	if (w->snapshots.count >= SNAPSHOTS_MOST)
		return err_set(e, ERR_NO_CAPACITY, "workspace '%s' has %d snapshots, the most", w->name, SNAPSHOTS_MOST);
	return 0;
}

int clone_check(const struct workspace *w, bool *ret_memory, struct err *e)
{
	int r = check_state(w, ret_memory, e);

	return r == 0 ? check_spec(w, *ret_memory, e) : r;
}

int clone_spec(const struct spec *of, const char *name, struct spec **ret_spec, struct err *e)
{
	static const char *const own[] = { "hostname", "publish" }, *const fixed[] = { "ipv4", "ipv6", "mac" };
	own_json json_t *json = encode(&spec_shape, of);
	struct spec *spec = mem_alloc(sizeof *spec);
	json_t *interface;
	size_t i;

	(void)json_object_set_new(json, "name", json_string(name));
	for (size_t k = 0; k < ARRAY_SIZE(own); k++)
		(void)json_object_del(json, own[k]);
	json_array_foreach(json_object_get(json, "networks"), i, interface)
		for (size_t k = 0; k < ARRAY_SIZE(fixed); k++)
			(void)json_object_del(interface, fixed[k]);
	int result = decode_json(json, "clone", &spec_shape, spec, e);
	if (result < 0)
		free(spec);
	else
		*ret_spec = spec;
	return result;
}
