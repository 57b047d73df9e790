/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. Each network's names process (network/names_front.h) asks us for each query: who it is comes as an address, which the
 * filter has proven. What is answered follows from the same words as the rules for packets, at that moment, so there is nothing
 * to be told when they change. We connect to it, again when it or we were started anew; until then it holds its questions back.
 *
 * A name, or whose an address is, is told when either of the two may connect to the other by any service. Names outside are for
 * those that may go there: otherwise a query would carry out what packets may not.
 */
#include "node/network_private.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/own.h"
#include "network/question.h"

enum { BURST = 32 };

struct voice {
	struct networks *networks;
	char *network;
	int fd;
	struct loop_source *source;
};

/* --- the decision --- */

static const struct member_address *address_on(const struct member *m, const char *network, const char *text)
{
	const struct member_address *a = m->addresses.items;

	for (size_t i = 0; i < m->addresses.count; i++)
		if ((!network || str_eq(a[i].network, network)) &&
		    (!text || str_eq(a[i].ipv4, text) || str_eq(a[i].ipv6, text)))
			return &a[i];
	return NULL;
}

static const struct member *member_with(const struct networks *s, const char *network, const char *name, const char *address)
{
	for (size_t i = 0; i < s->directory.members.capacity; i++) {
		const struct member *m = s->directory.members.entries[i].key ? s->directory.members.entries[i].value : NULL;
		if (m && (!name || str_eq(m->name, name)) && address_on(m, network, address))
			return m;
	}
	return NULL;
}

static bool talk(struct networks *s, const struct member *a, const struct member *b, const char *network)
{
	const struct member both[] = { *a, *b };
	size_t count = s->directory.networks.count, locals = 0;
	own_str const void **all = directory_list(&s->directory.networks);
	own_str struct filter_network *networks = mem_alloc_array(count + 1, sizeof *networks);
	struct filter_workspace workspaces[2];

	for (size_t i = 0; i < count; i++)
		networks[i] = (struct filter_network){ all[i], "" };
	for (size_t i = 0; i < 2; i++) {
		const struct local *l = map_get(&s->locals, both[i].id);
		if (l)
			workspaces[locals++] = (struct filter_workspace){ l->wish.id, l->wish.spec, l->wish.attachments.items,
									  l->wish.attachments.count, l->wish.owner_uid };
	}
	const struct filter_intent intent = { .instance = s->instance, .networks = networks, .network_count = count,
					      .members = both, .member_count = 2, .workspaces = workspaces,
					      .workspace_count = locals };
	return filter_may_talk(&intent, a->id, b->id, network) || filter_may_talk(&intent, b->id, a->id, network);
}

static char *address_text(const struct names_address *a, char out[static NETWORK_ADDRESS_SIZE])
{
	(void)inet_ntop(a->ipv6 ? AF_INET6 : AF_INET, a->bytes, out, NETWORK_ADDRESS_SIZE);
	return out;
}

/* A name of another network: which, and who. `label` gets the part before its zone. */
static const struct network *other_network(const struct networks *s, const char *name, char label[static QUESTION_NAME_SIZE])
{
	char zone[80];
	size_t n = strcspn(name, ".");

	for (size_t i = 0; i < s->directory.networks.capacity && name[n]; i++) {
		const struct network *w = s->directory.networks.entries[i].key ? s->directory.networks.entries[i].value : NULL;
		if (!w || !str_eq(name + n + 1, network_zone(w, zone)))
			continue;
		(void)snprintf(label, QUESTION_NAME_SIZE, "%.*s", (int)n, name);
		return w;
	}
	return NULL;
}

/* Whose dnsmasq knows it: at the gateway of the family that the process of `network` asks in. */
static bool find_server(const struct networks *s, const char *network, const struct network *w, struct names_decision *d)
{
	const struct network *own = map_get(&s->directory.networks, network);
	const struct carried *c = map_get(&s->carried, w->name);
	bool six = own && !own->ipv4;
	const char *pool = six ? w->ipv6 : w->ipv4;
	char gateway[NETWORK_ADDRESS_SIZE];
	unsigned length;

	if (!c || !c->names || !pool)
		return false;
	network_gateway(pool, gateway, &length);
	d->elsewhere = true;
	d->server.ipv6 = six;
	return inet_pton(six ? AF_INET6 : AF_INET, gateway, d->server.bytes) == 1;
}

