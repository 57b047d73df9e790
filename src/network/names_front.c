/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. A query waits in a slot: first for the agent's decision, then (UDP) for dnsmasq's answer, to which it is matched by
 * the slot's number in place of the query's id. While no agent is connected what it decided since rules changed last is
 * decided again; the rest waits, and is asked when one comes. A slot that nobody answers is taken again when it is old; one
 * asker may hold a share of them only. TCP has few connections, one query at a time each, and one connection to dnsmasq for
 * each query.
 *
 * The agent connects to us, not we to it: we outlive it, and have no path to anything. The newest connection counts.
 */
#include "network/names_front.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/own.h"
#include "base/sandbox.h"
#include "base/str.h"
#include "network/names_memory.h"
#include "network/question.h"

enum { SLOTS = 1024, SLOT_BITS = 10, SHARE = 128, OLD_S = 15, DATAGRAM = 1232, ANSWER = 65535 };
enum { CONNECTIONS = 64, CONNECTIONS_SHARE = 8, FAMILIES = 2, BURST = 64 };

enum slot_state { FREE, ASKED, SENT };

union place {
	struct sockaddr any;
	struct sockaddr_in four;
	struct sockaddr_in6 six;
};

struct slot {
	uint8_t state;
	bool stream;
	uint16_t round, length, end, serial; /* serial: of the connection */
	int family;                          /* stream: number of the connection */
	time_t since;
	union place from, server;
	struct names_question question;
	unsigned char *query; /* DATAGRAM bytes */
};

struct connection {
	int fd, up; /* -1: free; `up`: to dnsmasq, -1: none */
	union place from;
	time_t since;
	uint16_t serial;
	bool waits; /* for a decision */
	struct str in, out, answer;
};

struct front {
	const struct names_front *names;
	int datagrams[FAMILIES], listeners[FAMILIES], up, ask, agent;
	union place dnsmasq;
	struct slot slots[SLOTS];
	struct connection connections[CONNECTIONS];
	unsigned char queries[SLOTS][DATAGRAM]; /* apart, as most are never touched */
	unsigned char buffer[ANSWER];
	struct names_memory memory;
};

static void hang_up(int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
	*fd = -1;
}

static time_t now(void)
{
	struct timespec t;
	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec;
}

/* --- sockets --- */

static socklen_t size_of(const union place *p) { return p->any.sa_family == AF_INET ? sizeof p->four : sizeof p->six; }

static int read_place(const char *address, uint16_t port, union place *out, struct err *e)
{
	*out = (union place){ 0 };
	if (inet_pton(AF_INET, address, &out->four.sin_addr) == 1) {
		out->four.sin_family = AF_INET;
		out->four.sin_port = htons(port);
		return 0;
	}
	if (inet_pton(AF_INET6, address, &out->six.sin6_addr) != 1)
		return err_set(e, ERR_INVALID, "'%s' is not an address", address);
	out->six.sin6_family = AF_INET6;
	out->six.sin6_port = htons(port);
	return 0;
}

