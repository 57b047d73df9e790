/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table, and the one rule of who a caller is. The kernel says uid and groups of the peer as they were when it connected;
 * names of groups are looked up and remembered for ten seconds, so a change of the group file counts soon, and a busy service
 * does not read it per connection. The cache is the loop's thread's. A root peer and the service's own user are administrators
 * whatever groups there are.
 */
#include "service/config.h"

#include <errno.h>
#include <grp.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/own.h"
#include "base/settings.h"
#include "model/name.h"
#include "model/network.h"

static const char *const who_names[] = { "admins", "users", NULL };
static const char *const level_names[] = { "error", "warn", "info", "detail", NULL };

#define C(member) offsetof(struct config, member)
static const struct field fields[] = {
	{ "state", FIELD_TEXT, C(state), "folder of the database and the images", .check = name_check_path,
	  .example = "/var/lib/carrel" },
	{ "run", FIELD_TEXT, C(run), "folder of the socket", .check = name_check_path, .example = "/run/carrel" },
	{ "admins", FIELD_TEXT, C(admin_group), "group whose members may do everything", .max = 64, .example = "carrel-admin" },
	{ "users", FIELD_TEXT, C(user_group), "group whose members own workspaces", .max = 64, .example = "carrel" },
	{ "viewers", FIELD_TEXT, C(viewer_group), "group whose members see everything and change nothing", .max = 64,
	  .example = "carrel-viewer" },
	{ "registry-passwords", FIELD_TEXT, C(registry_passwords),
	  "file in the form of ~/.docker/config.json with user names and passwords of registries, used for requests that bring "
	  "none",
	  .check = name_check_path },
	{ "everyone", FIELD_BOOL, C(everyone), "every local user may own workspaces" },
	{ "socket-mode", FIELD_NUMBER, C(socket_mode), "permissions of the socket, as chmod takes them", .max = 777,
	  .preset = 666, .example = "666" },
	{ "workspaces-per-user", FIELD_NUMBER, C(workspaces_per_user), "most workspaces of one user; administrators have no "
	  "limit", .min = 1,
	  .max = 1000000, .preset = 1000, .example = "1000" },
	{ "connections-per-user", FIELD_NUMBER, C(connections_per_user), "most connections of one user at a time", .min = 1,
	  .max = 10000, .preset = 128, .example = "128" },
	{ "import-layer-size", FIELD_BYTES, C(import.layer_bytes), "most bytes of a layer of an imported image, unpacked",
	  .min = 1 << 20, .max = UINT64_C(1) << 40, .preset = UINT64_C(1) << 40, .example = "1TiB" },
	{ "import-entries", FIELD_NUMBER, C(import.entries), "most files and directories of a layer; 8 million take 1 GiB of "
	  "memory during the import",
	  .min = 100, .max = 8000000, .preset = 8000000, .example = "8000000" },
	{ "import-depth", FIELD_NUMBER, C(import.depth), "most directories inside each other", .min = 8, .max = 256,
	  .preset = 256, .example = "256" },
	{ "events-kept", FIELD_NUMBER, C(events_kept), "how many events are kept", .min = 1000, .max = 10000000,
	  .preset = 100000, .example = "100000" },
	{ "operations-kept", FIELD_DURATION, C(operation_kept_ms), "how long an operation can be asked for after its end",
	  .min = 60000, .max = UINT64_C(31536000000), .preset = 86400000, .example = "1d" },
	{ "address-rest", FIELD_DURATION, C(address_rest_ms), "how long the address of a removed workspace rests before "
	  "another workspace gets it",
	  .max = 86400000, .preset = 60000, .example = "60s" },
	{ "network-pools", FIELD_TEXTS, C(network_pools),
	  "private ranges from which a network without an IPv4 pool of its own gets a /24; 10.120.0.0/13, 10.200.0.0/13 and "
	  "172.28.0.0/14 when missing",
	  .max = 16, .check = network_check_prefix },
	{ "host-network", FIELD_ENUM, C(host_network), "who may deploy on the host's own network: admins or users",
	  .names = who_names },
	{ "bridge-networks", FIELD_ENUM, C(bridge_networks),
	  "who may connect workspaces to networks of kind bridge: admins or users", .names = who_names },
	{ "low-ports", FIELD_ENUM, C(low_ports), "who may publish ports below 1024 of the host: admins or users",
	  .names = who_names },
	{ "log-level", FIELD_ENUM, C(log_level), "error, warn, info or detail", .names = level_names, .preset = 2,
	  .example = "info" },
	{ "openapi", FIELD_BOOL, C(openapi), "print the description of the API (OpenAPI 3.1) and end" },
	{ 0 },
};
static const struct shape shape = { "carreld", sizeof(struct config), fields, "Settings of carreld." };

