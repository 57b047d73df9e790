/* SPDX-License-Identifier: Apache-2.0 */
#include "node/config.h"

#include <stdlib.h>

#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "model/name.h"
#include "model/spec.h"

static const char *const level_names[] = { "error", "warn", "info", "detail", NULL };
static const char *const mount_names[] = { "auto", "file", "loop", NULL };
static const char *const memory_names[] = { "compress", "keep", NULL };
static const char *const guest_volumes_names[] = { "checked", "copied", "refused", NULL };

/* A path below each hierarchy's root: "carrel", "system.slice/carrel-node.service/workspaces". */
static int check_cgroup(const char *path, struct err *e)
{
	own_str char *absolute = mem_printf("/%s", path);
	return *path ? name_check_path(absolute, e) : err_set(e, ERR_INVALID, "a cgroup needs a name");
}

#define C(member) offsetof(struct config, member)
static const struct field fields[] = {
	{ "state", FIELD_TEXT, C(state), "folder of lasting data", .check = name_check_path, .example = "/var/lib/carrel" },
	{ "run", FIELD_TEXT, C(run), "folder of sockets and mounts", .check = name_check_path, .example = "/run/carrel" },
	{ "store", FIELD_TEXT, C(store), "store of partitions", .check = name_check_path, .example = "STATE/store" },
	{ "name", FIELD_TEXT, C(name), "name of this host", .check = name_check, .example = "local" },
	{ "service", FIELD_TEXT, C(service), "address of carreld", .example = "unix:RUN/carreld.sock" },
	{ "cgroup", FIELD_TEXT, C(cgroup), "parent cgroup of all workspaces", .check = check_cgroup, .example = "carrel" },
	{ "first-id", FIELD_NUMBER, C(first_id), "first user and group id given to workspaces", .min = 65536,
	  .max = UINT32_MAX - 65536, .preset = 1879048192, .example = "1879048192" },
	{ "id-ranges", FIELD_NUMBER, C(id_ranges), "ranges of 65536 ids from there on: most workspaces at a time", .min = 1,
	  .max = 32768, .preset = 4094, .example = "4094" },
	{ "workers", FIELD_NUMBER, C(workers), "workspaces worked on at a time", .min = 1, .max = 64, .preset = 8,
	  .example = "8" },
	{ "blanks", FIELD_NUMBER, C(blanks), "ready-made volumes of each size", .max = 1024, .preset = 8, .example = "8" },
	{ "blank-size", FIELD_BYTES, C(blank_bytes), "size of volumes to have ready from the start",
	  .preset = SPEC_DISK_DEFAULT, .example = "10G" },
	{ "ahead", FIELD_NUMBER, C(ahead), "runners, and mounted root volumes of each size, made before they are asked for",
	  .max = 64, .preset = 4, .example = "4" },
	{ "keep-mounted", FIELD_DURATION, C(keep_mounted_ms), "how long unused partitions stay mounted", .preset = 60000,
	  .example = "60s" },
	{ "boot-timeout", FIELD_DURATION, C(boot_ms), "how long a machine may take to boot; then it is started once more, and "
	  "then given up",
	  .min = 1000, .max = 3600000, .preset = 60000, .example = "60s" },
	{ "templates", FIELD_BYTES, C(template_bytes), "disk for templates, from which machines start without booting; 0: they "
	  "always boot",
	  .preset = UINT64_C(2) << 30, .example = "2G" },
	{ "link-speed", FIELD_RATE, C(link_bits), "of the host's link to the site, of which guaranteed rates are shares; 0: as "
	  "its device says",
	  .example = "1G" },
	{ "mount", FIELD_ENUM, C(mount), "how partitions are mounted: auto, file or loop", .names = mount_names,
	  .example = "auto" },
	{ "guest-volumes", FIELD_ENUM, C(guest_volumes), "what a machine wrote, before this host mounts it: checked (e2fsck in "
	  "a sandbox), copied into a new volume by a helper machine, or refused",
	  .names = guest_volumes_names, .example = "checked" },
	{ "memory", FIELD_ENUM, C(memory), "of suspended workspaces, on disk: compress it, or keep it as it is",
	  .names = memory_names, .example = "compress" },
	{ "memory-after", FIELD_DURATION, C(memory_after_ms), "how long a workspace is suspended before its memory is "
	  "compressed: a resume before that is faster", .max = UINT64_C(365) * 86400000, .preset = 300000, .example = "5m" },
	{ "log-level", FIELD_ENUM, C(log_level), "error, warn, info or detail", .names = level_names, .preset = 2,
	  .example = "info" },
	{ "clean", FIELD_BOOL, C(clean), "stop all workspaces of this host, take mounts, cgroups and sockets away, and end" },
	{ "facts", FIELD_BOOL, C(facts), "print what this host can do as JSON, and end" },
	{ 0 },
};
static const struct shape shape = { "carrel-node", sizeof(struct config), fields, "Settings of the agent of one host." };

static const struct settings node_settings = {
	.program = "carrel-node",
	.what = "The agent of one host: makes true what carreld assigns to it.",
	.description =
		"Connects to carreld over its socket, takes assignments and reports what is true. Partitions are mounted once "
		"per host, volumes are taken from ready-made blanks, and each workspace gets a runner (carrel-run) of its own "
		"that outlives the agent. After a restart the agent finds its workspaces again; workspaces never stop because "
		"of it.\n\n"
		"SIGTERM ends the agent and leaves all workspaces running. With --clean it stops them, takes mounts, cgroups "
		"and sockets of this host away, and ends; volumes and records stay.",
	.shape = &shape,
	.config_path = "/etc/carrel/node.yaml",
};

static void preset(char **text, char *value)
{
	if (*text)
		free(value);
	else
		*text = value;
}

int config_read(int argc, char **argv, struct config *ret_config, struct err *e)
{
	struct config c = { 0 };
	int r = settings_read(&node_settings, argc, argv, &c, e);

	if (r != 0)
		return r;
	preset(&c.state, mem_strdup("/var/lib/carrel"));
	preset(&c.run, mem_strdup("/run/carrel"));
	preset(&c.name, mem_strdup("local"));
	preset(&c.cgroup, mem_strdup("carrel"));
	preset(&c.store, mem_printf("%s/store", c.state));
	preset(&c.service, mem_printf("unix:%s/carreld.sock", c.run));
	*ret_config = c;
	return 0;
}

void config_done(struct config *c) { shape_done(&shape, c); }
