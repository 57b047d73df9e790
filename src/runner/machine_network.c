/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. Each place on the machine's bus is free, taken, or leaving: the tap is gone at once and for good (netdev_del),
 * whatever the guest does, but its device leaves only when the guest lets it go, which QEMU tells by an event. Who wants the
 * place waits for that. A guest that was booting may have missed the request, so it is repeated whenever somebody asks again.
 *
 * A port that somebody deleted on the host is out of order inside although QEMU still has it: it is plugged out and in again.
 *
 * Commands of one interface are sent together: QEMU takes them one after the other, and the first error counts.
 */
#include "runner/machine_network.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "engine/qemu/link.h"
#include "network/link.h"
#include "runner/network.h"

#define DEVICE_PREFIX "link"
#define LEAVE_MS 5000 /* a guest that runs needs some 100 ms */
#define GUEST_MS 10000

struct place {
	struct machine_network *network;
	char *port; /* NULL: free, or leaving */
	bool leaving;
};

struct change;

struct machine_network {
	const struct plan *host;
	struct machine_queues queues;
	bool fixed;
	struct place places[MACHINE_LINKS_MOST];
	struct change *change; /* under way */
};

/* One call of machine_network_set. */
struct change {
	struct machine_network *network;
	struct qmp *qmp;
	struct channel *channel;
	channel_done_fn *done;
	void *data;
	const char **wanted, **plugged; /* INTERFACE_TEXTS texts each: all, and those that QEMU was told of */
	char *texts;                    /* theirs */
	struct loop_source *patience;   /* while it waits for a place */
	bool guest_runs;
	size_t unanswered;
	struct err error; /* the first */
};

struct machine_network *machine_network_new(const struct plan *host, const struct machine_plan *machine)
{
	struct machine_network *n = mem_alloc(sizeof *n);

	*n = (struct machine_network){ .host = host,
				       .queues = { (unsigned)machine->queues, machine->vhost != 0, machine->e1000 != 0 },
				       .fixed = machine->fixed_links != 0 };
	for (size_t i = 0; i < MACHINE_LINKS_MOST; i++)
		n->places[i].network = n;
	return n;
}

static void change_free(struct change *c)
{
	if (c->network->change == c)
		c->network->change = NULL;
	loop_remove(c->patience);
	free(c->wanted);
	free(c->plugged);
	free(c->texts);
	free(c);
}

/* QEMU is gone, or has not begun. */
static void forget_places(struct machine_network *n)
{
	struct change *c = n->change;
	struct err e;

	if (c) {
		int r = err_set(&e, ERR_UNAVAILABLE, "the machine has ended");
		c->done(c->data, r, &e);
		change_free(c);
	}
	for (size_t i = 0; i < MACHINE_LINKS_MOST; i++) {
		free(TAKE(n->places[i].port));
		n->places[i].leaving = false;
	}
}

void machine_network_free(struct machine_network *n)
{
	if (!n)
		return;
	forget_places(n);
	free(n);
}

/* --- for QEMU's start --- */

static unsigned fds_of_link(const struct machine_network *n) { return n->queues.count * (n->queues.vhost ? 2 : 1); }

static int open_link(struct machine_network *n, const char *const *interface, int *ret_fds, struct err *e)
{
	struct machine_link link;
	int r = machine_link_read(interface, &link, e);

	if (r < 0 || (r = network_tap_make(interface, n->host->id, n->queues.count, n->queues.vhost, ret_fds, e)) < 0)
		return r;
	n->places[link.place].port = mem_strdup(interface[INTERFACE_PORT]);
	return 0;
}

int machine_network_open(struct machine_network *n, int *ret_fds, size_t *ret_count, struct err *e)
{
	const char *const *interfaces = (const char *const *)n->host->interfaces;
	size_t links = machine_link_count(interfaces), count = 0;
	int r = 0;

	forget_places(n);
	if (links > MACHINE_LINKS_MOST || (links && (n->queues.count < 1 || n->queues.count > MACHINE_QUEUES_MOST)))
		return err_set(e, ERR_INVALID, "a plan with %zu interfaces of %u queues", links, n->queues.count);
	for (size_t i = 0; r >= 0 && i < links; i++)
		if ((r = open_link(n, interfaces + i * INTERFACE_TEXTS, ret_fds + count, e)) >= 0)
			count += fds_of_link(n);
	while (r < 0 && count)
		(void)close(ret_fds[--count]);
	*ret_count = count;
	return r;
}

