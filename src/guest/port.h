/* SPDX-License-Identifier: Apache-2.0 */
#ifndef GUEST_PORT_H
#define GUEST_PORT_H

/*
 * The guest's end of the channel. What is sent waits in memory until the host takes it: its amount is bounded by the credit
 * that streams have and by the answers to requests, which the host counts.
 */

#include <stdbool.h>
#include <stdint.h>

#include "base/loop.h"
#include "base/str.h"
#include "model/guest_protocol.h"

struct port {
	int fd;
	struct loop_source *source;
	struct guest_reader reader;
	struct str unsent;
	uint32_t session; /* 0: no hello yet */
	bool connected;
	void (*frame)(void *data, const struct guest_frame *f); /* of the session, or a hello */
	void *data;
};

int port_open(struct port *p, struct loop *l, int fd, struct err *e) must_check; /* fd is taken; frame and data are set */
/* What the process before this one had read already: whole frames of one session, which goes on here. */
void port_feed(struct port *p, const void *bytes, size_t length);
void port_close(struct port *p);
void port_send(struct port *p, enum guest_type type, uint32_t number, const void *payload, size_t length);
void port_send_message(struct port *p, enum guest_type type, uint32_t number, const struct guest_shape *shape,
		       const void *value);
/* Returns when the host has taken everything, or after `most_ms`. Before the machine goes off, or stands still. */
void port_flush(struct port *p, unsigned most_ms);

#endif
