/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SERVICE_NETWORK_H
#define SERVICE_NETWORK_H

/*
 * Networks of the site, who has which of their addresses, and groups. Guarantees:
 * - an address, a MAC and a number are with one workspace at a time, also across crashes: what is in memory follows the rows,
 *   and the
 *   rows refuse a second holder;
 * - a workspace keeps its addresses until it leaves the network or is removed; then they rest (setting address-rest), and only
 *   a
 *   workspace of the same name and owner gets them back at once;
 * - numbers of networks and attachments are never given again.
 */

#include "service/network_pool.h"
#include "service/workspace.h"

/* A network with its free addresses. */
struct net {
	struct network def;
	struct pool ipv4, ipv6;
	uint64_t created_ms;
	size_t used, resting; /* attachments */
	bool uncommitted;     /* just being created or removed: nobody joins */
};

/* An attachment and whose it is. */
struct lease {
	struct attachment at; /* without rates: they stand in the spec */
	struct net *net;
	char workspace[ID_SIZE];
	char before[ID_SIZE]; /* of whom it was taken back, as long as that may be undone */
	char place[ID_SIZE + NETWORK_DEVICE_LENGTH + 1]; /* "ID/eth0" */
	uint64_t owner_uid, released_ms;
	char *name, *rest_key;
};

struct group {
	char *name;
	uint64_t owner_uid, created_ms;
	json_t *shared; /* user ids */
};

struct networks {
	char site[5];    /* four hex digits */
	char prefix[20]; /* "fd12:3456:789a": the site's IPv6 /48 */
	uint64_t last_network, last_attachment;
	struct net **items; /* by number */
	size_t count, capacity;
	struct map by_name, by_place, by_mac, by_rest;
	struct lease **resting; /* by release */
	size_t resting_count, resting_capacity;
	struct map groups;
};

int networks_load(struct service *s, struct err *e) must_check; /* before the workspaces */
struct net *network_by_name(const struct service *s, const char *name);
/* Names of at most a few workspaces on it, for sentences. */
void network_users(const struct service *s, const struct net *n, const struct identity *who, struct str *to);

/* --- network_lease.c: addresses --- */

/* The network 'default' for a spec that names none, when the site has it. */
void network_preset(const struct service *s, struct spec *spec);
/* Brings the attachments of `w` to what its spec lists: all of it in the batch and in memory, or, on failure, nothing. */
int network_attach(struct service *s, const struct identity *who, struct workspace *w, struct db_batch *b,
		   struct err *e) must_check;
void network_release(struct service *s, struct workspace *w, struct db_batch *b); /* all of them */
void network_reload(struct service *s, const char *workspace); /* memory back to the rows */
void network_sync(struct service *s, struct workspace *w);     /* the attachments of the assignment follow */
void network_free(struct service *s, struct net *n);
void network_insert(struct service *s, struct net *n);
void network_leave_rest(struct service *s, const struct net *n); /* what rests on it is forgotten */
int network_leases_load(struct service *s, const char *workspace, struct err *e) must_check; /* NULL: all */

/* --- network_policy.c: what a user may ask for --- */

int network_check_policy(const struct request *r, const struct workspace *w, const struct spec *spec, struct err *e) must_check;
int network_check_new(const struct service *s, const struct network *n, struct err *e) must_check;
int network_choose_pools(const struct service *s, struct network *n, bool ipv6, struct err *e) must_check;

/* --- network_group.c --- */

int groups_load(struct service *s, struct err *e) must_check;
int group_check(const struct request *r, const struct spec *old, const struct spec *spec, struct err *e) must_check;
/* makes those that are new */
void group_join(struct service *s, uint64_t owner_uid, const struct spec *spec, struct db_batch *b);

/* --- network_channel.c: what hosts are told and tell --- */

void network_tell_all(struct service *s, struct host *h);              /* after its hello */
void network_tell(struct service *s, struct workspace *w);             /* after a commit: when it differs from what was told */
void network_tell_gone(struct service *s, const char *workspace);
void network_tell_network(struct service *s, const struct net *n, const char *gone);
void network_on_traffic(struct host *h, json_t *message);
void network_on_judged(struct host *h, json_t *message);
void network_metrics(struct service *s, struct str *text);

extern const struct shape network_view_shape, network_create_shape, group_view_shape, group_change_shape, judge_shape,
	judged_shape, traffic_shape;

#endif
