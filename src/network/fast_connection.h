/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NETWORK_FAST_CONNECTION_H
#define NETWORK_FAST_CONNECTION_H

/* What the fast path asks of connection tracking, and tells it, about one connection. */

#include "network/fast_program.h"

struct fast_connections; /* an open socket to ctnetlink */
int fast_connections_open(struct fast_connections **ret_connections, struct err *e) must_check;
void fast_connections_free(struct fast_connections *c);

/* 1: both sides have spoken and nothing of it is translated, watched by a helper or about to end; 0: it is not so far;
 * -EPERM: it never will; -ENOENT: there is no such connection. */
int fast_connection_settled(struct fast_connections *c, const struct fast_key *key, struct err *e) must_check;
/* TCP: from now on segments pass whose numbers do not follow on those it saw last, and what it remembers of the last ones
 * does not count. -ENOENT: there is no such connection. */
int fast_connection_loosen(struct fast_connections *c, const struct fast_key *key, struct err *e) must_check;
/* As after a packet: it has the whole time that an open connection may be silent. One that is being closed is left alone. */
int fast_connection_rest(struct fast_connections *c, const struct fast_key *key, struct err *e) must_check;
/* The same for all whose windows are loosened and which an agent before this one may have left. */
int fast_connection_rest_all(struct fast_connections *c, struct err *e) must_check;

#endif
