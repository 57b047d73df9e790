/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SERVICE_CONFIG_H
#define SERVICE_CONFIG_H

/* Settings of carreld (/etc/carrel/carreld.yaml) and who a peer is under them. */

#include <sys/types.h>

#include "base/decode.h"
#include "store/import.h"

struct config {
	char *state, *run;
	unsigned log_level;          /* an index into the levels of base/log.h: error, warn, info, detail */
	bool openapi;
	char *admin_group, *user_group, *viewer_group;
	char *registry_passwords;    /* file like ~/.docker/config.json; NULL: none */
	bool everyone;               /* every local user owns workspaces */
	uint64_t socket_mode;        /* written as decimal digits that read as octal: 666 */
	struct import_limits import; /* of archives from outside */
	uint64_t workspaces_per_user;
	uint64_t connections_per_user;
	uint64_t events_kept;
	uint64_t operation_kept_ms;
	uint64_t address_rest_ms;    /* before an address is given to another workspace */
	struct texts network_pools;  /* where networks without a pool of their own get one; none: config_pools */
	unsigned host_network, bridge_networks, low_ports; /* who may: enum config_who */
};

enum config_who { WHO_ADMINS, WHO_USERS };
/* 5,120 networks: parts of the private ranges that routers, container tools and VPNs leave alone by default. */
#define CONFIG_POOLS "10.120.0.0/13", "10.200.0.0/13", "172.28.0.0/14"

/* From the arguments and the file. 1: --help or its like was asked for and printed. */
int config_read(int argc, char **argv, struct config *ret_config, struct err *e) must_check;
void config_done(struct config *c);

struct identity {
	uid_t uid;
	bool admin, user, viewer; /* none: refused */
};
/* From SO_PEERCRED and SO_PEERGROUPS of a connected unix socket. */
int identity_of_peer(const struct config *c, int fd, struct identity *ret_identity, struct err *e) must_check;
/* The rule itself: pure but for the group database. */
struct identity identity_decide(const struct config *c, uid_t uid, const gid_t *groups, size_t count);

#endif
