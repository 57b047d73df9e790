/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. A scheduler sees what it shares out only when all of it comes by one place, so each direction has one: an
 * intermediate functional block, a device whose queue is a hierarchical token bucket with a class for each port, and which
 * gives packets back to where they came from. A port's packets are redirected to it where they leave for the workspace (clsact,
 * egress) and where they come from it (ingress):
 *
 *   port, clsact      bpf: skb->priority = minor of the class, whatever the workspace wrote there; action mirred: to the block
 *   block, root HTB   bpf: class = skb->priority, which is cleared: it means nothing to the host's own queues
 *     1:1             rate = all that there is
 *       1:MINOR       rate = the guarantee, ceil = the most; below it fq_codel, or a short queue where the kernel has none
 *
 * Two programs of five instructions take the place of classifiers that many kernels lack (matchall, fw, skbedit), and HTB finds
 * the class by number: the cost does not grow with the ports. The rules of the filter are untouched: what comes from a
 * workspace passes the block before the bridge sees it, what goes to one after.
 *
 * Nothing is read back. An agent that is new builds a second pair of blocks (names end in a or b), turns the ports over one by
 * one - replacing a filter is atomic - and removes the first pair.
 *
 * Unused guarantees are lent, to whoever wants, in equal shares (the quantum is the same for all).
 *
 * Sources: tc-htb(8), tc-bpf(8); net/sched/sch_htb.c, cls_bpf.c, act_mirred.c and drivers/net/ifb.c of Linux.
 */
#include "network/shape.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_link.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <linux/tc_act/tc_mirred.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "network/netlink.h"

#define ROOT_HANDLE 0x10000u
#define ROOT_CLASS 0x10001u
#define PORT_HANDLE TC_H_MAKE(TC_H_CLSACT, 0)
#define FILTER_INFO TC_H_MAKE(1u << 16, htons(ETH_P_ALL)) /* priority 1 */
#define LEAST_BYTES 1000 /* a second, for a port without guarantee: HTB knows no class that only borrows */
#define QUANTUM 60000
#define QUEUE_MS 50
#define QUEUE_BYTES_LEAST 131072 /* two segments of a sender that leaves cutting them to the device */

struct shaper {
	struct netlink link;
	bool open;
	char instance[9];
	char generation;                       /* 'a' or 'b'; 0: there are no blocks of ours */
	unsigned blocks[SHAPE_DIRECTIONS];     /* their indexes */
	bool other_left;                       /* the other pair may be there */
	bool fair;                             /* the kernel has fq_codel */
	struct shape_plan plan;                /* as applied */
};

struct shaper *shaper_new(void)
{
	struct shaper *s = mem_alloc(sizeof *s);

	s->other_left = s->fair = true;
	return s;
}

void shaper_free(struct shaper *s)
{
	if (s && s->open)
		netlink_close(&s->link);
	if (s)
		shape_plan_done(&s->plan);
	free(s);
}

static void block_name(const struct shaper *s, char generation, int direction, char out[static IF_NAMESIZE])
{
	(void)snprintf(out, IF_NAMESIZE, "cri%s%c%c", s->instance, generation, direction == SHAPE_IN ? 'i' : 'o');
}

static int lacking(int r, struct err *e)
{
	if (r != -ENOENT && r != -EOPNOTSUPP && r != -ENOSYS && r != -EINVAL)
		return r;
	char why[sizeof e->message];
	(void)snprintf(why, sizeof why, "%s", e ? e->message : "");
	(void)err_set(e, ERR_UNSUPPORTED, "rates cannot be kept on this host: %s", why);
	return err_hint(e, "the kernel must have ifb, sch_htb, sch_ingress, cls_bpf and act_mirred");
}

/* if_nametoindex would open a socket for each; all ports are looked up at each change, as one may have been made anew. */
static unsigned index_of(const struct shaper *s, const char *device)
{
	struct ifreq request = { 0 };

	(void)snprintf(request.ifr_name, sizeof request.ifr_name, "%s", device);
	return ioctl(s->link.fd, SIOCGIFINDEX, &request) < 0 ? 0 : (unsigned)request.ifr_ifindex;
}

