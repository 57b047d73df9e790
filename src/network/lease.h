/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NETWORK_LEASE_H
#define NETWORK_LEASE_H

/*
 * What the site's DHCP says to a workspace on a bridge of the site, as it passes the workspace's port (RFC 2131, 2132). The filter lets the
 * address be used (network/filter_site.c); from here comes how long.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum lease_word {
	LEASE_NOTHING,  /* something else */
	LEASE_GIVEN,    /* towards the workspace */
	LEASE_REFUSED,  /* the same: it has no address */
	LEASE_RETURNED, /* from the workspace: it has no use for its address */
};

struct lease_said {
	enum lease_word word;
	unsigned char mac[6], address[4]; /* of the client; LEASE_RETURNED: whose address it was, whoever says so */
	uint32_t seconds;                 /* GIVEN; UINT32_MAX: for ever */
};

/* A frame as it was on the wire. */
void lease_read(const void *frame, size_t length, bool towards, struct lease_said *ret_said);

/* DHCP frames of that interface from now on, both ways. */
int lease_listen(const char *port, int *ret_fd, struct err *e) must_check;
/* 1: one that says something; 0: there is none now; -ENOBUFS: some were lost; -ENETDOWN: the interface is gone. */
int lease_next(int fd, struct lease_said *ret_said);

#endif