static enum names_verdict decide(struct networks *s, const char *voice, const struct names_question *q,
				 struct names_decision *d)
{
	char text[NETWORK_ADDRESS_SIZE], label[QUESTION_NAME_SIZE];
	const char *network = voice;
	const struct member *asker = member_with(s, network, NULL, address_text(&q->asker, text)), *about = NULL;
	const struct local *l = asker ? map_get(&s->locals, asker->id) : NULL;

	if (!l || l->wish.spec->isolated)
		return NAMES_NOBODY;
	if (q->kind == NAMES_HERE)
		about = member_with(s, network, q->name, NULL);
	else if (q->kind == NAMES_ADDRESS)
		about = member_with(s, NULL, NULL, address_text(&q->about, text));
	const struct network *other = q->kind == NAMES_OUTSIDE ? other_network(s, q->name, label) : NULL;
	if (other) {
		about = member_with(s, other->name, label, NULL);
		network = other->name;
		if (!about || !find_server(s, voice, other, d))
			return NAMES_HIDDEN;
	}
	if (about)
		return about == asker || talk(s, asker, about, network) ? NAMES_ANSWER : NAMES_HIDDEN;
	return q->kind == NAMES_HERE || filter_may_leave_site(l->wish.spec) ? NAMES_ANSWER : NAMES_REFUSED;
}

/* --- connections --- */

static void drop(struct voice *v)
{
	loop_remove(v->source);
	(void)close(v->fd);
	(void)map_remove(&v->networks->voices, v->network);
	free(v->network);
	free(v);
}

static void on_question(void *data, uint32_t events)
{
	struct voice *v = data;
	struct names_question q;

	(void)events;
	for (int i = 0; i < BURST; i++) {
		ssize_t n = recv(v->fd, &q, sizeof q, MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n != sizeof q || q.name[sizeof q.name - 1]) {
			drop(v);
			return;
		}
		(void)pthread_mutex_lock(&v->networks->lock);
		struct names_decision d = { .id = q.id };
		d.verdict = (uint8_t)decide(v->networks, v->network, &q, &d);
		(void)pthread_mutex_unlock(&v->networks->lock);
		(void)!send(v->fd, &d, sizeof d, MSG_DONTWAIT | MSG_NOSIGNAL);
	}
}

static void connect_to(struct networks *s, const char *network)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	own_fd int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0 || snprintf(a.sun_path, sizeof a.sun_path, "%s/%s/ask", s->folder, network) >= (int)sizeof a.sun_path ||
	    connect(fd, (struct sockaddr *)&a, sizeof a) < 0)
		return; /* at the next look */
	struct voice *v = mem_alloc(sizeof *v);
	*v = (struct voice){ .networks = s, .network = mem_strdup(network), .fd = TAKE_FD(fd) };
	v->source = loop_add_fd(s->node->loop, v->fd, EPOLLIN, on_question, v);
	map_put(&s->voices, v->network, v);
}

void network_voices_open(void *data)
{
	struct networks *s = data;

	if (!s->tell)
		return; /* it ends */
	(void)pthread_mutex_lock(&s->lock);
	for (size_t i = 0; i < s->carried.capacity; i++) {
		const struct carried *c = s->carried.entries[i].key ? s->carried.entries[i].value : NULL;
		struct voice *v = c && c->names ? map_get(&s->voices, c->name) : NULL;
		char byte;
		if (v && recv(v->fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK) == 0)
			drop(TAKE(v)); /* of a process that is no more */
		if (c && c->names && !v)
			connect_to(s, c->name);
	}
	(void)pthread_mutex_unlock(&s->lock);
}

void network_voices_forget(void *networks)
{
	struct networks *s = networks;
	const struct names_decision d = { .verdict = NAMES_FORGET };

	for (size_t i = 0; i < s->voices.capacity; i++) {
		struct voice *v = s->voices.entries[i].key ? s->voices.entries[i].value : NULL;
		if (v)
			(void)!send(v->fd, &d, sizeof d, MSG_DONTWAIT | MSG_NOSIGNAL);
	}
}

void network_voices_close(struct networks *s)
{
	for (size_t i = 0; i < s->voices.capacity; i++)
		while (s->voices.entries[i].key)
			drop(s->voices.entries[i].value);
	map_done(&s->voices);
}
