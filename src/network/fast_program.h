/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NETWORK_FAST_PROGRAM_H
#define NETWORK_FAST_PROGRAM_H

/*
 * The two programs of the fast path (network/fast.h) as instructions for the kernel, and what they share with the agent in
 * maps. Written by a small assembler (network/fast_assembler.h) instead of a compiler for BPF, which
 * would weigh more than all else that builds Carrel.
 */

#include <stdint.h>

#include "base/err.h"
#include "network/fast_assembler.h"

/* --- what is in the maps --- */

/* One direction of a connection, as its packets say it. */
struct fast_key {
	uint8_t from[16], to[16]; /* the first 4 when IPv4 */
	uint16_t ports[2];        /* from, to; as on the wire */
	uint8_t protocol, family; /* IPPROTO_TCP or IPPROTO_UDP; 4 or 6 */
	uint8_t zero[2];
};
_Static_assert(sizeof(struct fast_key) == 40, "no holes: the kernel compares bytes");

struct fast_flow {
	uint8_t is[12],
		becomes[12]; /* both MAC addresses of its frames, as they come from the sender and as they reach the receiver */
	uint8_t closed, refused; /* FIN, RST or SYN came by: no more of it; the agent does not want it */
	uint8_t zero[2];
	uint32_t in_index, out_index; /* of the ports on the host */
	uint32_t mark;                /* of the sender's attachment, as the filter sets it */
	uint32_t generation, zero2;   /* of the rules that it passed last */
	uint64_t until_ns;            /* CLOCK_MONOTONIC; then it passes them again */
	uint64_t packets, bytes;      /* that went the short way */
};
_Static_assert(sizeof(struct fast_flow) == 72, "no holes");

/* Told to the agent: this passed the rules. */
struct fast_sample {
	struct fast_key key;
	uint32_t mark, out_index;
};

struct fast_maps {
	int flows;  /* hash: fast_key -> fast_flow */
	int rules;  /* array of one: generation of the rules */
	int sample; /* ring */
	int totals; /* hash: index of a port -> struct fast_total; the agent alone writes it, and the programs only hold it */
};

#define FAST_LEASE_NS 500000000u /* how long a flow may go without passing the rules */
#define FAST_ONE_IN   64         /* packets of flows that are not known are told; a power of 2 */

/* --- the programs --- */

/* Where packets of a workspace come in: what belongs to a flow goes straight to the receiver, all else its usual way. */
int fast_compile_in(struct fast_program *p, const struct fast_maps *maps, struct err *e) must_check;
/* Where the host hands them to a workspace: they passed the rules. */
int fast_compile_out(struct fast_program *p, const struct fast_maps *maps, struct err *e) must_check;

int fast_program_load(const struct fast_program *p, const char *name, int *ret_fd, struct err *e) must_check;

#endif
