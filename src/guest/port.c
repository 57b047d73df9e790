/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/port.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include "base/fs.h"

static void write_some(struct port *p)
{
	while (p->unsent.length) {
		ssize_t n = write(p->fd, p->unsent.bytes, p->unsent.length);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return; /* full: the next edge brings us back */
		str_drop_front(&p->unsent, (size_t)n);
	}
}

static void take(struct port *p, const struct guest_frame *f)
{
	if (f->type == GUEST_HELLO) {
		p->session = f->session;
		str_clear(&p->unsent); /* of a session that is over */
	} else if (!p->session || f->session != p->session) {
		return;
	}
	p->frame(p->data, f);
}

static void read_all(struct port *p)
{
	char bytes[16384];

	for (;;) {
		struct guest_frame f;
		ssize_t n = read(p->fd, bytes, sizeof bytes);
		if (n < 0 && errno == EINTR)
			continue;
		p->connected = n > 0 || (n < 0 && errno == EAGAIN);
		if (n <= 0)
			return;
		guest_reader_add(&p->reader, bytes, (size_t)n);
		while (guest_reader_next(&p->reader, &f))
			take(p, &f);
	}
}

/* Edges, not levels: a port without a host hangs up all the time. */
static void ready(void *data, uint32_t events)
{
	struct port *p = data;

	(void)events;
	read_all(p);
	write_some(p);
}

int port_open(struct port *p, struct loop *l, int fd, struct err *e)
{
	p->fd = fd;
	guest_reader_init(&p->reader, GUEST_PAYLOAD_LONGEST);
	int r = fs_set_blocking(fd, false, e);
	if (r >= 0)
		p->source = loop_add_fd(l, fd, EPOLLIN | EPOLLOUT | EPOLLET, ready, p);
	return r;
}

void port_feed(struct port *p, const void *bytes, size_t length)
{
	struct guest_frame f;

	p->connected = true;
	guest_reader_add(&p->reader, bytes, length);
	while (guest_reader_next(&p->reader, &f)) {
		if (!p->session)
			p->session = f.session;
		take(p, &f);
	}
}

void port_close(struct port *p)
{
	loop_remove(p->source);
	p->source = NULL;
	(void)close(p->fd);
	guest_reader_done(&p->reader);
	str_done(&p->unsent);
}

void port_send(struct port *p, enum guest_type type, uint32_t number, const void *payload, size_t length)
{
	bool idle = !p->unsent.length;

	if (!p->session)
		return;
	guest_frame_put(&p->unsent, p->session, type, number, payload, length);
	if (idle)
		write_some(p);
}

void port_send_message(struct port *p, enum guest_type type, uint32_t number, const struct guest_shape *shape,
		       const void *value)
{
	own_strbuf struct str bytes = { 0 };

	guest_encode(shape, value, &bytes);
	port_send(p, type, number, bytes.bytes, bytes.length);
}

/* virtio_console's blocking write returns when the host has consumed the bytes, which no poll tells; it may be interrupted. */
static void wake(int number) { (void)number; }

void port_flush(struct port *p, unsigned most_ms)
{
	struct sigaction on_alarm = { .sa_handler = wake };

	(void)sigaction(SIGALRM, &on_alarm, NULL);
	(void)alarm((most_ms + 999) / 1000);
	(void)!fs_set_blocking(p->fd, true, NULL);
	while (p->unsent.length) {
		ssize_t n = write(p->fd, p->unsent.bytes, p->unsent.length);
		if (n <= 0)
			break;
		str_drop_front(&p->unsent, (size_t)n);
	}
	(void)alarm(0);
	(void)!fs_set_blocking(p->fd, false, NULL);
}
