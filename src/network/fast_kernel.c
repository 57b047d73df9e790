/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Programs sit in clsact, which kernels have had since 4.5, beside the redirections of shape.c (these have priority 1, the
 * fast path 2; a port has one or the other). They vanish with the port. Nothing is pinned: a new agent finds the maps by the
 * program that is at a port, and the last program that goes takes them with it.
 */
#include "network/fast_kernel.h"

#include <errno.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/own.h"

#define RING_BYTES    65536
#define PORTS_MOST    65536
#define PRIORITY      2u
#define FILTER_INFO   TC_H_MAKE(PRIORITY << 16, htons(ETH_P_ALL))
#define CLSACT_HANDLE TC_H_MAKE(TC_H_CLSACT, 0)
#define HOOK_IN       TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS)
#define HOOK_OUT      TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_EGRESS)

static int bpf(int command, union bpf_attr *a) { return (int)syscall(SYS_bpf, command, a, sizeof *a); }

/* --- maps --- */

static const struct {
	const char *name;
	size_t place;
	uint32_t type, key, value, most, flags;
} kinds[] = {
	{ "carrel_flows", offsetof(struct fast_maps, flows), BPF_MAP_TYPE_HASH, sizeof(struct fast_key),
	  sizeof(struct fast_flow), FAST_FLOWS_MOST, BPF_F_NO_PREALLOC },
	{ "carrel_rules", offsetof(struct fast_maps, rules), BPF_MAP_TYPE_ARRAY, 4, 4, 1, 0 },
	{ "carrel_sample", offsetof(struct fast_maps, sample), BPF_MAP_TYPE_RINGBUF, 0, 0, RING_BYTES, 0 },
	{ "carrel_totals", offsetof(struct fast_maps, totals), BPF_MAP_TYPE_HASH, 4, sizeof(struct fast_total), PORTS_MOST,
	  BPF_F_NO_PREALLOC },
};

static int *place_of(struct fast_maps *m, size_t kind) { return (int *)(void *)((char *)m + kinds[kind].place); }

void fast_maps_close(struct fast_maps *m)
{
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (*place_of(m, i) >= 0) {
			(void)close(*place_of(m, i));
			*place_of(m, i) = -1;
		}
}

static void none(struct fast_maps *m)
{
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		*place_of(m, i) = -1;
}

int fast_maps_make(struct fast_maps *ret_maps, struct err *e)
{
	struct fast_maps m;

	none(&m);
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		union bpf_attr a;
		memset(&a, 0, sizeof a);
		a.map_type = kinds[i].type;
		a.key_size = kinds[i].key;
		a.value_size = kinds[i].value;
		a.max_entries = kinds[i].most;
		a.map_flags = kinds[i].flags;
		(void)snprintf(a.map_name, sizeof a.map_name, "%s", kinds[i].name);
		if ((*place_of(&m, i) = bpf(BPF_MAP_CREATE, &a)) < 0) {
			int number = errno;
			fast_maps_close(&m);
			return err_errno(e, number, "make map %s", kinds[i].name);
		}
	}
	*ret_maps = m;
	return 0;
}

static int object_info(int fd, void *info, size_t length)
{
	union bpf_attr a;

	memset(&a, 0, sizeof a);
	a.info.bpf_fd = (uint32_t)fd;
	a.info.info_len = (uint32_t)length;
	a.info.info = (uintptr_t)info;
	return bpf(BPF_OBJ_GET_INFO_BY_FD, &a);
}

static int by_number(int command, uint32_t number)
{
	union bpf_attr a;

	memset(&a, 0, sizeof a);
	a.map_id = number; /* the same place for programs */
	return bpf(command, &a);
}

static bool is_kind(const struct bpf_map_info *i, size_t kind)
{
	return strcmp(i->name, kinds[kind].name) == 0 && i->type == kinds[kind].type && i->key_size == kinds[kind].key &&
	       i->value_size == kinds[kind].value && i->max_entries == kinds[kind].most;
}

