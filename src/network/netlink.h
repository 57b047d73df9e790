/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NETWORK_NETLINK_H
#define NETWORK_NETLINK_H

/*
 * Requests to the kernel's rtnetlink (RFC 3549; linux/rtnetlink.h), many in one message. The library for it has no static form,
 * and carrel-run is linked statically.
 *
 *   netlink_begin, netlink_put..., netlink_nest/netlink_end    one request after the other, none is sent yet
 *   netlink_run                                                sends all and collects one answer for each
 */

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define NETLINK_MOST 16384 /* bytes of requests in one message */

struct netlink {
	int fd;
	uint32_t sequence, first; /* of the last request, and of the first that was not run */
	uint32_t length;
	struct nlmsghdr *request; /* the one that is written */
	const char *names[64];    /* what each is, for errors */
	_Alignas(8) unsigned char bytes[NETLINK_MOST];
};

/* In the network namespace of the calling thread, or in that of `namespace_fd` (-1: the calling one's). */
int netlink_open(struct netlink *n, int namespace_fd, struct err *e) must_check;
void netlink_close(struct netlink *n);

/* `what` names it in errors and must live until netlink_run. `header` is the fixed part behind the message's header. */
void netlink_begin(struct netlink *n, uint16_t type, uint16_t flags, const char *what, const void *header,
		   size_t header_length);
void netlink_put(struct netlink *n, uint16_t type, const void *bytes, size_t length);
void netlink_text(struct netlink *n, uint16_t type, const char *text);
void netlink_u32(struct netlink *n, uint16_t type, uint32_t value);
void netlink_u8(struct netlink *n, uint16_t type, uint8_t value);
struct nlattr *netlink_nest(struct netlink *n, uint16_t type);
/* A fixed header inside a nest, as veth's peer has one. */
void netlink_raw(struct netlink *n, const void *bytes, size_t length);
void netlink_end(struct netlink *n, struct nlattr *nest);

/* The first request that fails is the error, unless its errno is `fine` (0: none is). */
int netlink_run(struct netlink *n, int fine, struct err *e) must_check;
/* The same; `seen` gets what the kernel tells besides. */
typedef void netlink_seen(void *data, const struct nlmsghdr *message);
int netlink_ask(struct netlink *n, int fine, netlink_seen *seen, void *data, struct err *e) must_check;
/* An attribute among those between `at` and `end`, or NULL. What is in it: NLA_HDRLEN behind its begin. */
const struct nlattr *netlink_find(const void *at, const void *end, uint16_t type);

#endif
