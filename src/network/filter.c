/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Makes the kernel have what the intent says. Two ways, one outcome:
 *
 *   whole    nft reads the ruleset's text: one transaction replaces both tables. At first, when a network changes, after drift.
 *   by part  what differs from the ruleset that was applied: new chains and sets by nft (nobody refers to them yet), then the
 *            elements in one netlink transaction - this is the moment when the rules change -, then what nobody refers to any
 *            more.
 *            Known rules need elements only, and no process is started.
 *
 * States: `known` is what the kernel has, as far as we made it; when `whole` is set nothing is known and the next apply is
 * whole. After a failure `whole` is set. The kernel's generation number tells whether anybody changed anything since; a digest
 * whether it was ours.
 */
#include "network/filter_private.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "base/fault.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/proc.h"
#include "network/filter_compile.h"
#include "network/filter_flows.h"

#define JUDGE_TIMES 2

static void seat_done(struct seat *s)
{
	texts_done(&s->rules.allow);
	texts_done(&s->rules.deny);
	texts_done(&s->rules.from);
}

struct filter *filter_new(const char *instance)
{
	struct filter *f = mem_alloc(sizeof *f);
	(void)snprintf(f->instance, sizeof f->instance, "%s", instance);
	f->whole = true;
	return f;
}

void filter_counts_done(struct filter_counts *c)
{
	free(c->items);
	*c = (struct filter_counts){ 0 };
}

void filter_free(struct filter *f)
{
	if (!f)
		return;
	filter_netlink_free(f->netlink);
	filter_ruleset_done(&f->known);
	for (size_t i = 0; i < f->seat_count; i++)
		seat_done(&f->seats[i]);
	free(f->seats);
	filter_counts_done(&f->past);
	free(f);
}

/* nft. */

static void read_all(int fd, struct str *to)
{
	char bytes[2048];
	ssize_t got = pread(fd, bytes, sizeof bytes, 0);
	if (got > 0)
		str_add(to, bytes, (size_t)got);
}

static int nft_run(const struct str *text, bool check_only, struct err *e)
{
	const char *const argv[] = { "nft", check_only ? "-cf" : "-f", "-", NULL };
	own_fd int input = memfd_create("nft-input", MFD_CLOEXEC), output = memfd_create("nft-output", MFD_CLOEXEC), pidfd = -1;
	const struct proc_fd fds[] = { { 0, input }, { 1, output }, { 2, output } };
	own_strbuf struct str said = { 0 };
	int status, number = fault_point("filter-nft");

	if (number)
		return err_errno(e, number, "cannot run nft");
	if (input < 0 || output < 0)
		return err_errno(e, errno, "no memory for nft's input");
	for (size_t at = 0; at < text->length;) {
		ssize_t put = pwrite(input, text->bytes + at, text->length - at, (off_t)at);
		if (put < 0)
			return err_errno(e, errno, "cannot write nft's input");
		at += (size_t)put;
	}
	if (proc_start(&(struct proc_spawn){ .argv = argv, .fds = fds, .fd_count = ARRAY_SIZE(fds),
					     .die_with_parent = true }, &pidfd, NULL, e) < 0) {
		(void)err_wrap(e, "the network filter cannot be applied");
		return err_hint(e, "install the package nftables: workspaces are not started without a filter");
	}
	if (proc_wait(pidfd, &status, e) < 0)
		return err_wrap(e, "nft");
	if (!status)
		return 0;
	read_all(output, &said);
	return err_set(e, ERR_UNAVAILABLE, "the network filter cannot be applied: nft ended with status %d: %.600s", status,
		       str_text(&said));
}

static int open_netlink(struct filter *f, struct err *e)
{
	return f->netlink ? 0 : filter_netlink_open(&f->netlink, e);
}