static void take_map(struct fast_maps *m, uint32_t number)
{
	struct bpf_map_info info = { 0 };
	own_fd int fd = by_number(BPF_MAP_GET_FD_BY_ID, number);

	if (fd < 0 || object_info(fd, &info, sizeof info) < 0)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (is_kind(&info, i) && *place_of(m, i) < 0) {
			*place_of(m, i) = TAKE_FD(fd);
			return;
		}
}

int fast_maps_find(uint32_t program, struct fast_maps *ret_maps, struct err *e)
{
	uint32_t numbers[8] = { 0 };
	struct bpf_prog_info info = { .nr_map_ids = ARRAY_SIZE(numbers), .map_ids = (uintptr_t)numbers };
	own_fd int fd = by_number(BPF_PROG_GET_FD_BY_ID, program);
	struct fast_maps m;

	none(&m);
	if (fd < 0 || object_info(fd, &info, sizeof info) < 0)
		return err_errno(e, errno, "find program %u", program);
	for (size_t i = 0; i < info.nr_map_ids && i < ARRAY_SIZE(numbers); i++)
		take_map(&m, numbers[i]);
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (*place_of(&m, i) < 0) {
			fast_maps_close(&m);
			return err_set(e, ERR_NOT_FOUND, "program %u has other maps", program);
		}
	*ret_maps = m;
	return 0;
}

int fast_maps_bind(const struct fast_maps *m, int program, struct err *e)
{
	const int others[] = { m->sample, m->totals };

	for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
		union bpf_attr a;
		memset(&a, 0, sizeof a);
		a.prog_bind_map.prog_fd = (uint32_t)program;
		a.prog_bind_map.map_fd = (uint32_t)others[i];
		if (bpf(BPF_PROG_BIND_MAP, &a) < 0)
			return err_errno(e, errno, "bind a map to a program");
	}
	return 0;
}

static int element(int command, int map, const void *key, void *value, uint64_t flags)
{
	union bpf_attr a;

	memset(&a, 0, sizeof a);
	a.map_fd = (uint32_t)map;
	a.key = (uintptr_t)key;
	a.value = (uintptr_t)value;
	a.flags = flags;
	return bpf(command, &a) < 0 ? -errno : 0;
}

int fast_flow_get(const struct fast_maps *m, const struct fast_key *key, struct fast_flow *ret_flow)
{
	return element(BPF_MAP_LOOKUP_ELEM, m->flows, key, ret_flow, 0);
}

int fast_flow_put(const struct fast_maps *m, const struct fast_key *key, const struct fast_flow *flow)
{
	struct fast_flow copy = *flow;
	return element(BPF_MAP_UPDATE_ELEM, m->flows, key, &copy, BPF_NOEXIST);
}

int fast_flow_take(const struct fast_maps *m, const struct fast_key *key, struct fast_flow *ret_flow)
{
	return element(BPF_MAP_LOOKUP_AND_DELETE_ELEM, m->flows, key, ret_flow, 0);
}

void fast_flows_done(struct fast_flows *f)
{
	free(f->keys);
	free(f->flows);
	*f = (struct fast_flows){ 0 };
}

#define AT_ONCE 1024

/* A bucket of the hash is read whole or not at all: with room for AT_ONCE one that does not fit (ENOSPC) cannot be. */
int fast_flows_read(const struct fast_maps *m, struct fast_flows *ret_flows, struct err *e)
{
	struct fast_flows f = { 0 };
	uint32_t place[4] = { 0 };
	int number = 0;

	for (bool first = true; number == 0; first = false) {
		union bpf_attr a;
		f.keys = mem_grow_array(f.keys, f.count + AT_ONCE, sizeof *f.keys);
		f.flows = mem_grow_array(f.flows, f.count + AT_ONCE, sizeof *f.flows);
		memset(&a, 0, sizeof a);
		a.batch.in_batch = first ? 0 : (uintptr_t)place;
		a.batch.out_batch = (uintptr_t)place;
		a.batch.keys = (uintptr_t)(f.keys + f.count);
		a.batch.values = (uintptr_t)(f.flows + f.count);
		a.batch.count = AT_ONCE;
		a.batch.map_fd = (uint32_t)m->flows;
		number = bpf(BPF_MAP_LOOKUP_BATCH, &a) < 0 ? errno : 0;
		if (number == 0 || number == ENOENT) /* ENOENT: these are the last */
			f.count += a.batch.count;
	}
	if (number != ENOENT) {
		fast_flows_done(&f);
		return err_errno(e, number, "read the flows of the fast path");
	}
	*ret_flows = f;
	return 0;
}

