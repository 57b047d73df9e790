/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SERVICE_HOST_H
#define SERVICE_HOST_H

/* Hosts and the channel to each: the wish goes out, the truth comes in. */

#include "service/workspace.h"

struct host {
	char *name;
	struct ws *ws;        /* NULL: not connected */
	void *upgrade;
	bool greeted;         /* hello came: assignments may go out */
	char *version;
	json_t *facts, *volumes;
	uint64_t seen_ms;
	struct host *next;
	struct service *service;
};

extern const struct shape host_shape, volume_shape;
int hosts_load(struct service *s, struct err *e) must_check;
struct host *host_find(struct service *s, const char *name); /* NULL: never seen */
struct host *host_choose(struct service *s);                 /* where a new workspace goes; NULL: no host is connected */
bool host_connected(const struct host *h);
void host_send(struct host *h, json_t *message);             /* takes it; nothing when not connected */
void host_send_forget(struct host *h, const char *id);
/* The node's plan for a dry run, answered to `r` when it comes. */
int host_plan(struct host *h, const struct assignment *a, struct request *r, struct err *e) must_check;
/* What a suspend would come to (shape suspend-check), in the same way. */
/* to: of a live move, or NULL */
void host_check_suspend(struct host *h, const char *workspace, const struct assignment *to, struct request *r);
/* A question of another kind (taken): its answer, an object, an error or nothing (204), goes to `r` as it is. */
void host_ask(struct host *h, json_t *message, struct request *r);

/* volume.c: what a host told of its kept volumes, and who waits for it */
void volumes_told(struct host *h);
void volumes_refused(struct host *h, uint64_t owner_uid, const char *name, const struct err *why);
void volumes_host_gone(struct host *h);

/* stream.c */
void streams_host_gone(struct service *s, struct host *h);
void streams_workspace_changed(struct service *s, struct workspace *w);
#endif