/* --- programs --- */

#define PRIORITY ((short)offsetof(struct __sk_buff, priority))
#define LOAD(to, at) { .code = BPF_LDX | BPF_MEM | BPF_W, .dst_reg = (to), .src_reg = BPF_REG_1, .off = (at) }
#define STORE(at, from) { .code = BPF_STX | BPF_MEM | BPF_W, .dst_reg = BPF_REG_1, .src_reg = (from), .off = (at) }
#define SET(to, value) { .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = (to), .imm = (value) }
#define OR(to, value) { .code = BPF_ALU64 | BPF_OR | BPF_K, .dst_reg = (to), .imm = (value) }
#define EXIT { .code = BPF_JMP | BPF_EXIT }

static int load(const struct bpf_insn *program, uint32_t count, int *ret_fd, struct err *e)
{
	union bpf_attr a;

	memset(&a, 0, sizeof a);
	a.prog_type = BPF_PROG_TYPE_SCHED_CLS;
	a.insns = (uintptr_t)program;
	a.insn_cnt = count;
	a.license = (uintptr_t) "Apache-2.0";
	memcpy(a.prog_name, "carrel_shape", sizeof "carrel_shape");
	*ret_fd = (int)syscall(SYS_bpf, BPF_PROG_LOAD, &a, sizeof a);
	return *ret_fd < 0 ? err_errno(e, errno, "load a program that classifies packets") : 0;
}

/* On a port: every packet matches. */
static int load_mark(uint32_t minor, int *ret_fd, struct err *e)
{
	const struct bpf_insn program[] = { SET(BPF_REG_2, (int)minor), STORE(PRIORITY, BPF_REG_2), SET(BPF_REG_0, -1), EXIT };

	return load(program, ARRAY_SIZE(program), ret_fd, e);
}

/* On a block: answers with the class. */
static int load_classify(int *ret_fd, struct err *e)
{
	const struct bpf_insn program[] = { LOAD(BPF_REG_0, PRIORITY), SET(BPF_REG_2, 0), STORE(PRIORITY, BPF_REG_2),
					    OR(BPF_REG_0, ROOT_HANDLE), EXIT };

	return load(program, ARRAY_SIZE(program), ret_fd, e);
}

/* --- requests --- */

static void begin(struct netlink *n, uint16_t type, uint16_t flags, const char *what, unsigned index, uint32_t handle,
		  uint32_t parent, uint32_t info)
{
	struct tcmsg t = { .tcm_family = AF_UNSPEC, .tcm_ifindex = (int)index, .tcm_handle = handle, .tcm_parent = parent,
			   .tcm_info = info };

	netlink_begin(n, type, flags, what, &t, sizeof t);
}

static struct nlattr *begin_options(struct netlink *n, const char *kind)
{
	netlink_text(n, TCA_KIND, kind);
	return netlink_nest(n, TCA_OPTIONS | NLA_F_NESTED);
}

#define MAKE (NLM_F_CREATE | NLM_F_REPLACE)

/* Times of HTB are in units of 64 ns. */
static uint32_t burst(uint64_t rate_bytes)
{
	uint64_t bytes = rate_bytes / 500 > 16384 ? rate_bytes / 500 : 16384; /* 2 ms, as timers may be late */
	uint64_t units = bytes * (1000000000 / 64) / rate_bytes;

	return units < UINT32_MAX ? (uint32_t)units + 1 : UINT32_MAX;
}

static struct tc_ratespec spec(uint64_t rate_bytes)
{
	return (struct tc_ratespec){ .linklayer = TC_LINKLAYER_ETHERNET,
				     .rate = rate_bytes < UINT32_MAX ? (uint32_t)rate_bytes : UINT32_MAX };
}