int fast_rules_get(const struct fast_maps *m, uint32_t *ret_generation, struct err *e)
{
	uint32_t zero = 0;
	int r = element(BPF_MAP_LOOKUP_ELEM, m->rules, &zero, ret_generation, 0);
	return r < 0 ? err_errno(e, -r, "read the number of the rules") : 0;
}

int fast_rules_put(const struct fast_maps *m, uint32_t generation, struct err *e)
{
	uint32_t zero = 0;
	int r = element(BPF_MAP_UPDATE_ELEM, m->rules, &zero, &generation, 0);
	return r < 0 ? err_errno(e, -r, "write the number of the rules") : 0;
}

struct fast_total fast_total_get(const struct fast_maps *m, uint32_t out_index)
{
	struct fast_total total = { 0 };

	if (element(BPF_MAP_LOOKUP_ELEM, m->totals, &out_index, &total, 0) < 0)
		total = (struct fast_total){ 0 };
	return total;
}

/* Without memory for it a count is lost. */
void fast_total_add(const struct fast_maps *m, uint32_t out_index, uint64_t packets, uint64_t bytes)
{
	struct fast_total total = fast_total_get(m, out_index);

	total.packets += packets;
	total.bytes += bytes;
	(void)element(BPF_MAP_UPDATE_ELEM, m->totals, &out_index, &total, 0);
}

/* The next one is asked for before one goes, as the order is by what is there. */
void fast_totals_sweep(const struct fast_maps *m, fast_total_stays *stays, const void *context)
{
	uint32_t at, next;
	int r = element(BPF_MAP_GET_NEXT_KEY, m->totals, NULL, &next, 0);

	for (uint32_t left = PORTS_MOST; r == 0 && left; left--) {
		at = next;
		r = element(BPF_MAP_GET_NEXT_KEY, m->totals, &at, &next, 0);
		if (!stays(context, at))
			(void)element(BPF_MAP_DELETE_ELEM, m->totals, &at, NULL, 0);
	}
}

/* --- the ring (linux: Documentation/bpf/ringbuf.rst; kernel/bpf/ringbuf.c) --- */

int fast_ring_open(int map_fd, struct fast_ring *ret_ring, struct err *e)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	void *consumer = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, map_fd, 0);

	if (consumer == MAP_FAILED)
		return err_errno(e, errno, "map the ring of samples");
	/* The data is mapped twice in a row, so that a record is always in one piece. */
	void *producer = mmap(NULL, page + (size_t)2 * RING_BYTES, PROT_READ, MAP_SHARED, map_fd, (off_t)page);
	if (producer == MAP_FAILED) {
		int number = errno;
		(void)munmap(consumer, page);
		return err_errno(e, number, "map the ring of samples");
	}
	*ret_ring = (struct fast_ring){ consumer, producer, page };
	return 0;
}

void fast_ring_close(struct fast_ring *r)
{
	if (r->consumer) {
		(void)munmap(r->consumer, r->page);
		(void)munmap(r->producer, r->page + (size_t)2 * RING_BYTES);
	}
	*r = (struct fast_ring){ 0 };
}

bool fast_ring_next(struct fast_ring *r, struct fast_sample *ret_sample)
{
	for (;;) {
		unsigned long read = *(unsigned long *)r->consumer,
			      written = __atomic_load_n((unsigned long *)r->producer, __ATOMIC_ACQUIRE);
		if (read >= written)
			return false;
		const unsigned char *record = (const unsigned char *)r->producer + r->page + (read & (RING_BYTES - 1));
		uint32_t length = __atomic_load_n((const uint32_t *)(const void *)record, __ATOMIC_ACQUIRE);
		if (length & BPF_RINGBUF_BUSY_BIT)
			return false;
		uint32_t bytes = length & ~BPF_RINGBUF_DISCARD_BIT;
		bool good = !(length & BPF_RINGBUF_DISCARD_BIT) && bytes == sizeof *ret_sample;
		if (good)
			memcpy(ret_sample, record + BPF_RINGBUF_HDR_SZ, sizeof *ret_sample);
		__atomic_store_n((unsigned long *)r->consumer, read + ((bytes + BPF_RINGBUF_HDR_SZ + 7) & ~7u),
				 __ATOMIC_RELEASE);
		if (good)
			return true;
	}
}