/* Also while the bridge is away: it comes back with the same addresses. */
static int open_socket(const union place *p, int type, int *ret_fd, struct err *e)
{
	bool six = p->any.sa_family == AF_INET6;
	int one = 1;
	own_fd int fd = socket(p->any.sa_family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0 ||
	    (six && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one) < 0) ||
	    setsockopt(fd, six ? IPPROTO_IPV6 : IPPROTO_IP, six ? IPV6_FREEBIND : IP_FREEBIND, &one, sizeof one) < 0 ||
	    bind(fd, &p->any, size_of(p)) < 0 || (type == SOCK_STREAM && listen(fd, CONNECTIONS) < 0))
		return err_errno(e, errno, "answer at port 53 of a gateway");
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static int open_sockets(struct front *f, struct err *e)
{
	bool any = false;
	int r = 0;

	for (int i = 0; i < FAMILIES && r == 0; i++) {
		union place p;
		const char *gateway = f->names->gateways[i];
		if (!gateway)
			continue;
		r = read_place(gateway, 53, &p, e);
		if (r == 0)
			r = open_socket(&p, SOCK_DGRAM, &f->datagrams[i], e);
		if (r == 0)
			r = open_socket(&p, SOCK_STREAM, &f->listeners[i], e);
		if (r == 0 && !any)
			r = read_place(gateway, NAMES_PORT, &f->dnsmasq, e);
		any = true;
	}
	if (r < 0)
		return r;
	f->up = socket(f->dnsmasq.any.sa_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (f->up < 0)
		return err_errno(e, errno, "reach dnsmasq");
	return 0;
}

static int open_ask(struct front *f, struct err *e)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };

	if (snprintf(a.sun_path, sizeof a.sun_path, "%s/ask", f->names->folder) >= (int)sizeof a.sun_path)
		return err_set(e, ERR_INVALID, "the path %s is too long for a socket", f->names->folder);
	(void)unlink(a.sun_path);
	f->ask = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	mode_t mask = umask(0177);
	bool bound = f->ask >= 0 && bind(f->ask, (struct sockaddr *)&a, sizeof a) == 0 && listen(f->ask, 4) == 0;
	(void)umask(mask);
	return bound ? 0 : err_errno(e, errno, "make %s", a.sun_path);
}

/* --- the agent's part --- */