void filter_note_generation(struct filter *f, int transactions)
{
	uint32_t now = 0;
	struct err ignored;

	f->digested &= transactions < 0;
	if (filter_netlink_generation(f->netlink, &now, &ignored) < 0)
		now = 0;
	f->generation = f->generation && (transactions < 0 || now == f->generation + (unsigned)transactions) ? now : 0;
}

/* Seats. */

static struct seat *seat_find(struct filter *f, const char *id)
{
	for (size_t i = 0; i < f->seat_count; i++)
		if (str_eq(f->seats[i].id, id))
			return &f->seats[i];
	return NULL;
}

static void copy_texts(struct texts *to, const struct texts *from)
{
	for (size_t i = 0; i < from->count; i++)
		texts_add(to, from->items[i]);
}

static void seat_add(struct filter *f, const struct filter_party *p)
{
	MEM_PUSH_ROOM(f->seats, f->seat_count, f->seat_room);
	struct seat *s = &f->seats[f->seat_count++];

	*s = (struct seat){ .interface_count = p->interface_count };
	(void)snprintf(s->id, sizeof s->id, "%s", p->id);
	copy_texts(&s->rules.allow, &p->local->spec->allow);
	copy_texts(&s->rules.deny, &p->local->spec->deny);
	copy_texts(&s->rules.from, &p->local->spec->from);
	for (size_t i = 0; i < p->interface_count; i++) {
		const struct filter_interface *n = &p->interfaces[i];
		(void)snprintf(s->interfaces[i].port, IFNAMSIZ, "%s", n->attachment->port);
		(void)snprintf(s->interfaces[i].bridge, IFNAMSIZ, "%s", n->network->bridge);
		s->interfaces[i].mark = (uint32_t)n->attachment->number;
		memcpy(s->interfaces[i].has, n->has, sizeof n->has);
		memcpy(s->interfaces[i].address, n->address, sizeof n->address);
	}
}

static void seats_set(struct filter *f, const struct filter_model *m)
{
	for (size_t i = 0; i < f->seat_count; i++)
		seat_done(&f->seats[i]);
	f->seat_count = 0;
	for (size_t i = 0; i < m->party_count; i++)
		if (m->parties[i].local)
			seat_add(f, &m->parties[i]);
}

/* Counters. */

static void count_add(struct filter_counts *c, const char *workspace, enum filter_side side, uint32_t code,
		      const struct spec *rules, uint64_t packets, uint64_t bytes)
{
	own_strbuf struct str words = { 0 };

	filter_code_text(code, rules, &words);
	for (size_t i = 0; i < c->count; i++) {
		struct filter_count *item = &c->items[i];
		if (item->side == side && str_eq(item->workspace, workspace) && str_eq(item->rule, str_text(&words))) {
			item->packets += packets;
			item->bytes += bytes;
			return;
		}
	}
	c->items = mem_grow_array(c->items, c->count + 1, sizeof *c->items);
	struct filter_count *item = &c->items[c->count++];
	*item = (struct filter_count){ .side = side, .allowed = filter_code_allows(code), .packets = packets, .bytes = bytes };
	(void)snprintf(item->workspace, sizeof item->workspace, "%s", workspace);
	(void)snprintf(item->rule, sizeof item->rule, "%s", str_text(&words));
}

enum count_key { KEY_MARK_CODE, KEY_MARK, KEY_IPV4_CODE, KEY_IPV6_CODE, KEY_PORT_CODE };

struct counting {
	struct filter *f;
	struct filter_counts *to;
	enum count_key key;
	enum filter_side side;
	bool any;
};

static bool seat_has(const struct seat *s, size_t i, enum count_key kind, const unsigned char *key)
{
	bool ipv6 = kind == KEY_IPV6_CODE;

	switch (kind) {
	case KEY_MARK_CODE:
	case KEY_MARK:
		return !memcmp(&s->interfaces[i].mark, key, 4);
	case KEY_PORT_CODE:
		return !strncmp(s->interfaces[i].port, (const char *)key, IFNAMSIZ);
	case KEY_IPV4_CODE:
	case KEY_IPV6_CODE:
		return s->interfaces[i].has[ipv6] && !memcmp(s->interfaces[i].address[ipv6].bytes, key, ipv6 ? 16 : 4);
	}
	return false;
}

