/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NETWORK_NAMES_H
#define NETWORK_NAMES_H

/*
 * Names and addresses told to workspaces: one dnsmasq for each network of this host, which answers on that network's bridge and
 * nowhere else. It hands out exactly the addresses that the service decided (DHCPv4, DHCPv6, router advertisements with the
 * prefix off-link, as all traffic goes by the host), and knows the workspaces of its network by NAME.ZONE.
 *
 * It is started through carrel-names, which takes everything from it but its folder and its sockets, and outlives the agent. A
 * folder:
 *   config        what it was started with
 *   pid           "PID STARTTIME PID STARTTIME" of it and of the front before it (names_front.h), so that a number used again
 *                 is not
 *                 mistaken for one of them
 *   front         the front's number, as it says itself when it listens
 *   log           what both said
 *   data/hosts/   one file for each workspace: addresses and names (read by inotify)
 *   data/dhcp/    one file for each attachment: hardware address, addresses (read by inotify; a removal needs a SIGHUP)
 *   data/leases, data/resolv.conf
 *   root/         where the root of both is put together (names_main.c)
 * Calls for one folder are not made at the same time.
 */

#include "base/str.h"
#include "model/network.h"

struct names {
	const struct network *network;
	const char *bridge; /* the host's interface on it; it has the gateway's addresses */
};

/* The configuration of dnsmasq: pure. */
int names_config(const struct names *n, struct str *ret_config, struct err *e) must_check;
/* Makes it run with this configuration: 0 when it did, 1 when it was started (anew). Keeps the host's resolv.conf current. */
int names_start(const char *folder, const struct names *n, struct err *e) must_check;
/* Ends it and removes the folder; nothing there is fine. */
int names_stop(const char *folder, struct err *e) must_check;

/* A workspace of the network: its names and its lease. Writing the same again does nothing. */
int names_put(const char *folder, const struct names *n, const struct member *m, struct err *e) must_check;
int names_remove(const char *folder, const char *id, struct err *e) must_check;
/* Takes away all workspaces but those that `known` knows. */
int names_sweep(const char *folder, bool (*known)(void *data, const char *id), void *data, struct err *e) must_check;

#endif
