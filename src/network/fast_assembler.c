/* SPDX-License-Identifier: Apache-2.0 */
#include "network/fast_assembler.h"

#include "base/mem.h"

static void emit(struct fast_program *p, int code, int to, int from, int offset, int32_t value)
{
	if (p->count == FAST_PROGRAM_MOST) {
		p->broken = true;
		return;
	}
	p->at[p->count++] = (struct bpf_insn){ .code = (uint8_t)code,
					       .dst_reg = (uint8_t)(to & 15),
					       .src_reg = (uint8_t)(from & 15),
					       .off = (int16_t)offset,
					       .imm = value };
}

void fast_load(struct fast_program *p, int size, int to, int from, int offset)
{
	emit(p, BPF_LDX | BPF_MEM | size, to, from, offset, 0);
}
void fast_store(struct fast_program *p, int size, int to, int offset, int from)
{
	emit(p, BPF_STX | BPF_MEM | size, to, from, offset, 0);
}

void fast_store_value(struct fast_program *p, int size, int to, int offset, int32_t value)
{
	emit(p, BPF_ST | BPF_MEM | size, to, 0, offset, value);
}

void fast_add_atomic(struct fast_program *p, int to, int offset, int from)
{
	emit(p, BPF_STX | BPF_ATOMIC | BPF_DW, to, from, offset, BPF_ADD);
}

void fast_move(struct fast_program *p, int to, int from) { emit(p, BPF_ALU64 | BPF_MOV | BPF_X, to, from, 0, 0); }
void fast_set(struct fast_program *p, int to, int32_t value) { emit(p, BPF_ALU64 | BPF_MOV | BPF_K, to, 0, 0, value); }

void fast_compute(struct fast_program *p, int operation, int to, int from)
{
	emit(p, BPF_ALU64 | operation | BPF_X, to, from, 0, 0);
}

void fast_compute_value(struct fast_program *p, int operation, int to, int32_t value)
{
	emit(p, BPF_ALU64 | operation | BPF_K, to, 0, 0, value);
}

void fast_call(struct fast_program *p, int32_t helper) { emit(p, BPF_JMP | BPF_CALL, 0, 0, 0, helper); }

void fast_map(struct fast_program *p, int to, int map_fd)
{
	emit(p, BPF_LD | BPF_DW | BPF_IMM, to, BPF_PSEUDO_MAP_FD, 0, map_fd);
	emit(p, 0, 0, 0, 0, 0); /* the upper half */
}

static void jump(struct fast_program *p, int label)
{
	if (p->jump_count == ARRAY_SIZE(p->jumps) || label < 0 || label >= FAST_LABELS) {
		p->broken = true;
		return;
	}
	p->jumps[p->jump_count].at = (uint16_t)p->count;
	p->jumps[p->jump_count++].label = (uint8_t)label;
}

void fast_jump(struct fast_program *p, int label)
{
	jump(p, label);
	emit(p, BPF_JMP | BPF_JA, 0, 0, 0, 0);
}

void fast_jump_if(struct fast_program *p, int condition, int left, int right, int label)
{
	jump(p, label);
	emit(p, BPF_JMP | condition | BPF_X, left, right, 0, 0);
}

void fast_jump_if_value(struct fast_program *p, int condition, int left, int32_t value, int label)
{
	jump(p, label);
	emit(p, BPF_JMP | condition | BPF_K, left, 0, 0, value);
}

void fast_label(struct fast_program *p, int label)
{
	if (label < 0 || label >= FAST_LABELS || p->places[label])
		p->broken = true;
	else
		p->places[label] = (int16_t)p->count;
}

void fast_exit(struct fast_program *p) { emit(p, BPF_JMP | BPF_EXIT, 0, 0, 0, 0); }

void fast_leave(struct fast_program *p, int32_t answer)
{
	fast_set(p, BPF_REG_0, answer);
	fast_exit(p);
}

int fast_program_end(struct fast_program *p, struct err *e)
{
	for (size_t i = 0; i < p->jump_count && !p->broken; i++) {
		int place = p->places[p->jumps[i].label];
		p->broken = place <= p->jumps[i].at; /* only forwards: a program that can run for ever is none */
		p->at[p->jumps[i].at].off = (int16_t)(place - p->jumps[i].at - 1);
	}
	return p->broken ? err_set(e, ERR_INTERNAL, "a program for packets is wrong") : 0;
}