static void counter_seen(void *context, const unsigned char *key, size_t key_length, uint64_t packets, uint64_t bytes)
{
	static const size_t lengths[] = { 8, 4, 8, 20, 20 };
	struct counting *c = context;
	uint32_t code = CODE_INVALID;

	c->any = true;
	if (key_length < lengths[c->key])
		return;
	if (c->key != KEY_MARK)
		memcpy(&code, key + lengths[c->key] - 4, sizeof code);
	for (size_t s = 0; s < c->f->seat_count; s++)
		for (size_t i = 0; i < c->f->seats[s].interface_count; i++)
			if (seat_has(&c->f->seats[s], i, c->key, key)) {
				count_add(c->to, c->f->seats[s].id, c->side, code, &c->f->seats[s].rules, packets, bytes);
				return;
			}
}

/* 1: something was counted. */
static int read_counters(struct filter *f, struct filter_counts *to, struct err *e)
{
	static const struct {
		const char *set;
		bool bridge;
		enum count_key key;
		enum filter_side side;
	} sets[] = {
		{ "out_hits", false, KEY_MARK_CODE, FILTER_OUT }, { "invalid", false, KEY_MARK, FILTER_OUT },
		{ "in_hits4", false, KEY_IPV4_CODE, FILTER_IN }, { "in_hits6", false, KEY_IPV6_CODE, FILTER_IN },
		{ "refused", true, KEY_PORT_CODE, FILTER_OUT }, { "out_hits", true, KEY_PORT_CODE, FILTER_OUT },
		{ "in_hits", true, KEY_PORT_CODE, FILTER_IN },
	};
	char table[FILTER_TABLE];
	bool any = false;

	if (filter_table_name(f->instance, table, e) < 0 || open_netlink(f, e) < 0)
		return -EINVAL;
	for (size_t i = 0; i < ARRAY_SIZE(sets); i++) {
		struct counting c = { f, to, sets[i].key, sets[i].side, false };
		if (filter_netlink_counters(f->netlink, sets[i].bridge, table, sets[i].set, counter_seen, &c, e) < 0)
			return -EIO;
		any |= c.any;
	}
	return any;
}

int filter_counters(struct filter *f, struct filter_counts *ret_counts, struct err *e)
{
	struct filter_counts c = { 0 };

	if (f->past.count) {
		c.items = mem_dup(f->past.items, f->past.count * sizeof *f->past.items);
		c.count = f->past.count;
	}
	if (read_counters(f, &c, e) < 0) {
		filter_counts_done(&c);
		return -EIO;
	}
	*ret_counts = c;
	return 0;
}

/* Apply. */

/* What is remembered is put back at once; an answer that comes in that moment is sent again. Who is not allowed any more is
 * ended next. */
static int apply_whole(struct filter *f, struct filter_ruleset *wanted, const char *table, struct err *e)
{
	own_flows struct filter_flows flows = { 0 };
	own_strbuf struct str text = { 0 };
	struct err ignored;

	if (f->seat_count && read_counters(f, &f->past, &ignored) < 0)
		log_warn("network filter: counters of the table that is replaced are lost");
	if (filter_netlink_generation(f->netlink, &f->generation, &ignored) < 0)
		f->generation = 0;
	if (wanted->sited && filter_flows_read(f->netlink, table, &flows, e) < 0)
		return -EIO;
	filter_ruleset_text(wanted, table, &text);
	if (nft_run(&text, false, e) < 0)
		return -EIO;
	filter_note_generation(f, 1);
	if (filter_flows_put(f->netlink, table, &flows, e) < 0)
		return -EIO;
	if (flows.count)
		filter_note_generation(f, -1);
	return 1;
}

