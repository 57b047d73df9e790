/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MODEL_PROCESSOR_H
#define MODEL_PROCESSOR_H

/*
 * The processor that a machine is given. By itself it is the pool's baseline: what all of its hosts have, so that memory goes
 * on at each of them, and programs that chose their code by it. Pure.
 */

#include <stdbool.h>
#include <stddef.h>

#include "base/decode.h"

/* Of a host. */
struct processor_host {
	const char *vendor;             /* "GenuineIntel"; NULL: not told */
	const char *const *features;    /* as /proc/cpuinfo names them; NULL-terminated */
};

struct processor {
	char *model;           /* QEMU's words for -cpu */
	const char *level;     /* "x86-64-v3"; NULL: none of the known ones */
	struct texts features; /* of /proc/cpuinfo that programs inside may use; empty: not known */
};
void processor_done(struct processor *p);

#define PROCESSOR_BASELINE "baseline"
#define PROCESSOR_HOST     "host" /* all that this host has: KVM only */
#define PROCESSOR_MAX      "max"  /* all that the engine can make */

/* A wish as it stands in a spec: one of the three, a level ("x86-64-v2"), or the name of a model of QEMU's. */
int processor_check_wish(const char *text, struct err *e) must_check;

/* `wish` NULL: the baseline. `hosts`: all of the pool that have this processor; none: the least level. Emulated, it is also no
 * more than the emulator makes quickly. ERR_INVALID: `host` without KVM. */
int processor_choose(const char *architecture, const char *wish, bool kvm, const struct processor_host *hosts, size_t count,
		     struct processor *ret_processor, struct err *e) must_check;

/* What a host must have for memory under KVM: p->features, and the vendor, for a guest's kernel knows its errata by it. */
void processor_bind(const struct processor *p, const struct processor_host *here, struct texts *ret_features);

#endif