static void put_class(struct netlink *n, unsigned block, uint32_t class, uint32_t parent, uint64_t least_bits,
		      uint64_t most_bits)
{
	uint64_t rate = least_bits / 8 > LEAST_BYTES ? least_bits / 8 : LEAST_BYTES,
		 ceil = most_bits / 8 > rate ? most_bits / 8 : rate;
	struct tc_htb_opt o = { .rate = spec(rate), .ceil = spec(ceil), .buffer = burst(rate), .cbuffer = burst(ceil),
				.quantum = QUANTUM };

	begin(n, RTM_NEWTCLASS, MAKE, "make a class of traffic", block, class, parent, 0);
	struct nlattr *options = begin_options(n, "htb");
	netlink_put(n, TCA_HTB_PARMS, &o, sizeof o);
	netlink_put(n, TCA_HTB_RATE64, &rate, sizeof rate);
	netlink_put(n, TCA_HTB_CEIL64, &ceil, sizeof ceil);
	netlink_end(n, options);
}

/* What waits longer than QUEUE_MS is worth little to its receiver. */
static void put_queue(struct netlink *n, bool fair, unsigned block, uint32_t minor, uint64_t most_bits)
{
	uint64_t bytes = most_bits / 8 / 1000 * QUEUE_MS;
	struct tc_fifo_qopt fifo = { .limit = bytes < QUEUE_BYTES_LEAST ? QUEUE_BYTES_LEAST :
					      bytes > UINT32_MAX / 2    ? UINT32_MAX / 2 :
									  (uint32_t)bytes };

	begin(n, RTM_NEWQDISC, MAKE, "make a queue", block, minor << 16, ROOT_HANDLE | minor, 0);
	netlink_text(n, TCA_KIND, fair ? "fq_codel" : "bfifo");
	if (!fair)
		netlink_put(n, TCA_OPTIONS, &fifo, sizeof fifo);
}

static void put_filter(struct netlink *n, unsigned index, uint32_t parent, int program, unsigned redirect_to)
{
	begin(n, RTM_NEWTFILTER, MAKE, "attach a filter of traffic", index, 1, parent, FILTER_INFO);
	struct nlattr *options = begin_options(n, "bpf");
	netlink_u32(n, TCA_BPF_FD, (uint32_t)program);
	netlink_text(n, TCA_BPF_NAME, "carrel");
	if (redirect_to) {
		struct tc_mirred m = { .eaction = TCA_EGRESS_REDIR, .action = TC_ACT_STOLEN, .ifindex = redirect_to };
		struct nlattr *actions = netlink_nest(n, TCA_BPF_ACT | NLA_F_NESTED),
			      *first = netlink_nest(n, 1 | NLA_F_NESTED);
		netlink_text(n, TCA_ACT_KIND, "mirred");
		struct nlattr *parameters = netlink_nest(n, TCA_ACT_OPTIONS | NLA_F_NESTED);
		netlink_put(n, TCA_MIRRED_PARMS, &m, sizeof m);
		netlink_end(n, parameters);
		netlink_end(n, first);
		netlink_end(n, actions);
	}
	netlink_end(n, options);
}

static uint32_t hook(int direction)
{
	return TC_H_MAKE(TC_H_CLSACT, direction == SHAPE_IN ? TC_H_MIN_EGRESS : TC_H_MIN_INGRESS);
}

/* --- blocks --- */

static int remove_device(struct shaper *s, const char *name, struct err *e)
{
	struct ifinfomsg i = { .ifi_index = (int)index_of(s, name) };

	if (!i.ifi_index)
		return 0;
	netlink_begin(&s->link, RTM_DELLINK, 0, "remove a block", &i, sizeof i);
	return netlink_run(&s->link, ENODEV, e);
}