struct difference {
	struct filter_ruleset fresh; /* chains and sets of peers that are new */
	struct filter_ruleset stale;
	const struct filter_element **gone, **come;
	size_t gone_count, gone_room, come_count, come_room;
};

static void difference_done(struct difference *d)
{
	filter_ruleset_done(&d->fresh);
	filter_ruleset_done(&d->stale);
	free(d->gone);
	free(d->come);
}

static void names_only_in(const struct filter_ruleset *a, const struct filter_ruleset *b, struct filter_ruleset *to)
{
	for (size_t i = 0; i < a->chain_count; i++)
		if (!filter_ruleset_has_chain(b, a->chains[i].name)) {
			MEM_PUSH_ROOM(to->chains, to->chain_count, to->chain_room);
			struct filter_chain *c = &to->chains[to->chain_count++];
			*c = a->chains[i];
			c->body = mem_strdup(c->body);
		}
	for (size_t i = 0; i < a->peer_count; i++)
		if (!filter_ruleset_has_peers(b, a->peers[i]))
			filter_ruleset_add_peers(to, a->peers[i]);
}

static bool same_data(const struct filter_element *a, const struct filter_element *b)
{
	return a->data_length == b->data_length && !memcmp(a->data, b->data, a->data_length);
}

static void push_gone(struct difference *d, const struct filter_element *x)
{
	MEM_PUSH_ROOM(d->gone, d->gone_count, d->gone_room);
	d->gone[d->gone_count++] = x;
}

static void push_come(struct difference *d, const struct filter_element *x)
{
	MEM_PUSH_ROOM(d->come, d->come_count, d->come_room);
	d->come[d->come_count++] = x;
}

static void compare_elements(const struct filter_ruleset *old, const struct filter_ruleset *new, struct difference *d)
{
	size_t i = 0, k = 0;

	while (i < old->element_count || k < new->element_count) {
		int order = i == old->element_count ? 1 : k == new->element_count ? -1 :
				filter_element_compare(&old->elements[i], &new->elements[k]);
		if (order < 0) {
			push_gone(d, &old->elements[i++]);
		} else if (order > 0) {
			push_come(d, &new->elements[k++]);
		} else {
			if (!same_data(&old->elements[i], &new->elements[k])) {
				push_gone(d, &old->elements[i]);
				push_come(d, &new->elements[k]);
			}
			i++;
			k++;
		}
	}
}

static void text_stale(const struct filter_ruleset *stale, const char *table, struct str *to)
{
	for (size_t i = 0; i < stale->chain_count; i++)
		str_printf(to, "delete chain %s %s %s\n", filter_family_of(stale->chains[i].name), table,
			   stale->chains[i].name);
	for (size_t i = 0; i < stale->peer_count; i++)
		str_printf(to, "delete set %s %s %s\n", filter_family_of(stale->peers[i]), table, stale->peers[i]);
}

/* Codes are read with the rules of their time: before rules change, what was counted is put aside in words. Returns
 * transactions. */
static int bank_counters(struct filter *f, const char *table)
{
	struct err e;

	if (!f->seat_count)
		return 0;
	int any = read_counters(f, &f->past, &e);
	if (any < 0 || (any > 0 && filter_netlink_flush_counters(f->netlink, table, &e) < 0)) {
		log_error(&e, "network filter: counters of rules that change are lost");
		return 0;
	}
	return any > 0; /* to take nothing away is no transaction */
}

/* Another program changed something since we looked: if none of it was ours, we go on from there. */
static void catch_up(struct filter *f, const char *table)
{
	uint32_t now, after;
	uint64_t digest;
	struct err ignored;

	if (!f->generation || !f->digested || filter_netlink_generation(f->netlink, &now, &ignored) < 0 || now == f->generation)
		return;
	if (filter_netlink_digest(f->netlink, table, &digest, &ignored) >= 0 && digest == f->digest &&
	    filter_netlink_generation(f->netlink, &after, &ignored) >= 0 && after == now)
		f->generation = now;
}

