/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. Both programs look at the frame in the same way and only at frames of the common shape; whatever is unusual (a
 * VLAN's tag, options or extension headers, fragments, a TTL that ends here, headers that are not in one piece) is not theirs
 * and goes the usual way, where the rules decide. So nothing here can let through what the rules would not have met at least
 * once within FAST_LEASE_NS:
 *
 *   in   the flow is found by addresses, protocol and ports; port, MAC of the sender and of the gate are compared with what
 *        the agent wrote down, so that a frame of another workspace with the same headers is not taken for it. TCP's SYN, FIN
 *        and RST close the flow and go the usual way, as connection tracking must see them.
 *   out  renews a flow whose packet came by the usual way, with the number of the rules that are in force. Of those that are
 *        not known a few are told to the agent, which decides.
 *
 * Registers: R6 the context, R7 the frame, R8 its end, R9 the flow. The key is on the stack.
 *
 * TTL and hop limit are one less, as on the usual way; the checksum follows by RFC 1624. Checksums of TCP and UDP and the
 * sizes of segments to be cut are in the packet's description, which is not touched.
 */
#include "network/fast_program.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int fast_program_load(const struct fast_program *p, const char *name, int *ret_fd, struct err *e)
{
	union bpf_attr a;

	memset(&a, 0, sizeof a);
	a.prog_type = BPF_PROG_TYPE_SCHED_CLS;
	a.insns = (uintptr_t)p->at;
	a.insn_cnt = (uint32_t)p->count;
	a.license = (uintptr_t) "Apache-2.0";
	(void)snprintf(a.prog_name, sizeof a.prog_name, "%s", name);
	*ret_fd = (int)syscall(SYS_bpf, BPF_PROG_LOAD, &a, sizeof a);
	return *ret_fd < 0 ? err_errno(e, errno, "load program %s", name) : 0;
}

/* --- what both programs do --- */

enum { R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, STACK };
enum { CONTEXT = R6, FRAME = R7, END = R8, FLOW = R9 };
enum { PASS, IPV6, LOOK, OPEN, HOP6, SEND, UNKNOWN }; /* labels */

#define KEY            ((int)-sizeof(struct fast_key))
#define KEY_OF(field)  (KEY + (int)offsetof(struct fast_key, field))
#define RULE           (KEY - 8) /* the number of the one element of `rules` */
#define SAMPLE         (RULE - (int)sizeof(struct fast_sample))
#define FLAGS          (SAMPLE - 8) /* of TCP; 0 for UDP */
#define CTX(field)     ((int)offsetof(struct __sk_buff, field))
#define FLOW_OF(field) ((int)offsetof(struct fast_flow, field))

#define ANSWER_PASS (-1) /* the next program, and if there is none the usual way */
#define TCP_CLOSES  7    /* FIN, SYN, RST */
#define IPV4_AT     ETH_HLEN
#define IPV6_AT     ETH_HLEN

/* `length` bytes of the frame to the key. */
static void copy(struct fast_program *p, int to, int from, int length)
{
	for (int at = 0; at < length; at += 4) {
		fast_load(p, BPF_W, R2, FRAME, from + at);
		fast_store(p, BPF_W, STACK, to + at, R2);
	}
}

static void clear(struct fast_program *p, int from, int to)
{
	for (; from < to; from += 4)
		fast_store_value(p, BPF_W, STACK, from, 0);
}

/* Frames shorter than that are not ours. */
static void need(struct fast_program *p, int length)
{
	fast_move(p, R2, FRAME);
	fast_compute_value(p, BPF_ADD, R2, length);
	fast_jump_if(p, BPF_JGT, R2, END, PASS);
}

/* Protocol in R3; ports, and the flags of TCP, which stands where UDP has none. */
static void parse_transport(struct fast_program *p, int at)
{
	fast_store(p, BPF_B, STACK, KEY_OF(protocol), R3);
	copy(p, KEY_OF(ports), at, 4);
	fast_store_value(p, BPF_DW, STACK, FLAGS, 0);
	fast_jump_if_value(p, BPF_JEQ, R3, IPPROTO_UDP, LOOK);
	fast_jump_if_value(p, BPF_JNE, R3, IPPROTO_TCP, PASS);
	need(p, at + 20);
	fast_load(p, BPF_B, R3, FRAME, at + 13);
	fast_compute_value(p, BPF_AND, R3, TCP_CLOSES);
	fast_store(p, BPF_DW, STACK, FLAGS, R3);
}

static void parse_ipv4(struct fast_program *p)
{
	need(p, IPV4_AT + 20 + 8);
	fast_load(p, BPF_B, R2, FRAME, IPV4_AT);
	fast_jump_if_value(p, BPF_JNE, R2, 0x45, PASS); /* options */
	fast_load(p, BPF_H, R2, FRAME, IPV4_AT + 6);
	fast_compute_value(p, BPF_AND, R2, htons(0x3fff)); /* fragments */
	fast_jump_if_value(p, BPF_JNE, R2, 0, PASS);
	fast_load(p, BPF_B, R2, FRAME, IPV4_AT + 8);
	fast_jump_if_value(p, BPF_JLE, R2, 1, PASS); /* ends here */
	copy(p, KEY_OF(from), IPV4_AT + 12, 4);
	clear(p, KEY_OF(from) + 4, KEY_OF(to));
	copy(p, KEY_OF(to), IPV4_AT + 16, 4);
	clear(p, KEY_OF(to) + 4, KEY_OF(ports));
	fast_store_value(p, BPF_W, STACK, KEY_OF(protocol), 0);
	fast_store_value(p, BPF_B, STACK, KEY_OF(family), 4);
	fast_load(p, BPF_B, R3, FRAME, IPV4_AT + 9);
	parse_transport(p, IPV4_AT + 20);
	fast_jump(p, LOOK);
}

static void parse_ipv6(struct fast_program *p)
{
	fast_label(p, IPV6);
	fast_jump_if_value(p, BPF_JNE, R2, htons(ETH_P_IPV6), PASS);
	need(p, IPV6_AT + 40 + 8);
	fast_load(p, BPF_B, R2, FRAME, IPV6_AT + 7);
	fast_jump_if_value(p, BPF_JLE, R2, 1, PASS);
	copy(p, KEY_OF(from), IPV6_AT + 8, 32);
	fast_store_value(p, BPF_W, STACK, KEY_OF(protocol), 0);
	fast_store_value(p, BPF_B, STACK, KEY_OF(family), 6);
	fast_load(p, BPF_B, R3, FRAME, IPV6_AT + 6);
	parse_transport(p, IPV6_AT + 40);
}

/* The key on the stack, and the flow in FLOW; jumps to UNKNOWN when there is none. */
static void find_flow(struct fast_program *p, const struct fast_maps *maps)
{
	fast_load(p, BPF_W, R2, CONTEXT, CTX(vlan_present));
	fast_jump_if_value(p, BPF_JNE, R2, 0, PASS);
	fast_load(p, BPF_W, FRAME, CONTEXT, CTX(data));
	fast_load(p, BPF_W, END, CONTEXT, CTX(data_end));
	need(p, ETH_HLEN);
	fast_load(p, BPF_H, R2, FRAME, 12);
	fast_jump_if_value(p, BPF_JNE, R2, htons(ETH_P_IP), IPV6);
	parse_ipv4(p);
	parse_ipv6(p);
	fast_label(p, LOOK);
	fast_map(p, R1, maps->flows);
	fast_move(p, R2, STACK);
	fast_compute_value(p, BPF_ADD, R2, KEY);
	fast_call(p, BPF_FUNC_map_lookup_elem);
	fast_jump_if_value(p, BPF_JEQ, R0, 0, UNKNOWN);
	fast_move(p, FLOW, R0);
}

/* The number of the rules in `to`; R1 to R5 are gone. */
static void read_generation(struct fast_program *p, const struct fast_maps *maps, int to)
{
	fast_store_value(p, BPF_W, STACK, RULE, 0);
	fast_map(p, R1, maps->rules);
	fast_move(p, R2, STACK);
	fast_compute_value(p, BPF_ADD, R2, RULE);
	fast_call(p, BPF_FUNC_map_lookup_elem);
	fast_jump_if_value(p, BPF_JEQ, R0, 0, PASS);
	fast_load(p, BPF_W, to, R0, 0);
}

/* --- in --- */

/* It is the sender that the agent knows, and none of this was closed. */
static void prove(struct fast_program *p)
{
	fast_load(p, BPF_W, R2, FLOW, FLOW_OF(in_index));
	fast_load(p, BPF_W, R3, CONTEXT, CTX(ifindex));
	fast_jump_if(p, BPF_JNE, R2, R3, PASS);
	for (int at = 0; at < 12; at += 4) {
		fast_load(p, BPF_W, R2, FLOW, FLOW_OF(is) + at);
		fast_load(p, BPF_W, R3, FRAME, at);
		fast_jump_if(p, BPF_JNE, R2, R3, PASS);
	}
	fast_load(p, BPF_DW, R2, STACK, FLAGS);
	fast_jump_if_value(p, BPF_JEQ, R2, 0, OPEN);
	fast_store_value(p, BPF_B, FLOW, FLOW_OF(closed), 1);
	fast_leave(p, ANSWER_PASS);
	fast_label(p, OPEN);
	fast_load(p, BPF_H, R2, FLOW, FLOW_OF(closed)); /* or refused */
	fast_jump_if_value(p, BPF_JNE, R2, 0, PASS);
}

/* The rules that it passed are in force, and it passed them lately. */
static void is_fresh(struct fast_program *p, const struct fast_maps *maps)
{
	read_generation(p, maps, R2);
	fast_load(p, BPF_W, R3, FLOW, FLOW_OF(generation));
	fast_jump_if(p, BPF_JNE, R2, R3, PASS);
	fast_call(p, BPF_FUNC_ktime_get_coarse_ns);
	fast_load(p, BPF_DW, R2, FLOW, FLOW_OF(until_ns));
	fast_jump_if(p, BPF_JGE, R0, R2, PASS);
}

static void readdress(struct fast_program *p)
{
	for (int at = 0; at < 12; at += 4) {
		fast_load(p, BPF_W, R2, FLOW, FLOW_OF(becomes) + at);
		fast_store(p, BPF_W, FRAME, at, R2);
	}
}

/* As the host would: one hop less. IPv4's checksum grows by what its TTL lost. */
static void count_hop(struct fast_program *p)
{
	fast_load(p, BPF_H, R2, FRAME, 12);
	fast_jump_if_value(p, BPF_JEQ, R2, htons(ETH_P_IPV6), HOP6);
	fast_load(p, BPF_B, R2, FRAME, IPV4_AT + 8);
	fast_compute_value(p, BPF_SUB, R2, 1);
	fast_store(p, BPF_B, FRAME, IPV4_AT + 8, R2);
	fast_load(p, BPF_H, R2, FRAME, IPV4_AT + 10);
	fast_compute_value(p, BPF_ADD, R2, htons(0x0100));
	fast_move(p, R3, R2);
	fast_compute_value(p, BPF_ADD, R3, 1); /* 0xffff and more: the carry comes round */
	fast_compute_value(p, BPF_RSH, R3, 16);
	fast_compute(p, BPF_ADD, R2, R3);
	fast_store(p, BPF_H, FRAME, IPV4_AT + 10, R2);
	fast_jump(p, SEND);
	fast_label(p, HOP6);
	fast_load(p, BPF_B, R2, FRAME, IPV6_AT + 7);
	fast_compute_value(p, BPF_SUB, R2, 1);
	fast_store(p, BPF_B, FRAME, IPV6_AT + 7, R2);
	fast_label(p, SEND);
}

static void count(struct fast_program *p)
{
	fast_load(p, BPF_W, R2, CONTEXT, CTX(len));
	fast_add_atomic(p, FLOW, FLOW_OF(bytes), R2);
	fast_set(p, R2, 1);
	fast_add_atomic(p, FLOW, FLOW_OF(packets), R2);
}

int fast_compile_in(struct fast_program *p, const struct fast_maps *maps, struct err *e)
{
	*p = (struct fast_program){ 0 };
	fast_move(p, CONTEXT, R1);
	find_flow(p, maps);
	prove(p);
	is_fresh(p, maps);
	count(p);
	readdress(p);
	count_hop(p);
	fast_move(p, R1, CONTEXT);
	fast_set(p, R2, 0); /* PACKET_HOST: kernels before 6.9 leave what the host's port saw */
	fast_call(p, BPF_FUNC_skb_change_type);
	fast_load(p, BPF_W, R1, FLOW, FLOW_OF(out_index));
	fast_set(p, R2, 0);
	fast_call(p, BPF_FUNC_redirect_peer);
	fast_exit(p);
	fast_label(p, UNKNOWN);
	fast_label(p, PASS);
	fast_leave(p, ANSWER_PASS);
	return fast_program_end(p, e);
}

/* --- out --- */

/* Of a connection that is not known, now and then, without the packets that begin and end it. */
static void tell(struct fast_program *p, const struct fast_maps *maps)
{
	fast_label(p, UNKNOWN);
	fast_load(p, BPF_DW, R2, STACK, FLAGS);
	fast_jump_if_value(p, BPF_JNE, R2, 0, PASS);
	fast_call(p, BPF_FUNC_get_prandom_u32);
	fast_compute_value(p, BPF_AND, R0, FAST_ONE_IN - 1);
	fast_jump_if_value(p, BPF_JNE, R0, 0, PASS);
	for (int at = 0; at < (int)sizeof(struct fast_key); at += 8) {
		fast_load(p, BPF_DW, R2, STACK, KEY + at);
		fast_store(p, BPF_DW, STACK, SAMPLE + at, R2);
	}
	fast_load(p, BPF_W, R2, CONTEXT, CTX(mark));
	fast_store(p, BPF_W, STACK, SAMPLE + (int)offsetof(struct fast_sample, mark), R2);
	fast_load(p, BPF_W, R2, CONTEXT, CTX(ifindex));
	fast_store(p, BPF_W, STACK, SAMPLE + (int)offsetof(struct fast_sample, out_index), R2);
	fast_map(p, R1, maps->sample);
	fast_move(p, R2, STACK);
	fast_compute_value(p, BPF_ADD, R2, SAMPLE);
	fast_set(p, R3, sizeof(struct fast_sample));
	fast_set(p, R4, 0);
	fast_call(p, BPF_FUNC_ringbuf_output);
}

int fast_compile_out(struct fast_program *p, const struct fast_maps *maps, struct err *e)
{
	*p = (struct fast_program){ 0 };
	fast_move(p, CONTEXT, R1);
	fast_load(p, BPF_W, R2, CONTEXT, CTX(mark));
	fast_jump_if_value(p, BPF_JEQ, R2, 0, PASS); /* from outside, or the host itself */
	find_flow(p, maps);
	fast_load(p, BPF_W, R2, CONTEXT, CTX(mark));
	fast_load(p, BPF_W, R3, FLOW, FLOW_OF(mark));
	fast_jump_if(p, BPF_JNE, R2, R3, PASS);
	fast_load(p, BPF_W, R2, CONTEXT, CTX(ifindex));
	fast_load(p, BPF_W, R3, FLOW, FLOW_OF(out_index));
	fast_jump_if(p, BPF_JNE, R2, R3, PASS);
	read_generation(p, maps, R7);
	fast_store(p, BPF_W, FLOW, FLOW_OF(generation), R7);
	fast_call(p, BPF_FUNC_ktime_get_coarse_ns);
	fast_compute_value(p, BPF_ADD, R0, FAST_LEASE_NS);
	fast_store(p, BPF_DW, FLOW, FLOW_OF(until_ns), R0);
	fast_jump(p, PASS);
	tell(p, maps);
	fast_label(p, PASS);
	fast_leave(p, ANSWER_PASS);
	return fast_program_end(p, e);
}