/* One that has gone may have left word: hear_agent reads that, and notices. */
static void ask(struct front *f, const struct slot *s)
{
	if (f->agent >= 0)
		(void)!send(f->agent, &s->question, sizeof s->question, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void welcome(struct front *f)
{
	int fd = accept4(f->ask, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return;
	hang_up(&f->agent);
	f->agent = fd;
	names_memory_clear(&f->memory);
	for (size_t i = 0; i < SLOTS; i++)
		if (f->slots[i].state == ASKED)
			ask(f, &f->slots[i]);
}

/* --- slots --- */

static struct names_address address_of(const union place *p)
{
	struct names_address a = { .ipv6 = p->any.sa_family == AF_INET6 };

	if (a.ipv6)
		memcpy(a.bytes, &p->six.sin6_addr, 16);
	else
		memcpy(a.bytes, &p->four.sin_addr, 4);
	return a;
}

static bool same_address(const struct names_address *a, const struct names_address *b)
{
	return a->ipv6 == b->ipv6 && memcmp(a->bytes, b->bytes, 16) == 0;
}

static bool same_place(const union place *a, const union place *b)
{
	const struct names_address x = address_of(a), y = address_of(b);
	return a->four.sin_port == b->four.sin_port && same_address(&x, &y); /* the port is at the same place in both */
}

static struct slot *take_slot(struct front *f, const struct names_address *asker)
{
	time_t old = now() - OLD_S;
	struct slot *found = NULL;
	size_t held = 0;

	for (size_t n = 0; n < SLOTS; n++) {
		struct slot *s = &f->slots[n];
		if (s->state != FREE && s->since < old)
			s->state = FREE;
		if (s->state != FREE)
			held += same_address(&s->question.asker, asker);
		else if (!found)
			found = s;
	}
	return held < SHARE ? found : NULL;
}

/* The query becomes a question to the agent; false: it is none, or there are too many. */
static bool put_question(struct front *f, const unsigned char *bytes, size_t length, const union place *from, int family,
			 const struct connection *stream)
{
	char name[QUESTION_NAME_SIZE];
	struct names_address asker = address_of(from);
	size_t end;

	if (length > DATAGRAM || question_parse(bytes, length, name, &end) < 0)
		return false;
	struct slot *s = take_slot(f, &asker);
	if (!s)
		return false;
	uint16_t round = (uint16_t)(s->round + 1);
	*s = (struct slot){ .state = ASKED,
			    .round = round,
			    .length = (uint16_t)length,
			    .end = (uint16_t)end,
			    .family = family,
			    .since = now(),
			    .from = *from,
			    .query = f->queries[s - f->slots] };
	s->stream = stream != NULL;
	s->serial = stream ? stream->serial : 0;
	memcpy(s->query, bytes, length);
	s->question.id = (uint32_t)(s - f->slots) | (uint32_t)round << SLOT_BITS;
	s->question.asker = asker;
	question_classify(name, f->names->zone, &s->question);
	ask(f, s);
	return true;
}

/* --- TCP (RFC 7766): a length of two bytes before each message --- */

static void drop(struct connection *c)
{
	hang_up(&c->fd);
	hang_up(&c->up);
	str_done(&c->in);
	str_done(&c->out);
	str_done(&c->answer);
	*c = (struct connection){ .fd = -1, .up = -1, .serial = (uint16_t)(c->serial + 1) };
}

static void add_message(struct str *to, const unsigned char *bytes, size_t length)
{
	str_putc(to, (char)(length >> 8));
	str_putc(to, (char)(length & 255));
	str_add(to, (const char *)bytes, length);
}

static void accept_stream(struct front *f, int family)
{
	union place from = { 0 };
	socklen_t size = sizeof from;
	own_fd int fd = accept4(f->listeners[family], &from.any, &size, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct names_address asker = address_of(&from);
	struct connection *found = NULL;
	size_t held = 0;

	if (fd < 0)
		return;
	for (size_t i = 0; i < CONNECTIONS; i++) {
		struct connection *c = &f->connections[i];
		struct names_address other = address_of(&c->from);
		if (c->fd < 0)
			found = c;
		else
			held += same_address(&other, &asker);
	}
	if (!found || held >= CONNECTIONS_SHARE)
		return;
	found->fd = TAKE_FD(fd);
	found->from = from;
	found->since = now();
}

/* A whole query that nothing is done for yet. */
static bool next_query(struct front *f, struct connection *c)
{
	const unsigned char *in = (const unsigned char *)c->in.bytes;

	if (c->waits || c->up >= 0 || c->out.length || c->in.length < 2)
		return true;
	size_t length = (size_t)in[0] << 8 | in[1];
	if (c->in.length < length + 2)
		return length <= DATAGRAM;
	if (!put_question(f, in + 2, length, &c->from, (int)(c - f->connections), c))
		return false;
	str_drop_front(&c->in, length + 2);
	c->waits = true;
	return true;
}

/* More from the client, the answer from dnsmasq, the answer to the client. False: it is over. */
static bool serve_stream(struct front *f, struct connection *c, short client, short server)
{
	if (client & (POLLIN | POLLHUP | POLLERR) && c->in.length <= DATAGRAM) {
		ssize_t n = recv(c->fd, f->buffer, 2048, MSG_DONTWAIT);
		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
			return false;
		if (n > 0)
			str_add(&c->in, (const char *)f->buffer, (size_t)n);
	}
	if (server && c->up >= 0) {
		ssize_t n = recv(c->up, f->buffer, sizeof f->buffer, MSG_DONTWAIT);
		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
			return false;
		if (n > 0)
			str_add(&c->answer, (const char *)f->buffer, (size_t)n);
		const unsigned char *a = (const unsigned char *)c->answer.bytes;
		if (c->answer.length >= 2 && c->answer.length >= ((size_t)a[0] << 8 | a[1]) + 2) {
			str_add(&c->out, c->answer.bytes, c->answer.length);
			str_clear(&c->answer);
			hang_up(&c->up);
		}
	}
	while (c->out.length) {
		ssize_t n = send(c->fd, c->out.bytes, c->out.length, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0)
			return errno == EAGAIN || errno == EINTR;
		str_drop_front(&c->out, (size_t)n);
		c->since = now();
	}
	return next_query(f, c);
}

/* dnsmasq is on this machine: a connection is there at once. */
static int connect_up(struct front *f, const struct slot *s)
{
	own_fd int fd = socket(f->dnsmasq.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	own_strbuf struct str message = { 0 };

	add_message(&message, s->query, s->length);
	if (fd < 0 || (connect(fd, &s->server.any, size_of(&s->server)) < 0 && errno != EINPROGRESS) ||
	    send(fd, message.bytes, message.length, MSG_NOSIGNAL) != (ssize_t)message.length)
		return -1;
	return TAKE_FD(fd);
}

/* --- decisions --- */

static void answer_stream(struct front *f, struct slot *s, unsigned code)
{
	struct connection *c = &f->connections[s->family];

	s->state = FREE;
	if (c->fd < 0 || !c->waits || s->serial != c->serial)
		return; /* that connection is gone */
	c->waits = false;
	if (code) {
		add_message(&c->out, s->query, question_refuse(s->query, s->end, code));
		if (!serve_stream(f, c, 0, 0))
			drop(c);
	} else if ((c->up = connect_up(f, s)) < 0) {
		drop(c);
	}
}

static void answer_datagram(struct front *f, struct slot *s, unsigned code)
{
	uint16_t number = (uint16_t)((s->question.id & (SLOTS - 1)) | (uint32_t)s->round << SLOT_BITS);

	if (code) {
		(void)!sendto(f->datagrams[s->family], s->query, question_refuse(s->query, s->end, code), 0, &s->from.any,
			      size_of(&s->from));
		s->state = FREE;
		return;
	}
	unsigned char theirs[2] = { s->query[0], s->query[1] };
	s->query[0] = (unsigned char)(number >> 8);
	s->query[1] = (unsigned char)number;
	s->state = sendto(f->up, s->query, s->length, 0, &s->server.any, size_of(&s->server)) < 0 ? FREE : SENT;
	memcpy(s->query, theirs, 2);
}

/* Theirs, with port and family of our own. */
static union place place_of(const union place *ours, const struct names_address *theirs)
{
	union place p = *ours;

	if (theirs->ipv6)
		memcpy(&p.six.sin6_addr, theirs->bytes, 16);
	else
		memcpy(&p.four.sin_addr, theirs->bytes, 4);
	return p;
}

static void decided(struct front *f, const struct names_decision *d)
{
	struct slot *s = &f->slots[d->id & (SLOTS - 1)];
	unsigned code = d->verdict == NAMES_HIDDEN ? QUESTION_NXDOMAIN : d->verdict == NAMES_REFUSED ? QUESTION_REFUSED : 0;

	if (s->state != ASKED || s->question.id != d->id)
		return;
	s->server = f->dnsmasq;
	if (d->elsewhere && d->server.ipv6 != (f->dnsmasq.any.sa_family == AF_INET6))
		code = QUESTION_NXDOMAIN;
	else if (d->elsewhere)
		s->server = place_of(&f->dnsmasq, &d->server);
	if (s->stream && d->verdict == NAMES_NOBODY && f->connections[s->family].serial == s->serial)
		drop(&f->connections[s->family]);
	if (s->stream) {
		answer_stream(f, s, code);
	} else if (d->verdict == NAMES_NOBODY) {
		s->state = FREE;
	} else {
		answer_datagram(f, s, code);
	}
}

static void heard(struct front *f, const struct names_decision *d)
{
	const struct slot *s = &f->slots[d->id & (SLOTS - 1)];

	if (d->verdict == NAMES_FORGET) {
		names_memory_clear(&f->memory);
		return;
	}
	if (s->state == ASKED && s->question.id == d->id)
		names_memory_note(&f->memory, &s->question, d);
	decided(f, d);
}

/* What waits while no agent is there, and was decided before. */
static void remember(struct front *f)
{
	struct names_decision d;

	for (size_t i = 0; i < SLOTS && f->agent < 0; i++)
		if (f->slots[i].state == ASKED && names_memory_find(&f->memory, &f->slots[i].question, &d))
			decided(f, &d);
}

static void hear_agent(struct front *f)
{
	for (int i = 0; i < BURST && f->agent >= 0; i++) {
		struct names_decision d;
		ssize_t n = recv(f->agent, &d, sizeof d, MSG_DONTWAIT);
		if (n == sizeof d)
			heard(f, &d);
		else if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		else
			hang_up(&f->agent);
	}
}

/* --- UDP --- */

static void hear_askers(struct front *f, int family)
{
	for (int i = 0; i < BURST; i++) {
		union place from = { 0 };
		socklen_t size = sizeof from;
		ssize_t n = recvfrom(f->datagrams[family], f->buffer, DATAGRAM + 1, MSG_DONTWAIT, &from.any, &size);
		if (n < 0)
			return;
		(void)put_question(f, f->buffer, (size_t)n, &from, family, NULL);
	}
}

static void hear_dnsmasq(struct front *f)
{
	for (int i = 0; i < BURST; i++) {
		union place from = { 0 };
		socklen_t size = sizeof from;
		ssize_t n = recvfrom(f->up, f->buffer, sizeof f->buffer, MSG_DONTWAIT, &from.any, &size);
		if (n < QUESTION_HEADER)
			return;
		uint16_t number = (uint16_t)(f->buffer[0] << 8 | f->buffer[1]);
		struct slot *s = &f->slots[number & (SLOTS - 1)];
		if (s->state != SENT || s->stream || (uint16_t)((uint32_t)s->round << SLOT_BITS) != (number & ~(SLOTS - 1)) ||
		    !same_place(&from, &s->server))
			continue;
		memcpy(f->buffer, s->query, 2);
		(void)!sendto(f->datagrams[s->family], f->buffer, (size_t)n, 0, &s->from.any, size_of(&s->from));
		s->state = FREE;
	}
}

/* --- all of it --- */

static int wait_all(struct front *f, struct pollfd *polls)
{
	size_t n = 0;
	bool any = false;

	for (int i = 0; i < FAMILIES; i++) {
		polls[n++] = (struct pollfd){ .fd = f->datagrams[i], .events = POLLIN };
		polls[n++] = (struct pollfd){ .fd = f->listeners[i], .events = POLLIN };
	}
	polls[n++] = (struct pollfd){ .fd = f->up, .events = POLLIN };
	polls[n++] = (struct pollfd){ .fd = f->ask, .events = POLLIN };
	polls[n++] = (struct pollfd){ .fd = f->agent, .events = POLLIN };
	for (size_t i = 0; i < CONNECTIONS; i++) {
		const struct connection *c = &f->connections[i];
		short events = (short)((c->in.length <= DATAGRAM ? POLLIN : 0) | (c->out.length ? POLLOUT : 0));
		polls[n++] = (struct pollfd){ .fd = c->fd, .events = events };
		polls[n++] = (struct pollfd){ .fd = c->up, .events = POLLIN };
		any |= c->fd >= 0;
	}
	return poll(polls, n, any ? 1000 : -1) < 0 && errno != EINTR ? -1 : 0;
}

static void serve(struct front *f)
{
	struct pollfd polls[2 * FAMILIES + 3 + 2 * CONNECTIONS], *p;

	while (wait_all(f, polls) == 0) {
		p = polls + 2 * FAMILIES + 3;
		for (size_t i = 0; i < CONNECTIONS; i++, p += 2) {
			struct connection *c = &f->connections[i];
			if (c->fd >= 0 && (!serve_stream(f, c, p[0].revents, p[1].revents) || c->since < now() - OLD_S))
				drop(c);
		}
		p = polls;
		for (int i = 0; i < FAMILIES; i++, p += 2) {
			if (p[0].revents)
				hear_askers(f, i);
			if (p[1].revents)
				accept_stream(f, i);
		}
		if (p[0].revents)
			hear_dnsmasq(f);
		if (p[1].revents)
			welcome(f);
		if (p[2].revents)
			hear_agent(f);
		remember(f);
	}
}

int names_front_run(const struct names_front *names, int parent, struct err *e)
{
	struct front *f = mem_alloc(sizeof *f);

	f->names = names;
	for (int i = 0; i < FAMILIES; i++)
		f->datagrams[i] = f->listeners[i] = -1;
	f->up = f->ask = f->agent = -1;
	for (size_t i = 0; i < CONNECTIONS; i++)
		f->connections[i].fd = f->connections[i].up = -1;
	int r = open_sockets(f, e);
	if (r == 0)
		r = open_ask(f, e);
	if (r == 0 && prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
		r = err_errno(e, errno, "end with dnsmasq");
	if (r == 0 && getppid() != parent)
		r = err_set(e, ERR_CANCELLED, "dnsmasq has ended");
	if (r == 0)
		r = sandbox_enter(SANDBOX_NETWORK | SANDBOX_ACCEPT, NULL, e);
	if (r < 0)
		return r;
	serve(f);
	return err_errno(e, errno, "wait for queries");
}