/* 1: something was different. */
static int apply_parts(struct filter *f, const struct filter_ruleset *wanted, const char *table, struct err *e)
{
	__attribute__((cleanup(difference_done))) struct difference d = { 0 };
	own_strbuf struct str before = { 0 }, after = { 0 };
	int transactions = 0;

	names_only_in(wanted, &f->known, &d.fresh);
	names_only_in(&f->known, wanted, &d.stale);
	compare_elements(&f->known, wanted, &d);
	filter_ruleset_text_sets(&d.fresh, table, &before);
	text_stale(&d.stale, table, &after);
	if (!before.length && !after.length && !d.gone_count && !d.come_count)
		return 0;
	catch_up(f, table);
	if (before.length && nft_run(&before, false, e) < 0)
		return -EIO;
	transactions = bank_counters(f, table);
	if (filter_netlink_change(f->netlink, table, d.gone, d.gone_count, d.come, d.come_count, e) < 0)
		return -EIO;
	if (after.length && nft_run(&after, false, e) < 0)
		return -EIO;
	filter_note_generation(f, transactions + !!before.length + (d.gone_count || d.come_count) + !!after.length);
	return 1;
}

static bool same_skeleton(const struct filter_ruleset *a, const struct filter_ruleset *b)
{
	return str_eq(str_text(&a->skeleton), str_text(&b->skeleton));
}

/* What later drift is compared with; only if nobody came between. */
static void note_digest(struct filter *f, const char *table)
{
	uint32_t now;
	struct err ignored;

	f->digested = f->generation && filter_netlink_digest(f->netlink, table, &f->digest, &ignored) >= 0 &&
		      filter_netlink_generation(f->netlink, &now, &ignored) >= 0 && now == f->generation;
}

/* Only a rule that says so tells: the kernel checks it, and nothing is made. */
static void ask_follows(struct filter *f)
{
	own_strbuf struct str text = { 0 };
	struct err ignored;

	if (f->asked)
		return;
	str_printf(&text, "table bridge carrel_%s_asks {\n\tchain x {\n\t\tct state established accept\n\t}\n}\n", f->instance);
	f->follows = nft_run(&text, true, &ignored) >= 0;
	f->asked = true;
}

/* To read all connections costs a host that has many more than all else here, and most calls change nothing. Twice, as a packet
 * that met the old rules may open its connection just after it was looked for. */
static int judge_connections(struct filter *f, const struct filter_model *m, struct err *e)
{
	if (!f->judge)
		return 0;
	int r = filter_end_connections(f, m, NULL, e);
	f->judge -= r >= 0;
	return r;
}

int filter_apply(struct filter *f, const struct filter_intent *intent, struct err *e)
{
	own_model struct filter_model m = { 0 };
	struct filter_ruleset wanted = { 0 };
	char table[FILTER_TABLE];

	if (filter_table_name(f->instance, table, e) < 0 || open_netlink(f, e) < 0 ||
	    filter_model_init(&m, intent, NULL, e) < 0)
		return e && e->number ? -e->number : -EINVAL;
	if (m.sited)
		ask_follows(f);
	m.follows = f->follows;
	filter_compile_model(&wanted, &m, table);
	int result = f->whole || !same_skeleton(&f->known, &wanted) ? apply_whole(f, &wanted, table, e) :
								      apply_parts(f, &wanted, table, e);
	if (result < 0) {
		f->whole = true;
		filter_ruleset_done(&wanted);
		return result;
	}
	f->whole = false;
	filter_ruleset_done(&f->known);
	f->known = wanted;
	seats_set(f, &m);
	if (result > 0)
		f->judge = JUDGE_TIMES;
	if (result > 0 || !f->digested)
		note_digest(f, table);
	return judge_connections(f, &m, e);
}

