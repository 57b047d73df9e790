/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_ENGINE_H
#define ENGINE_ENGINE_H

/*
 * An engine turns a launch request into a running workspace. The first half is pure: a request becomes a plan that can be
 * printed; the second hands the plan to a runner (carrel-run), which applies it and stays with the workspace.
 */

#include <jansson.h>

#include "base/hash.h"
#include "engine/launch.h"

struct engine {
	const char *name; /* as in spec_engine_names */
	/* NULL: this request can run here; otherwise the reason why not. Pure. */
	int (*check)(const struct launch *l, struct err *e);
	/* The plan as carrel-run reads it, into `ret_plan` (docs/formats/plan.md). Pure: same request, same bytes. */
	int (*plan)(const struct launch *l, struct str *ret_plan, struct err *e);
	/* The same for people: a list of objects, one a step. */
	int (*describe)(const struct launch *l, json_t **ret_plan, struct err *e);
	/* What a memory state of it fits to, "sha256:HEX" of the devices and their places; NULL: the engine has no such thing.
	 * Pure. */
	int (*layout)(const struct launch *l, char out[DIGEST_TEXT_SIZE], struct err *e);
	bool machine; /* gets the partitions' and volumes' files as disks; nothing is mounted on the host */
};

extern const struct engine engine_workspace, engine_emulator, engine_kvm;

/* What a host has for one image. */
struct engine_host {
	bool kvm;      /* really works, for machines of the image's processor */
	bool programs; /* of the image's processor run here: it is the host's own, or QEMU's user mode is registered for it */
};

/* The lightest engine that can do what the spec asks for: namespaces, then KVM, then the emulator. What is asked for by name is
 * taken whether the host has it or not: its start then says what is missing. ERR_UNSUPPORTED: what this version lacks. */
int engine_choose(const struct spec *s, const struct engine_host *host, const struct engine **ret_engine,
		  struct err *e) must_check;
/* Of a launch. */
int engine_of(const struct launch *l, const struct engine **ret_engine, struct err *e) must_check;
/* It will be a machine; which of them depends on the host's KVM alone. */
bool engine_wants_machine(const struct spec *s, bool programs);

#endif