static const struct settings settings = {
	.program = "carreld",
	.what = "The service of a site: API, users, state, and the wishes for its hosts.",
	.description = "Serves the API on RUN/carreld.sock. Who a caller is follows from the credentials of its process: root, "
		       "the service's own user and the members of the admins' group may do everything; members of the users' "
		       "group own workspaces; members of the viewers' group see everything and change nothing; others are "
		       "refused.\n\n"
		       "State is in STATE/service/carrel.db. The process needs no root and may be killed at any time: what it "
		       "answered is stored, and what was under way goes on after its next start.",
	.shape = &shape,
	.config_path = "/etc/carrel/carreld.yaml",
};

static void preset(char **text, const char *value)
{
	if (!*text)
		*text = mem_strdup(value);
}

int config_read(int argc, char **argv, struct config *ret_config, struct err *e)
{
	struct config c = { 0 };
	int r = settings_read(&settings, argc, argv, &c, e);

	if (r != 0)
		return r;
	preset(&c.state, "/var/lib/carrel");
	preset(&c.run, "/run/carrel");
	preset(&c.admin_group, "carrel-admin");
	preset(&c.user_group, "carrel");
	preset(&c.viewer_group, "carrel-viewer");
	*ret_config = c;
	return 0;
}

void config_done(struct config *c) { shape_done(&shape, c); }

/* Looked up at most once in ten seconds and group: the group file is read for each look-up. */
static bool in_group(const char *name, const gid_t *groups, size_t count)
{
	static struct {
		char name[65];
		gid_t gid;
		bool known;
		time_t until;
	} cache[3];
	size_t at = 0;
	time_t now = time(NULL);

	while (at < 2 && cache[at].name[0] && strcmp(cache[at].name, name) != 0)
		at++;
	if (strcmp(cache[at].name, name) != 0 || cache[at].until <= now) {
		struct group *g = getgrnam(name);
		(void)snprintf(cache[at].name, sizeof cache[at].name, "%s", name);
		cache[at].known = g != NULL;
		cache[at].gid = g ? g->gr_gid : 0;
		cache[at].until = now + 10;
	}
	for (size_t i = 0; cache[at].known && i < count; i++)
		if (groups[i] == cache[at].gid)
			return true;
	return false;
}

struct identity identity_decide(const struct config *c, uid_t uid, const gid_t *groups, size_t count)
{
	struct identity who = { .uid = uid };

	who.admin = uid == 0 || uid == geteuid() || in_group(c->admin_group, groups, count);
	who.user = who.admin || c->everyone || in_group(c->user_group, groups, count);
	who.viewer = who.admin || in_group(c->viewer_group, groups, count);
	return who;
}

int identity_of_peer(const struct config *c, int fd, struct identity *ret_identity, struct err *e)
{
	struct ucred cred;
	socklen_t size = sizeof cred;
	gid_t few[64];
	own_str gid_t *many = NULL;
	gid_t *groups = few;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &size) < 0)
		return err_errno(e, errno, "credentials of the peer");
	socklen_t length = sizeof few;
	int r = getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, few, &length);
	if (r < 0 && errno == ERANGE) {
		groups = many = mem_alloc(length);
		r = getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, many, &length);
	}
	if (r < 0)
		return err_errno(e, errno, "groups of the peer");
	size_t count = length / sizeof *groups;
	*ret_identity = identity_decide(c, cred.uid, groups, count);
	if (!ret_identity->admin || !ret_identity->viewer) { /* the primary group is not among the supplementary ones */
		struct identity primary = identity_decide(c, cred.uid, &cred.gid, 1);
		ret_identity->admin |= primary.admin;
		ret_identity->user |= primary.user;
		ret_identity->viewer |= primary.viewer;
	}
	return 0;
}
