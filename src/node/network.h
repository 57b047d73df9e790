/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_NETWORK_H
#define NODE_NETWORK_H

/*
 * The networks of this host: what the service decides about them (directory.h) meets bridges (network/link.h), rules
 * (network/filter.h), addresses and names (network/names.h) and the metadata address. A workspace that has attachments is a
 * `local` from before its ports exist until after they are gone; rules, names and metadata follow from directory and locals,
 * and are made anew whenever one changes.
 *
 * What is made on the host carries the instance: four hex digits from the agent's state folder and name.
 */

#include <jansson.h>

#include "node/isolate.h"
#include "node/node.h"

struct networks;

/* Loads the directory; touches nothing. */
int networks_new(struct node *n, struct networks **ret_networks, struct err *e) must_check;
/* Nothing looks or is served any more: after the workers ended, before the loop is freed. The kernel keeps all of it. */
void networks_stop(struct networks *s);
void networks_free(struct networks *s);

/* A workspace that was found running: before networks_start. `r`: with the engine that it runs under, whatever the wish is. */
void networks_adopt(struct networks *s, const struct assignment *a, const struct report *r);
/* From now on rules are kept right. `tell` gets messages for the service (takes them); loop thread. */
void networks_start(struct networks *s, void (*tell)(void *data, json_t *message), void *data);

/* The service's message "networks". Loop thread. */
void networks_take(struct networks *s, json_t *message);
/* A newer wish for a workspace that runs is noted. Loop thread. */
void networks_update(struct networks *s, const struct assignment *a, const struct report *r);
/* Its rules, interfaces and rates are as was noted last; with those of all others that were noted since. A worker's thread. */
int networks_settle(struct networks *s, const char *id, struct err *e) must_check;
/* The answer to the service's message "judge"; takes nothing. Loop thread. */
json_t *networks_judge(struct networks *s, json_t *message);

/* Bridges, rules and names for a workspace that is about to start, and what its launch needs. Any thread. */
int networks_attach(struct networks *s, const struct assignment *a, struct isolate_parts *parts, struct err *e) must_check;
/* Its ports are there: rates are set, and interfaces may come and go from now on. */
int networks_running(struct networks *s, const char *id, uint64_t pid, struct err *e) must_check;
/* The same for one that goes on at once, under another engine: rules and connections stay. */
int networks_leave(struct networks *s, const char *id, struct err *e) must_check;
/* Its runner holds its ports down for a moment: nobody puts them right. */
void networks_hold(struct networks *s, const char *id, bool held);
/* Its ports are gone; one that is not known is fine. */
int networks_detach(struct networks *s, const char *id, struct err *e) must_check;

/* For --dry-run: lines. Pure. */
json_t *networks_plan(const struct node *n, const struct assignment *a);
/* Takes all away that carries this instance: for --clean. */
int networks_clean(const struct node *n, struct err *e) must_check;

#endif