/* --- while it runs --- */

static void left(struct place *p);

static void device_answered(void *data, int result, struct qmp_value value, const struct err *e)
{
	(void)value;
	if (result < 0 && e->kind == ERR_NOT_FOUND) /* we were not told */
		left(data);
}

/* The port at once, the device when the guest agrees. */
static void plug_out(struct machine_network *n, struct qmp *q, size_t place)
{
	own_strbuf struct str netdev = { 0 }, device = { 0 };
	struct place *p = &n->places[place];

	machine_link_unplug((unsigned)place, &netdev, &device);
	if (p->port)
		qmp_send(q, "netdev_del", str_text(&netdev), QMP_DEADLINE_MS, NULL, NULL);
	qmp_send(q, "device_del", str_text(&device), QMP_DEADLINE_MS, device_answered, p);
	free(TAKE(p->port));
	p->leaving = true;
}

static void give_up(struct change *c)
{
	for (const char **at = c->plugged; *at; at += INTERFACE_TEXTS)
		for (size_t i = 0; i < MACHINE_LINKS_MOST; i++)
			if (c->network->places[i].port && str_eq(c->network->places[i].port, at[INTERFACE_PORT]))
				plug_out(c->network, c->qmp, i);
}

static void finish(struct change *c)
{
	c->done(c->data, c->error.kind ? -c->error.number : 0, &c->error);
	change_free(c);
}

/* What QEMU has stays there, whatever the guest makes of it. */
static void configured(void *data, int result, const struct err *e)
{
	struct change *c = data;

	if (result < 0) {
		c->error = *e;
		(void)err_wrap(&c->error, "the machine did not configure its interface");
	}
	finish(c);
}

static void configure(struct change *c)
{
	static char nothing[] = "";
	struct guest_identity what = { .host_name = nothing, .machine_id = nothing };
	own_strbuf struct str payload = { 0 };
	bool any = c->plugged[0], wait = c->guest_runs;

	machine_links_inside((const char *const *)c->plugged, &what.interfaces);
	guest_encode(&guest_identity_shape, &what, &payload);
	machine_links_inside_done(&what.interfaces);
	if (any)
		channel_request(c->channel, GUEST_IDENTITY, payload.bytes, payload.length, GUEST_MS, wait ? configured : NULL,
				wait ? c : NULL);
	if (!any || !wait)
		finish(c);
}

/* QEMU has answered everything. */
static void settle(struct change *c)
{
	if (!c->error.kind) {
		configure(c);
		return;
	}
	give_up(c);
	finish(c);
}

static void answered(void *data, int result, struct qmp_value value, const struct err *e)
{
	struct change *c = data;

	(void)value;
	if (result < 0 && !c->error.kind)
		c->error = *e;
	if (--c->unanswered == 0)
		settle(c);
}

static void send_command(struct change *c, const char *command, const char *arguments)
{
	c->unanswered++;
	qmp_send(c->qmp, command, arguments, QMP_DEADLINE_MS, answered, c);
}

/* Names of descriptors, "t0:t1"; the descriptors go. */
static void send_fds(struct change *c, const char *prefix, const int *fds, unsigned count, struct str *names)
{
	for (unsigned i = 0; i < count; i++) {
		own_str char *arguments = mem_printf("{\"fdname\":\"%s%u\"}", prefix, i);
		str_printf(names, "%s%s%u", i ? ":" : "", prefix, i);
		c->unanswered++;
		qmp_send_fd(c->qmp, "getfd", arguments, fds[i], QMP_DEADLINE_MS, answered, c);
	}
}

static void plug_in(struct change *c, const char *const *interface, const struct machine_link *link)
{
	struct machine_network *n = c->network;
	own_strbuf struct str taps = { 0 }, vhosts = { 0 }, netdev = { 0 }, device = { 0 };
	int fds[MACHINE_QUEUES_MOST * 2];
	struct err e;

	int r = network_tap_make(interface, n->host->id, n->queues.count, n->queues.vhost, fds, &e);
	if (r < 0) {
		if (!c->error.kind)
			c->error = e;
		return;
	}
	(void)fault_point("runner.plug");
	n->places[link->place].port = mem_strdup(interface[INTERFACE_PORT]);
	send_fds(c, "tap", fds, n->queues.count, &taps);
	if (n->queues.vhost)
		send_fds(c, "vhost", fds + n->queues.count, n->queues.count, &vhosts);
	machine_link_plug(link, n->queues, str_text(&taps), str_text(&vhosts), &netdev, &device);
	send_command(c, "netdev_add", str_text(&netdev));
	send_command(c, "device_add", str_text(&device));
}