static int remove_pair(struct shaper *s, char generation, struct err *e)
{
	for (int d = 0; d < SHAPE_DIRECTIONS; d++) {
		char name[IF_NAMESIZE];
		block_name(s, generation, d, name);
		int r = remove_device(s, name, e);
		if (r < 0)
			return err_wrap(e, "%s", name);
	}
	return 0;
}

static int make_device(struct shaper *s, const char *name, unsigned *ret_index, struct err *e)
{
	struct ifinfomsg i = { .ifi_flags = IFF_UP, .ifi_change = IFF_UP };
	struct netlink *n = &s->link;

	netlink_begin(n, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, "make a block", &i, sizeof i);
	netlink_text(n, IFLA_IFNAME, name);
	struct nlattr *info = netlink_nest(n, IFLA_LINKINFO | NLA_F_NESTED);
	netlink_text(n, IFLA_INFO_KIND, "ifb");
	netlink_end(n, info);
	int r = netlink_run(n, 0, e);
	if (r >= 0 && !(*ret_index = index_of(s, name)))
		return err_errno(e, errno, "find what was made");
	return r;
}

static int make_block(struct shaper *s, char generation, int direction, int program, uint64_t total_bits, struct err *e)
{
	char name[IF_NAMESIZE];
	struct tc_htb_glob root = { .version = 3, .rate2quantum = 10 };
	struct netlink *n = &s->link;
	unsigned *index = &s->blocks[direction];

	block_name(s, generation, direction, name);
	int r = make_device(s, name, index, e);
	if (r < 0)
		return err_wrap(e, "%s", name);
	begin(n, RTM_NEWQDISC, MAKE, "make a token bucket", *index, ROOT_HANDLE, TC_H_ROOT, 0);
	struct nlattr *options = begin_options(n, "htb");
	netlink_put(n, TCA_HTB_INIT, &root, sizeof root);
	netlink_end(n, options);
	put_class(n, *index, ROOT_CLASS, ROOT_HANDLE, total_bits, total_bits);
	put_filter(n, *index, ROOT_HANDLE, program, 0);
	r = netlink_run(n, 0, e);
	return r < 0 ? err_wrap(e, "%s", name) : 0;
}

static int make_pair(struct shaper *s, uint64_t total_bits, struct err *e)
{
	char name[IF_NAMESIZE];
	own_fd int program = -1;

	/* the last that is made: without it the pair is half, and nothing is redirected to it */
	block_name(s, 'a', SHAPE_OUT, name);
	char generation = index_of(s, name) ? 'b' : 'a';
	int r = remove_pair(s, generation, e);
	if (r >= 0)
		r = load_classify(&program, e);
	for (int d = 0; r >= 0 && d < SHAPE_DIRECTIONS; d++)
		r = make_block(s, generation, d, program, total_bits, e);
	if (r < 0) {
		(void)!remove_pair(s, generation, NULL);
		return r;
	}
	s->generation = generation;
	return 0;
}

/* --- ports --- */

static int put_port(struct shaper *s, const struct shape_class *c, struct err *e)
{
	struct netlink *n = &s->link;
	own_fd int program = -1;
	int r = load_mark(c->minor, &program, e);

	if (r < 0)
		return r;
	for (int d = 0; d < SHAPE_DIRECTIONS; d++) {
		if (!c->used[d])
			continue;
		put_class(n, s->blocks[d], ROOT_HANDLE | c->minor, ROOT_CLASS, c->least_bits[d], c->most_bits[d]);
		put_queue(n, s->fair, s->blocks[d], c->minor, c->most_bits[d]);
	}
	if ((r = netlink_run(n, 0, e)) == -ENOENT && s->fair) {
		s->fair = false; /* no fq_codel */
		return put_port(s, c, e);
	}
	if (r < 0)
		return r;
	begin(n, RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, "prepare the port", c->index, PORT_HANDLE, TC_H_CLSACT, 0);
	netlink_text(n, TCA_KIND, "clsact");
	if ((r = netlink_run(n, EEXIST, e)) < 0)
		return r;
	for (int d = 0; d < SHAPE_DIRECTIONS; d++)
		if (c->used[d])
			put_filter(n, c->index, hook(d), program, s->blocks[d]);
	return netlink_run(n, 0, e);
}

