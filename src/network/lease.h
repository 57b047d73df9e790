/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NETWORK_LEASE_H
#define NETWORK_LEASE_H

/*
 * What the site's DHCP says to a workspace on a bridge of the site, as it passes the workspace's port (RFC 2131, 2132). The
 * filter lets the address be used (network/filter_site.c); from here comes how long.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum lease_word {
	LEASE_NOTHING,  /* something else */
	LEASE_GIVEN,    /* towards the workspace */
	LEASE_REFUSED,  /* the same: it has no address */
	LEASE_RETURNED, /* from the workspace: nobody has a use for that address, it says */
};

struct lease_said {
	enum lease_word word;
	unsigned char sender[6], from[4]; /* of the frame and the packet */
	unsigned char mac[6], client[4];  /* of the client, as the message says: chaddr, ciaddr */
	unsigned char address[4];         /* that is given, or given back */
	uint32_t seconds;                 /* GIVEN; UINT32_MAX: for ever */
};

/* A port of a workspace, and which addresses it was given. */
struct lease_held {
	unsigned char address[4];
	bool over; /* the caller's */
};
struct lease_holder {
	unsigned char mac[6];
	struct lease_held *held;
	size_t count;
};

/* A frame as it was on the wire. */
void lease_read(const void *frame, size_t length, bool towards, struct lease_said *ret_said);

/* What was heard on that port is about its workspace; of a return also: it is the holder's own, and nothing that the filter
 * drops. */
bool lease_counts(const struct lease_said *said, const struct lease_holder *port);

/* From now on the answers that leave by that interface for that hardware address, and the requests that come in from it, for
 * it. */
int lease_listen(const char *port, const unsigned char mac[static 6], int *ret_fd, struct err *e) must_check;
/* 1: one that says something; 0: there is none now; -ENOBUFS: some were lost; -ENETDOWN: the interface is gone. */
int lease_next(int fd, struct lease_said *ret_said);

#endif