static bool wants(const char *const *interfaces, const char *port)
{
	for (const char *const *at = interfaces; *at; at += INTERFACE_TEXTS)
		if (str_eq(at[INTERFACE_PORT], port))
			return true;
	return false;
}

static void plug_missing(struct change *c)
{
	struct machine_link link;
	size_t at = 0;
	struct err e;

	c->unanswered++; /* ourselves */
	for (const char *const *one = (const char *const *)c->wanted; *one; one += INTERFACE_TEXTS) {
		if (machine_link_read(one, &link, &e) < 0) {
			c->error = e;
			break;
		}
		if (c->network->places[link.place].port) /* the same: others were plugged out */
			continue;
		if (c->network->fixed) {
			(void)err_set(&c->error, ERR_UNSUPPORTED,
				      "a machine of this kind takes a new interface (%s) at its next start",
				      one[INTERFACE_DEVICE]);
			break;
		}
		memcpy(c->plugged + at, one, INTERFACE_TEXTS * sizeof *one);
		at += INTERFACE_TEXTS;
		plug_in(c, one, &link);
	}
	answered(c, 0, (struct qmp_value){ 0 }, NULL);
}

static bool must_wait(const struct change *c)
{
	struct machine_link link;

	for (const char *const *one = (const char *const *)c->wanted; *one; one += INTERFACE_TEXTS)
		if (machine_link_read(one, &link, NULL) >= 0 && c->network->places[link.place].leaving)
			return true;
	return false;
}

static void left(struct place *p)
{
	struct change *c = p->network->change;

	p->leaving = false;
	if (!c || !c->patience || must_wait(c))
		return;
	loop_remove(c->patience);
	c->patience = NULL;
	plug_missing(c);
}

static void out_of_patience(void *data)
{
	struct change *c = data;

	c->patience = NULL;
	(void)err_set(&c->error, ERR_CONFLICT, "the machine does not let go of an interface that was disconnected");
	finish(c);
}

/* A copy of the texts in one piece, and the list of them. */
static const char **copy_texts(const char *const *texts, char **ret_bytes)
{
	struct str bytes = { 0 };
	size_t count = 0, at = 0;

	while (texts[count])
		count++;
	for (size_t i = 0; i < count; i++)
		str_add(&bytes, texts[i], strlen(texts[i]) + 1);
	const char **list = mem_alloc_array(count + 1, sizeof *list);
	*ret_bytes = str_take(&bytes);
	for (size_t i = 0; i < count; i++) {
		list[i] = *ret_bytes + at;
		at += strlen(list[i]) + 1;
	}
	return list;
}

void machine_network_set(struct machine_network *n, struct qmp *q, struct channel *channel, const char *const *interfaces,
			 bool guest_runs, channel_done_fn *done, void *data)
{
	struct err e;

	if (n->change) {
		int r = err_set(&e, ERR_CONFLICT, "the machine's interfaces are being changed");
		done(data, r, &e);
		return;
	}
	struct change *c = n->change = mem_alloc(sizeof *c);
	*c = (struct change){ .network = n, .qmp = q, .channel = channel, .guest_runs = guest_runs, .done = done,
			       .data = data };
	c->wanted = copy_texts(interfaces, &c->texts);
	c->plugged = mem_alloc_array(machine_link_count(interfaces) * INTERFACE_TEXTS + 1, sizeof *c->plugged);
	for (size_t i = 0; i < MACHINE_LINKS_MOST; i++)
		if (n->places[i].leaving ||
		    (n->places[i].port && (!wants(interfaces, n->places[i].port) || !link_index(n->places[i].port))))
			plug_out(n, q, i);
	if (must_wait(c))
		c->patience = loop_add_timer(channel_loop(channel), LEAVE_MS, out_of_patience, c);
	else
		plug_missing(c);
}

void machine_network_event(struct machine_network *n, const char *name, struct qmp_value value)
{
	char device[32] = "";
	uint64_t place;

	if (strcmp(name, "DEVICE_DELETED") != 0 || !qmp_text(value, "device", device, sizeof device) ||
	    !str_starts(device, DEVICE_PREFIX) ||
	    str_to_u64(device + strlen(DEVICE_PREFIX), MACHINE_LINKS_MOST - 1, &place) < 0)
		return;
	left(&n->places[place]);
}
