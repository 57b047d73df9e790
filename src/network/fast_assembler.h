/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NETWORK_FAST_ASSEMBLER_H
#define NETWORK_FAST_ASSEMBLER_H

/*
 * Instructions for the kernel (linux/bpf.h; RFC 9669), one call an instruction. A program that would be wrong says so at its
 * end, so that no call before it can fail.
 */

#include <linux/bpf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define FAST_PROGRAM_MOST 256
#define FAST_LABELS       8

struct fast_program {
	struct bpf_insn at[FAST_PROGRAM_MOST];
	size_t count;
	bool broken; /* too long, or a label that is nowhere, twice, or behind its jump: `fast_program_end` says so */
	int16_t places[FAST_LABELS];
	struct {
		uint16_t at;
		uint8_t label;
	} jumps[64];
	size_t jump_count;
};

void fast_load(struct fast_program *p, int size, int to, int from, int offset); /* size: BPF_B, BPF_H, BPF_W, BPF_DW */
void fast_store(struct fast_program *p, int size, int to, int offset, int from);
void fast_store_value(struct fast_program *p, int size, int to, int offset, int32_t value);
void fast_add_atomic(struct fast_program *p, int to, int offset, int from); /* 64 bits */
void fast_move(struct fast_program *p, int to, int from);
void fast_set(struct fast_program *p, int to, int32_t value);
void fast_compute(struct fast_program *p, int operation, int to, int from); /* BPF_ADD, ..., 64 bits */
void fast_compute_value(struct fast_program *p, int operation, int to, int32_t value);
void fast_call(struct fast_program *p, int32_t helper);
void fast_map(struct fast_program *p, int to, int map_fd);
void fast_jump(struct fast_program *p, int label);
void fast_jump_if(struct fast_program *p, int condition, int left, int right, int label); /* BPF_JEQ, ...; unsigned, 64 bits */
void fast_jump_if_value(struct fast_program *p, int condition, int left, int32_t value, int label);
void fast_label(struct fast_program *p, int label);
void fast_exit(struct fast_program *p); /* with what register 0 has */
void fast_leave(struct fast_program *p, int32_t answer);
/* Labels become distances. */
int fast_program_end(struct fast_program *p, struct err *e) must_check;

#endif