/* One workspace. */

/* Both sealed; `more` has no key that `r` has. From the back, so that nothing is moved twice. */
static void elements_merge(struct filter_ruleset *r, const struct filter_element *const *more, size_t count)
{
	size_t total = r->element_count + count, left = r->element_count, right = count;

	if (total > r->element_room) {
		r->element_room = total * 2;
		r->elements = mem_grow_array(r->elements, r->element_room, sizeof *r->elements);
	}
	for (size_t at = total; right;) {
		if (left && filter_element_compare(&r->elements[left - 1], more[right - 1]) > 0)
			r->elements[--at] = r->elements[--left];
		else
			r->elements[--at] = *more[--right];
	}
	r->element_count = total;
}

/* The elements that the kernel lacks; false: this needs more than elements. */
static bool only_elements(const struct filter *f, const struct filter_ruleset *r, struct difference *d)
{
	for (size_t i = 0; i < r->chain_count; i++)
		if (!filter_ruleset_has_chain(&f->known, r->chains[i].name))
			return false;
	for (size_t i = 0; i < r->peer_count; i++)
		if (!filter_ruleset_has_peers(&f->known, r->peers[i]))
			return false;
	for (size_t i = 0; i < r->element_count; i++) {
		const struct filter_element *known = filter_ruleset_find(&f->known, &r->elements[i]);
		if (known && !same_data(known, &r->elements[i]))
			return false;
		if (!known)
			push_come(d, &r->elements[i]);
	}
	return true;
}

int filter_add(struct filter *f, const struct filter_intent *intent, const char *id, struct err *e)
{
	own_model struct filter_model m = { 0 };
	__attribute__((cleanup(difference_done))) struct difference d = { 0 };
	__attribute__((cleanup(filter_ruleset_done))) struct filter_ruleset r = { 0 };
	char table[FILTER_TABLE];

	if (f->whole || seat_find(f, id))
		return filter_apply(f, intent, e);
	if (filter_table_name(f->instance, table, e) < 0 || filter_model_init(&m, intent, id, e) < 0)
		return -EINVAL;
	const struct filter_party *p = filter_model_party(&m, id);
	if (!p)
		return err_set(e, ERR_NOT_FOUND, "workspace %s is not in the filter's intent", id);
	if (m.sited && !f->known.sited)
		return filter_apply(f, intent, e);
	filter_compile_workspace(&r, &m, p, f->known.sited);
	filter_ruleset_seal(&r);
	filter_compile_member(&r, &f->known, p);
	filter_ruleset_seal(&r);
	if (!only_elements(f, &r, &d))
		return filter_apply(f, intent, e);
	if (filter_netlink_change(f->netlink, table, NULL, 0, d.come, d.come_count, e) < 0) {
		log_warn("network filter: the kernel's tables are not as they were left, they are replaced: %s", e->message);
		f->whole = true;
		return filter_apply(f, intent, e);
	}
	filter_note_generation(f, 1);
	elements_merge(&f->known, d.come, d.come_count);
	seat_add(f, p);
	f->judge = JUDGE_TIMES;
	return 0;
}

/* Whether an element is about this workspace: by port, mark or address, wherever its set has them. */
static bool element_of(const struct filter_element *x, const struct seat *s)
{
	const struct filter_set_kind *kind = &filter_set_kinds[x->set];

	for (size_t i = 0; i < s->interface_count; i++) {
		if (kind->bridge && kind->parts[0] == PART_IFNAME) {
			if (!strncmp((const char *)x->key, s->interfaces[i].port, IFNAMSIZ))
				return true;
			continue;
		}
		if (x->set == SET_LEAVE || x->set == SET_ISOLATED) {
			if (!memcmp(x->key, &s->interfaces[i].mark, 4))
				return true;
			continue;
		}
		bool ipv6 = kind->data == DATA_NAT6 || kind->parts[0] == PART_IPV6 || kind->parts[1] == PART_IPV6;
		const unsigned char *address = kind->data == DATA_NAT4 || kind->data == DATA_NAT6 ? x->data :
					       kind->parts[0] == PART_IFNAME ? x->key + 16 :
					       kind->parts[0] == PART_MARK ? x->key + 4 : x->key;
		if (s->interfaces[i].has[ipv6] && !memcmp(address, s->interfaces[i].address[ipv6].bytes, ipv6 ? 16 : 4))
			return true;
	}
	return false;
}