/* The device may be gone, or somebody else's by now: an index is not used again soon, a name may be. */
static int free_hook(struct shaper *s, unsigned index, int direction, struct err *e)
{
	begin(&s->link, RTM_DELTFILTER, 0, "detach a filter of traffic", index, 0, hook(direction), FILTER_INFO);
	int r = netlink_run(&s->link, ENODEV, NULL);
	return r < 0 && r != -EINVAL && r != -ENOENT ? err_errno(e, -r, "detach a filter of traffic") : 0;
}

/* clsact stays: the short way for packets (fast_kernel.c) may have its programs there. */
static int free_port(struct shaper *s, unsigned index, struct err *e)
{
	int r = 0;

	for (int d = 0; d < SHAPE_DIRECTIONS && r == 0; d++)
		r = free_hook(s, index, d, e);
	return r;
}

static int remove_classes(struct shaper *s, const struct shape_class *c, const bool which[SHAPE_DIRECTIONS], struct err *e)
{
	for (int d = 0; d < SHAPE_DIRECTIONS; d++)
		if (which[d])
			begin(&s->link, RTM_DELTCLASS, 0, "remove a class of traffic", s->blocks[d], ROOT_HANDLE | c->minor, 0,
			      0);
	return netlink_run(&s->link, ENOENT, e);
}

static bool same(const struct shape_class *a, const struct shape_class *b)
{
	return a->index == b->index && memcmp(a->used, b->used, sizeof a->used) == 0 &&
	       memcmp(a->least_bits, b->least_bits, sizeof a->least_bits) == 0 &&
	       memcmp(a->most_bits, b->most_bits, sizeof a->most_bits) == 0;
}

/* `had` NULL: the port had nothing. What it had in a direction that it does not use any more goes. */
static int change_port(struct shaper *s, const struct shape_class *had, struct shape_class *c, struct err *e)
{
	bool unused[SHAPE_DIRECTIONS];
	int r = 0;

	c->index = index_of(s, c->port);
	if (!c->index || (had && same(had, c)))
		return 0;
	if ((r = fault_point("shape.port")) > 0)
		r = err_errno(e, r, "shape");
	if (r < 0 || (r = put_port(s, c, e)) < 0)
		return r;
	for (int d = 0; d < SHAPE_DIRECTIONS; d++)
		if ((unused[d] = had && had->used[d] && !c->used[d]) && had->index == c->index &&
		    (r = free_hook(s, c->index, d, e)) < 0)
			return r;
	return had ? remove_classes(s, had, unused, e) : 0;
}

static int remove_port(struct shaper *s, const struct shape_class *c, struct err *e)
{
	int r = c->index ? free_port(s, c->index, e) : 0;

	return r < 0 ? r : remove_classes(s, c, c->used, e);
}

static struct shape_class *find(const struct shape_plan *plan, uint64_t number)
{
	size_t from = 0, to = plan->count;

	while (from < to) {
		size_t middle = from + (to - from) / 2;
		if (plan->classes[middle].number == number)
			return &plan->classes[middle];
		if (plan->classes[middle].number < number)
			from = middle + 1;
		else
			to = middle;
	}
	return NULL;
}

/* --- all of it --- */

static int open_once(struct shaper *s, const struct shape_intent *intent, struct err *e)
{
	if (s->open)
		return 0;
	int r = netlink_open(&s->link, -1, e);
	if (r < 0)
		return r;
	s->open = true;
	(void)snprintf(s->instance, sizeof s->instance, "%s", intent->instance);
	return 0;
}

