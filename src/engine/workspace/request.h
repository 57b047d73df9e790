/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_WORKSPACE_REQUEST_H
#define ENGINE_WORKSPACE_REQUEST_H

/* From a launch request to a plan: pure. */

#include "engine/launch.h"
#include "engine/workspace/plan.h"

/* Owns what a plan points to while it is being made. */
struct request {
	struct plan plan;
	void **owned;
	size_t owned_count, owned_room, step_room;
};

int request_plan(const struct launch *l, struct request *ret_request, struct err *e) must_check;
void request_done(struct request *r);
char *request_machine_id(const char *id); /* the caller frees */
bool request_is_system(const struct launch *l); /* what "mode: auto" comes to */

/* An interface as a plan has it. Texts are those of `f`, which stay, or in here. */
struct request_interface {
	const char *texts[INTERFACE_TEXTS];
	char mtu[12], vlan[12];
};
void request_interface(const struct launch_interface *f, struct request_interface *ret_interface);

/* --- filter.c: the seccomp program of each mode, compiled at first use and kept --- */
int filter_program(bool system, const void **ret_filter, size_t *ret_bytes, struct err *e) must_check;

#endif