static void forget_counts(struct filter_counts *c, const char *id)
{
	size_t kept = 0;
	for (size_t i = 0; i < c->count; i++)
		if (!str_eq(c->items[i].workspace, id))
			c->items[kept++] = c->items[i];
	c->count = kept;
}

static void elements_drop(struct filter_ruleset *r, const struct seat *s)
{
	size_t kept = 0;
	for (size_t i = 0; i < r->element_count; i++)
		if (!element_of(&r->elements[i], s))
			r->elements[kept++] = r->elements[i];
	r->element_count = kept;
}

int filter_remove(struct filter *f, const char *id, struct err *e)
{
	__attribute__((cleanup(difference_done))) struct difference d = { 0 };
	struct seat *s = seat_find(f, id);
	char table[FILTER_TABLE];

	if (!s)
		return 0;
	if (filter_table_name(f->instance, table, e) < 0)
		return -EINVAL;
	int transactions = bank_counters(f, table);
	for (size_t i = 0; i < f->known.element_count; i++)
		if (element_of(&f->known.elements[i], s))
			push_gone(&d, &f->known.elements[i]);
	if (filter_netlink_change(f->netlink, table, d.gone, d.gone_count, NULL, 0, e) < 0) {
		if (e->number != ENOENT)
			return err_wrap(e, "workspace %s", id);
		f->whole = true; /* somebody else was there first: the next apply replaces everything */
	}
	filter_note_generation(f, transactions + 1);
	elements_drop(&f->known, s);
	forget_counts(&f->past, id);
	f->judge = JUDGE_TIMES;
	int result = filter_end_connections(f, NULL, s, e);
	seat_done(s);
	*s = f->seats[--f->seat_count];
	return result;
}

/* Drift. */

int filter_check(struct filter *f, char ret_what[static 160], struct err *e)
{
	char table[FILTER_TABLE];
	uint32_t now;
	uint64_t digest;

	if (filter_table_name(f->instance, table, e) < 0 || open_netlink(f, e) < 0 ||
	    filter_netlink_generation(f->netlink, &now, e) < 0)
		return -EIO;
	if (f->whole) {
		(void)snprintf(ret_what, 160, "the network filter has not been applied");
		return 1;
	}
	if (f->generation && now == f->generation) {
		if (!f->digested)
			note_digest(f, table);
		return 0;
	}
	if (filter_netlink_digest(f->netlink, table, &digest, e) < 0)
		return -EIO;
	if (f->digested && digest == f->digest) {
		f->generation = now; /* another program changed its own tables */
		return 0;
	}
	/* Not digested: others changed theirs while we changed ours, so nobody can say. */
	int r = f->digested ? 1 : 2;
	(void)snprintf(ret_what, 160,
		       r == 1 ? "another program changed table %s" :
				"another program changed something while table %s was changed",
		       table);
	f->whole = true;
	return r;
}

int filter_remove_all(const char *instance, struct err *e)
{
	own_strbuf struct str text = { 0 };
	char table[FILTER_TABLE];

	if (filter_table_name(instance, table, e) < 0)
		return -EINVAL;
	for (int bridge = 0; bridge < 2; bridge++)
		str_printf(&text, "add table %s %s\ndelete table %s %s\n", bridge ? "bridge" : "inet", table,
			   bridge ? "bridge" : "inet", table);
	return nft_run(&text, false, e);
}