/* Ports that an earlier process shaped and that shall be shaped no more. */
static int free_others(struct shaper *s, const struct shape_intent *intent, const struct shape_plan *plan, struct err *e)
{
	for (size_t i = 0; i < intent->port_count; i++) {
		unsigned index = find(plan, intent->ports[i].attachment->number) ? 0 : index_of(s, intent->ports[i].port);
		int r = index ? free_port(s, index, e) : 0;
		if (r < 0)
			return err_wrap(e, "%s", intent->ports[i].port);
	}
	return 0;
}

static int settle(struct shaper *s, const struct shape_intent *intent, struct shape_plan *plan, struct err *e)
{
	int r = 0;

	for (size_t i = 0; i < plan->count; i++) {
		const struct shape_class *had = find(&s->plan, plan->classes[i].number);
		if ((r = change_port(s, had, &plan->classes[i], e)) < 0)
			return err_wrap(e, "%s", plan->classes[i].port);
	}
	for (size_t i = 0; i < s->plan.count; i++)
		if (!find(plan, s->plan.classes[i].number) && (r = remove_port(s, &s->plan.classes[i], e)) < 0)
			return err_wrap(e, "%s", s->plan.classes[i].port);
	if (!s->other_left)
		return 0;
	if ((r = free_others(s, intent, plan, e)) < 0)
		return r;
	for (int other = 'a'; other <= 'b'; other++)
		if (other != s->generation && (r = remove_pair(s, (char)other, e)) < 0)
			return r;
	s->other_left = false;
	return 0;
}

/* After a failure it is not known what the kernel has: the next call builds anew. */
static void forget(struct shaper *s)
{
	shape_plan_done(&s->plan);
	s->generation = 0;
	s->other_left = true;
}

static int prepare(struct shaper *s, const struct shape_plan *plan, struct err *e)
{
	if (!s->generation)
		return plan->count ? make_pair(s, plan->total_bits, e) : 0;
	if (!s->plan.count || s->plan.total_bits == plan->total_bits)
		return 0;
	for (int d = 0; d < SHAPE_DIRECTIONS; d++)
		put_class(&s->link, s->blocks[d], ROOT_CLASS, ROOT_HANDLE, plan->total_bits, plan->total_bits);
	return netlink_run(&s->link, 0, e);
}

int shape_apply(struct shaper *s, const struct shape_intent *intent, struct err *e)
{
	struct shape_plan plan = { 0 };
	int r = open_once(s, intent, e);

	if (r < 0 || (r = shape_plan(intent, &s->plan, &plan, e)) < 0)
		return r;
	if ((r = prepare(s, &plan, e)) >= 0)
		r = settle(s, intent, &plan, e);
	if (r < 0) {
		shape_plan_done(&plan);
		forget(s);
		return lacking(r, e);
	}
	shape_plan_done(&s->plan);
	s->plan = plan;
	if (!plan.count && s->generation) {
		r = remove_pair(s, s->generation, e);
		s->generation = 0;
	}
	return r;
}

uint64_t shape_link_bits(void)
{
	own_strbuf struct str routes = { 0 }, speed = { 0 };
	uint64_t mbits = 0;
	char device[IF_NAMESIZE] = "";

	if (fs_read_file(AT_FDCWD, "/proc/net/route", 1 << 20, &routes, NULL) < 0)
		return 0;
	for (const char *line = str_text(&routes); line && !*device; line = strchr(line, '\n')) {
		line += *line == '\n';
		const char *tab = strchr(line, '\t');
		if (tab && tab - line < IF_NAMESIZE && str_starts(tab, "\t00000000\t"))
			(void)snprintf(device, sizeof device, "%.*s", (int)(tab - line), line);
	}
	own_str char *path = mem_printf("/sys/class/net/%s/speed", device);
	if (!*device || fs_read_file(AT_FDCWD, path, 64, &speed, NULL) < 0)
		return 0;
	if (speed.length && speed.bytes[speed.length - 1] == '\n')
		speed.bytes[--speed.length] = '\0';
	return str_to_u64(str_text(&speed), UINT32_MAX / 2, &mbits) < 0 ? 0 : mbits * 1000000;
}
