/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NETWORK_FAST_KERNEL_H
#define NETWORK_FAST_KERNEL_H

/* bpf(2) and the hooks of ports, as the fast path needs them. */

#include "network/fast_program.h"
#include "network/netlink.h"

#define FAST_FLOWS_MOST 65536

int fast_maps_make(struct fast_maps *ret_maps, struct err *e) must_check;
/* Those of the program with this number, if they are as fast_maps_make would make them; else ERR_NOT_FOUND. */
int fast_maps_find(uint32_t program, struct fast_maps *ret_maps, struct err *e) must_check;
/* The program holds those that it does not read, too. */
int fast_maps_bind(const struct fast_maps *m, int program, struct err *e) must_check;
void fast_maps_close(struct fast_maps *m);

/* -ENOENT: there is none. */
int fast_flow_get(const struct fast_maps *m, const struct fast_key *key, struct fast_flow *ret_flow) must_check;
/* Only when there is none yet: -EEXIST. */
int fast_flow_put(const struct fast_maps *m, const struct fast_key *key, const struct fast_flow *flow) must_check;
/* `ret_flow`: as it was last. */
int fast_flow_take(const struct fast_maps *m, const struct fast_key *key, struct fast_flow *ret_flow) must_check;

struct fast_flows {
	struct fast_key *keys;
	struct fast_flow *flows;
	size_t count;
};
void fast_flows_done(struct fast_flows *f);
int fast_flows_read(const struct fast_maps *m, struct fast_flows *ret_flows, struct err *e) must_check;

int fast_rules_get(const struct fast_maps *m, uint32_t *ret_generation, struct err *e) must_check;
int fast_rules_put(const struct fast_maps *m, uint32_t generation, struct err *e) must_check;

/* What went through a port and is not in a flow any more. */
struct fast_total {
	uint64_t packets, bytes;
};
struct fast_total fast_total_get(const struct fast_maps *m, uint32_t out_index);
void fast_total_add(const struct fast_maps *m, uint32_t out_index, uint64_t packets, uint64_t bytes);
/* Those of ports that `stays` does not know go. */
typedef bool fast_total_stays(const void *context, uint32_t out_index);
void fast_totals_sweep(const struct fast_maps *m, fast_total_stays *stays, const void *context);

/* The ring of samples. */
struct fast_ring {
	void *consumer, *producer;
	size_t page;
};
int fast_ring_open(int map_fd, struct fast_ring *ret_ring, struct err *e) must_check;
void fast_ring_close(struct fast_ring *r);
bool fast_ring_next(struct fast_ring *r, struct fast_sample *ret_sample);
void fast_ring_skip(struct fast_ring *r); /* what is in it now */

/* Programs at a port; those that are there already are replaced, without a packet that meets none. */
int fast_attach(struct netlink *n, unsigned index, int in_program, int out_program, struct err *e) must_check;
int fast_detach(struct netlink *n, unsigned index, struct err *e) must_check;
/* The number of the program that is at the port's entry; 0: none. */
int fast_attached(struct netlink *n, unsigned index, uint32_t *ret_program, struct err *e) must_check;

#endif