void fast_ring_skip(struct fast_ring *r)
{
	struct fast_sample ignored;
	for (size_t i = 0; i < RING_BYTES / sizeof ignored && fast_ring_next(r, &ignored); i++)
		;
}

/* --- hooks --- */

static void begin(struct netlink *n, uint16_t type, uint16_t flags, const char *what, unsigned index, uint32_t handle,
		  uint32_t parent, uint32_t info)
{
	struct tcmsg t = {
		.tcm_family = AF_UNSPEC, .tcm_ifindex = (int)index, .tcm_handle = handle, .tcm_parent = parent, .tcm_info = info
	};

	netlink_begin(n, type, flags, what, &t, sizeof t);
}

static void put_filter(struct netlink *n, unsigned index, uint32_t hook, int program)
{
	begin(n, RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_REPLACE, "attach a program of the fast path", index, 1, hook,
	      FILTER_INFO);
	netlink_text(n, TCA_KIND, "bpf");
	struct nlattr *options = netlink_nest(n, TCA_OPTIONS | NLA_F_NESTED);
	netlink_u32(n, TCA_BPF_FD, (uint32_t)program);
	netlink_text(n, TCA_BPF_NAME, "carrel_fast");
	netlink_u32(n, TCA_BPF_FLAGS, TCA_BPF_FLAG_ACT_DIRECT);
	netlink_end(n, options);
}

int fast_attach(struct netlink *n, unsigned index, int in_program, int out_program, struct err *e)
{
	begin(n, RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, "prepare the port", index, CLSACT_HANDLE, TC_H_CLSACT, 0);
	netlink_text(n, TCA_KIND, "clsact");
	int r = netlink_run(n, EEXIST, e);
	if (r < 0)
		return r;
	put_filter(n, index, HOOK_OUT, out_program);
	put_filter(n, index, HOOK_IN, in_program);
	return netlink_run(n, 0, e);
}

int fast_detach(struct netlink *n, unsigned index, struct err *e)
{
	static const uint32_t hooks[] = { HOOK_IN, HOOK_OUT };

	for (size_t i = 0; i < ARRAY_SIZE(hooks); i++) {
		begin(n, RTM_DELTFILTER, 0, "detach a program of the fast path", index, 0, hooks[i], FILTER_INFO);
		int r = netlink_run(n, 0, NULL);
		if (r < 0 && r != -ENOENT && r != -ENODEV && r != -EINVAL) /* EINVAL: there is no clsact */
			return err_errno(e, -r, "detach a program of the fast path");
	}
	return 0;
}

static void seen_filter(void *data, const struct nlmsghdr *message)
{
	const char *at = (const char *)NLMSG_DATA(message) + NLMSG_ALIGN(sizeof(struct tcmsg)),
		   *end = (const char *)message + message->nlmsg_len;
	const struct nlattr *options = message->nlmsg_type == RTM_NEWTFILTER ? netlink_find(at, end, TCA_OPTIONS) : NULL,
			    *number;

	if (!options)
		return;
	const char *inner = (const char *)options + NLA_HDRLEN;
	if ((number = netlink_find(inner, (const char *)options + options->nla_len, TCA_BPF_ID)))
		memcpy(data, (const char *)number + NLA_HDRLEN, sizeof(uint32_t));
}

int fast_attached(struct netlink *n, unsigned index, uint32_t *ret_program, struct err *e)
{
	*ret_program = 0;
	begin(n, RTM_GETTFILTER, 0, "look for a program of the fast path", index, 1, HOOK_IN, FILTER_INFO);
	netlink_text(n, TCA_KIND, "bpf");
	int r = netlink_ask(n, ENOENT, seen_filter, ret_program, NULL);
	return r < 0 && r != -ENOENT && r != -ENODEV && r != -EINVAL ? err_errno(e, -r, "look for a program of the fast path")
								     : 0;
}
