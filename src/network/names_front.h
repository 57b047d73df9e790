/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NETWORK_NAMES_FRONT_H
#define NETWORK_NAMES_FRONT_H

/*
 * The process before a network's dnsmasq that lets everybody ask for what they may: of each query it reads the question, asks
 * the agent (who asks is known by the address, which the filter has proven), and hands the query on unchanged, or answers that
 * there is no such name. dnsmasq answers at NAMES_PORT of the same addresses, where the filter lets no workspace.
 */

#include "base/err.h"

#define NAMES_PORT 1053

struct names_front {
	const char *folder; /* of the network: the socket `ask` is made there */
	const char *zone;
	const char *gateways[2]; /* NULL: none */
};

/* Opens what it needs, gives up everything else, and serves until its parent ends. `parent` is that one's id. */
int names_front_run(const struct names_front *f, int parent, struct err *e) must_check;

#endif
