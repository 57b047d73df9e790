/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_NETWORK_PRIVATE_H
#define NODE_NETWORK_PRIVATE_H

/*
 * What the parts of the networks of a host share (node/network*.c): one struct, under its lock but for what is marked as the
 * loop thread's. What the service said (directory), what runs here (locals) and what was made of both (filter, bridges, links)
 * are kept apart, so that each can be compared with the other.
 */

#include <pthread.h>

#include "network/filter.h"
#include "network/metadata_server.h"
#include "network/shape.h"
#include "node/directory.h"
#include "node/network.h"

#define INSTANCE_LENGTH 4

/* A network that has a bridge here. */
struct carried {
	char *name;
	char bridge[NETWORK_DEVICE_LENGTH + 1];
	bool ours, names;
	bool vlan; /* the bridge is ours, with a VLAN device of the site's interface (network/vlan.h) */
	uint64_t idle_since_ms; /* 0: in use */
};

struct local {
	struct assignment wish; /* a copy of its own */
	uint64_t pid;           /* 0: it does not run yet */
	bool links_due;         /* its interfaces are to be compared with the wish */
	bool machine;           /* its interfaces are its runner's to make, */
	bool machine_due;       /* which is to be told of them, */
	bool machine_busy;      /* or is being told: networks.told */
	bool held;              /* it is being suspended: its ports are down, and shall be */
	char problem[256];      /* with its networks while it runs, as far as it fits; "": none */
};

struct networks {
	struct node *node;
	char instance[INSTANCE_LENGTH + 1];
	char *file, *folder; /* networks.json; RUN/node/networks */
	pthread_mutex_t lock;
	pthread_cond_t told; /* a machine's runner has answered */
	struct directory directory;
	struct map locals;  /* by id: struct local */
	struct map carried; /* by name: struct carried */
	struct map learned; /* by port: network_leases.c */
	bool learners;      /* there are some */
	uint64_t lease_look; /* how often they were looked at */
	struct filter *filter;
	struct shaper *shaper;
	struct fast *fast; /* NULL: the kernel lacks something */
	bool applied, forwarding, swept, shaped;
	int rates_failed; /* they do not fit any more; those before are kept */
	char said[256];   /* the error that was logged last, as far as it fits */
	/* loop thread only */
	struct metadata_server *metadata;
	void (*tell)(void *data, json_t *message);
	void *tell_data;
	bool due, busy, failed, looking;
	struct loop_source *timer, *retry;
	json_t *traffic;
	uint16_t metadata_port;
	struct map voices; /* by network: to its names process */
	bool lease_busy, lease_again;
	bool saving;  /* the directory; several changes while that lasts are one more */
	bool unsaved; /* under the lock */
	struct loop_source *save_timer;
	struct loop_source *lease_timer;
	json_t *lease_traffic;
	/* network_fast.c; what a job does was copied to `fast_doing` before it began */
	unsigned fast_due, fast_doing;
	int fast_flows;
	uint64_t fast_begun_ms;
	bool fast_busy, fast_failed, fast_lacking;
	struct loop_source *fast_samples, *fast_ports, *fast_care, *fast_rest;
};

/* What the filter gets; borrowed from directory and locals. */
struct intent {
	struct filter_intent intent;
	struct filter_network *networks;
	struct filter_workspace *workspaces;
	struct member *members;
	const char **learned;
	char (*bridges)[NETWORK_DEVICE_LENGTH + 1];
};

void intent_make(struct networks *s, struct intent *out);
void intent_done(struct intent *i);
void bridge_of(const struct networks *s, const struct network *w, char out[static NETWORK_DEVICE_LENGTH + 1]);

/* All rules, or one workspace's when the rest is there already. */
int network_apply(struct networks *s, const char *id, struct err *e) must_check;

/* network_leases.c: addresses that the site's DHCP gives. */
bool network_has_learners(const struct networks *s, const struct local *l);
/* 1: they are others than before. */
int network_look_at_leases(struct networks *s, struct err *e) must_check;
/* The address by which a port's workspace may be named, or NULL; until the next look. */
const char *network_learned(const struct networks *s, const char *port);
void network_learned_free(struct networks *s);
/* From now on they are looked at as long as there are any. Loop thread. */
void network_leases_begin(void *networks);

/* network_site.c: what networks of kind bridge join. */
int network_join_site(struct networks *s, const struct network *w, struct carried *c, struct err *e) must_check;
int network_leave_site(struct carried *c, struct err *e) must_check;
int network_sweep_vlans(struct networks *s, struct err *e) must_check; /* what no network here is carried by */
int network_clean_vlans(const char *instance, struct err *e) must_check;

/* Networks of an assignment are carried here, and what its launch needs of them; freed like isolate_parts. */
int network_list_interfaces(struct networks *s, const struct assignment *a, struct launch_interface **ret_list,
			    size_t *ret_count, struct err *e) must_check;

/* network_carry.c. The network of an attachment is carried. */
int network_carry_of(struct networks *s, const struct attachment *a, const struct network **ret_network,
		     struct carried **ret_carried, struct err *e) must_check;
/* All networks of a workspace that was found running. */
int network_carry_all(struct networks *s, const struct local *l, struct err *e) must_check;
/* Names follow the directory; networks that nobody used for long, or that are no more, go. */
int network_look_after_carried(struct networks *s, struct err *e) must_check;

/* network_interfaces.c, above, and: those of a workspace that runs. Made after the rules were applied, so that a new port meets
 * its own. */
int network_compare_links(struct networks *s, struct local *l, struct err *e) must_check;
int network_remove_links(const struct assignment *before, const struct assignment *now, struct err *e) must_check;

/* network_machine.c. Tells the runners of machines that are due - of one, or with id NULL of all - which interfaces these shall
 * have. Without the lock: QEMU takes its time. */
int network_connect_machines(struct networks *s, const char *id, struct err *e) must_check;

/* network_names.c, on the loop's thread. Opens what is missing. */
void network_voices_open(void *networks);
void network_voices_forget(void *networks); /* rules have changed */
void network_voices_close(struct networks *s);

/* network_interfaces.c: a port that is there is connected again. */
int network_rejoin(struct networks *s, const struct local *l, size_t attachment, struct err *e) must_check;

/* network_repair.c */
bool network_in_use(const struct networks *s, const char *network);
void network_miss_ports(struct networks *s); /* ports that are not there, or not as they were made, are due */

/* network_rates.c. Whether the rates of all locals can be kept together: before one more is started. */
int network_check_rates(const struct networks *s, struct err *e) must_check;
/* Hosts whose workspaces have no rates do nothing here; once there were some, it is asked each time. */
int network_keep_rates(struct networks *s, struct err *e) must_check;

/* network_fast.c. Ports came or went (loop's thread); rules changed (under the lock). */
void network_fast_due(void *networks);
void network_fast_changed(struct networks *s);
void network_fast_stop(struct networks *s);

/* Counters of all locals, as the service wants them; a new reference. */
json_t *network_read_traffic(struct networks *s);

#endif
