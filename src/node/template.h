/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_TEMPLATE_H
#define NODE_TEMPLATE_H

/*
 * Templates of machines (docs/formats/template.md): folders STATE/node/templates/HEX, made when a machine had to boot for want
 * of one, and what the next machine of the kind goes on from. They are a cache: what is not whole is not used and goes, the
 * least recently used go when they need more disk than they may, and without any of them machines boot. From any thread.
 */

#include <jansson.h>

#include "engine/launch.h"
#include "node/node.h"

struct templates;

struct templates *templates_new(struct node *n);
void templates_free(struct templates *t);

/* For this launch: its memory file becomes `base` (a path that is free), and the state is opened. False: there is none, and it
 * boots; *ret_notice then says if one was damaged (or NULL). */
bool templates_take(struct templates *t, const struct launch *l, const char *base, struct launch_memory *m, char **ret_notice);
/* The module that keeps a memory file as it is (launch_memory). */
const char *templates_shim(const struct templates *t);
/*
 * A machine of this launch did not go on from its template, but booted. `of_no_use`: QEMU does not take the state on this host:
 * it goes, and is not made again by this agent. Any other failure, which a busy host may have caused, is forgiven once; after a
 * second without a success in between the template goes, and may be made again when the host had time.
 */
void templates_fail(struct templates *t, const struct launch *l, bool of_no_use);
/* One did. */
void templates_work(struct templates *t, const struct launch *l);
/* A machine of this launch has booted: one is made when there is time. */
void templates_want(struct templates *t, const struct launch *l);

/* One for this launch is there and whole afterwards, unless there shall be none; made now, if need be. */
int templates_ready(struct templates *t, const struct launch *l, struct err *e) must_check;
/* 1: one that was wanted was made, and there may be more; 0: none is wanted. */
int templates_make(struct templates *t, struct err *e) must_check;
bool templates_wanted(struct templates *t);

/* All that are there, the one used last first: a list of the API's `template`. */
json_t *templates_list(const struct templates *t);
/* One goes: name, or the beginning of one. Machines that went on from it keep their memory. ERR_NOT_FOUND, ERR_CONFLICT. */
int templates_drop(struct templates *t, const char *prefix, struct err *e) must_check;

#endif
