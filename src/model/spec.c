/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tables, and the few rules that no single field can hold (check_spec). What a member needs of the site - an image that
 * exists, a network that has a free address, a right - is the service's; a spec that passes here may still be refused there,
 * never the other way round.
 *
 * Zero and NULL mean "not said". Presets of resources are in the table and once more in spec_resources_or_default, for a spec
 * without them.
 */
#include "model/spec.h"

#include <inttypes.h>
#include <stddef.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "model/name.h"
#include "model/rule.h"

const char *const spec_engine_names[] = { "auto", "workspace", "app", "kvm", "emulator", "xen", "vmware", NULL };
const char *const spec_isolation_names[] = { "namespace", "machine", NULL };
const char *const spec_mode_names[] = { "auto", "system", "program", NULL };
const char *const spec_restart_names[] = { "no", "on-failure", "always", NULL };
const char *const spec_until_names[] = { "running", "staged", "prepared", "paused", NULL };
static const char *const network_names[] = { "auto", "none", "host", NULL };

static int check_image(const char *image, struct err *e)
{
	if (str_starts(image, "sha256:"))
		return strlen(image) == 71 ? 0 : err_set(e, ERR_INVALID, "an image digest is sha256: and 64 hex digits");
	return name_check_image(image, e);
}

static int check_user(const char *user, struct err *e)
{
	for (const char *p = user; *p; p++)
		if ((unsigned char)*p < 0x21 || *p == 0x7f || *p == '/')
			return err_set(e, ERR_INVALID, "a user is a name or a number, optionally with ':' and a group");
	return *user ? 0 : err_set(e, ERR_INVALID, "a user may not be empty");
}

static int check_architecture(const char *architecture, struct err *e)
{
	for (const char *at = architecture; *at; at++)
		if (!(*at >= 'a' && *at <= 'z') && !(*at >= '0' && *at <= '9'))
			return err_set(e, ERR_INVALID, "a processor has a name such as amd64, arm64 or riscv64");
	return *architecture ? 0 : err_set(e, ERR_INVALID, "a processor's name may not be empty");
}

#define R(member) offsetof(struct spec_resources, member)
static const struct field resource_fields[] = {
	{ "cpu", FIELD_MILLI, R(cpu_milli), "processors, for example 1.5; without it the whole host's", .min = 10,
	  .max = 1024000, .example = "2" },
	{ "memory", FIELD_BYTES, R(memory_bytes), "memory with everything the workspace's processes cause; without it no limit",
	  .min = 4 << 20, .max = UINT64_C(1) << 44, .example = "2GiB" },
	{ "disk", FIELD_BYTES, R(disk_bytes), "size of the root volume", .min = SPEC_DISK_LEAST, .max = SPEC_DISK_MOST,
	  .preset = SPEC_DISK_DEFAULT, .example = "20GiB" },
	{ "processes", FIELD_NUMBER, R(processes), "processes and threads at one time", .min = 1, .max = 4194304,
	  .preset = SPEC_PROCESSES_DEFAULT, .example = "1000" },
	{ 0 },
};
const struct shape spec_resources_shape = { "resources", sizeof(struct spec_resources), resource_fields,
					    "How much the workspace gets.", NULL };

#define V(member) offsetof(struct spec_volume, member)
static const struct field volume_fields[] = {
	{ "name", FIELD_TEXT, V(name), "name, unique in the workspace", .required = true, .check = name_check,
	  .example = "data" },
	{ "size", FIELD_BYTES, V(size_bytes), "size; the limit is hard", .required = true, .min = SPEC_DISK_LEAST,
	  .max = SPEC_DISK_MOST, .example = "5GiB" },
	{ "mount", FIELD_TEXT, V(mount), "folder in the workspace where it appears", .required = true, .check = name_check_path,
	  .example = "/srv/data" },
	{ "keep", FIELD_BOOL, V(keep), "stays when the workspace is removed; a later workspace that names it gets it again" },
	{ "read-only", FIELD_BOOL, V(read_only), "mounted for reading only" },
	{ 0 },
};
static const struct shape volume_shape = { "volume", sizeof(struct spec_volume), volume_fields, "A data volume.", NULL };

#define I(member) offsetof(struct spec_interface, member)
static const struct field interface_fields[] = {
	{ "network", FIELD_TEXT, I(network), "name of the network", .required = true, .check = name_check, .example = "lab" },
	{ "ipv4", FIELD_TEXT, I(ipv4), "IPv4 address; one of the pool when missing", .check = network_check_address,
	  .example = "10.88.0.20" },
	{ "ipv6", FIELD_TEXT, I(ipv6), "IPv6 address; one of the pool when missing", .check = network_check_address },
	{ "mac", FIELD_TEXT, I(mac), "hardware address; one is made when missing", .check = network_check_mac },
	{ "rates", FIELD_OBJECT, I(rates), "bandwidth in both directions", .shape = &network_rates_shape },
	{ 0 },
};

static int check_interface(const void *value, struct err *e)
{
	const struct spec_interface *i = value;

	if ((i->ipv4 && strchr(i->ipv4, ':')) || (i->ipv6 && !strchr(i->ipv6, ':')))
		return err_set(e, ERR_INVALID, "network '%s': the address is of the other family", i->network);
	return 0;
}

static const struct shape interface_shape = { "interface", sizeof(struct spec_interface), interface_fields,
					    "An interface on a network.", check_interface };

#define S(member) offsetof(struct spec, member)
static const struct field spec_fields[] = {
	{ "name", FIELD_TEXT, S(name), "name of the workspace; one is made up when it is missing", .check = name_check,
	  .example = "web" },
	{ "image", FIELD_TEXT, S(image), "name[:tag] or digest of an imported image", .required = true, .check = check_image,
	  .example = "debian" },
	{ "engine", FIELD_ENUM, S(engine), "how the workspace is isolated", .names = spec_engine_names },
	{ "isolation", FIELD_ENUM, S(isolation), "the least wall around it: the host's kernel's namespaces, or a machine with "
	  "a kernel of its own",
	  .names = spec_isolation_names },
	{ "kernel", FIELD_TEXT, S(kernel), "kernel of a machine; the one that the image asks for, or the site's default, when "
	  "missing",
	  .check = name_check_image, .example = "linux" },
	{ "architecture", FIELD_TEXT, S(architecture), "processor that the image must be for; whatever it is for when missing",
	  .max = 16, .check = check_architecture, .example = "arm64" },
	{ "mode", FIELD_ENUM, S(mode), "system: the image's own init; program: one command", .names = spec_mode_names },
	{ "command", FIELD_TEXTS, S(command), "program and arguments instead of the image's own",
	  .example = "[sleep, infinity]" },
	{ "environment", FIELD_PAIRS, S(environment), "environment variables beside the image's", .check = name_check_key },
	{ "user", FIELD_TEXT, S(user), "user[:group] that runs the command, by name or number", .max = 256,
	  .check = check_user },
	{ "directory", FIELD_TEXT, S(directory), "working directory", .check = name_check_path },
	{ "terminal", FIELD_BOOL, S(terminal), "give the command a terminal" },
	{ "interactive", FIELD_BOOL, S(interactive), "keep standard input open" },
	{ "resources", FIELD_OBJECT, S(resources), "cpu, memory, disk, processes", .shape = &spec_resources_shape },
	{ "volumes", FIELD_OBJECTS, S(volumes), "data volumes", .max = 64, .shape = &volume_shape },
	{ "hostname", FIELD_TEXT, S(host_name), "host name inside; the workspace's name when missing", .check = name_check },
	{ "network", FIELD_ENUM, S(network),
	  "auto: the networks listed, or the site's network 'default'; none: loopback only; host: the host's network "
	  "(administrators only)",
	  .names = network_names },
	{ "networks", FIELD_OBJECTS, S(networks), "one interface each: eth0, eth1, ...", .max = NETWORK_INTERFACES,
	  .shape = &interface_shape },
	{ "groups", FIELD_TEXTS, S(groups), "groups it is in", .max = 64, .check = name_check, .example = "[lab-a]" },
	{ "allow", FIELD_TEXTS, S(allow), "where it may open connections to; the WAN when missing", .max = 256,
	  .check = rule_check, .example = "[wan, \"group:lab-a tcp/22,5432\", \"workspace:db\"]" },
	{ "deny", FIELD_TEXTS, S(deny), "exceptions from allow and from", .max = 256, .check = rule_check,
	  .example = "[192.0.2.0/24]" },
	{ "from", FIELD_TEXTS, S(from), "who may open connections to it; workspaces of the same owner or group when missing",
	  .max = 256, .check = rule_check,
	  .example = "[\"group:ops tcp/22\"]" },
	{ "isolated", FIELD_BOOL, S(isolated), "talks to nobody, whatever the other rules say" },
	{ "publish", FIELD_TEXTS, S(publish), "ports of the host that lead inside: [ADDRESS:]OUTSIDE:INSIDE[/tcp|/udp]",
	  .max = 256, .check = network_check_publish, .example = "[\"8080:80\"]" },
	{ "user-data", FIELD_TEXT, S(user_data), "user data of the metadata address (cloud-init)", .max = 65536 },
	{ "ssh-keys", FIELD_TEXTS, S(ssh_keys), "public keys that the metadata address serves", .max = 64 },
	{ "machine", FIELD_OBJECT, S(machine), "processor of a machine, and devices of one that boots a disk image",
	  .shape = &machine_wish_shape },
	{ "labels", FIELD_PAIRS, S(labels), "free key-value pairs for finding workspaces", .check = name_check_key },
	{ "restart", FIELD_ENUM, S(restart), "what happens when the command ends by itself", .names = spec_restart_names },
	{ "until", FIELD_ENUM, S(until), "rung of the ladder at which the deployment stops", .names = spec_until_names },
	{ "remove-on-exit", FIELD_BOOL, S(remove_on_exit), "remove the workspace when its command has ended" },
	{ "travels", FIELD_BOOL, S(travels), "may change its engine while it runs, with its memory (carrel move --live)" },
	{ "stop-timeout", FIELD_DURATION, S(stop_timeout_ms), "time for a clean shutdown before it is forced", .max = 3600000,
	  .preset = 10000, .example = "10s" },
	{ 0 },
};

static int check_volumes(const struct spec *s, struct err *e)
{
	const struct spec_volume *v = s->volumes.items;

	for (size_t i = 0; i < s->volumes.count; i++) {
		if (str_eq(v[i].mount, "/") || str_eq(v[i].name, "root"))
			return err_set(e, ERR_INVALID, "volume '%s': '/' and the name 'root' belong to the root volume",
				       v[i].name);
		for (size_t j = 0; j < i; j++)
			if (str_eq(v[i].name, v[j].name) || str_eq(v[i].mount, v[j].mount))
				return err_set(e, ERR_INVALID, "volumes '%s' and '%s' have the same name or the same mount",
					       v[j].name, v[i].name);
	}
	return 0;
}

static int check_spec(const void *value, struct err *e)
{
	const struct spec *s = value;

	if (s->isolation == ISOLATION_MACHINE && (s->engine == ENGINE_WORKSPACE || s->engine == ENGINE_APP))
		return err_set(e, ERR_INVALID, "engine '%s' is no machine, and isolation 'machine' is asked for",
			       spec_engine_names[s->engine]);
	if (s->restart != RESTART_NO && s->remove_on_exit)
		return err_set(e, ERR_INVALID, "restart and remove-on-exit exclude each other");
	if (s->travels && s->network == NETWORK_HOST)
		return err_set(e, ERR_INVALID, "what has the host's network cannot travel");
	if (s->mode == MODE_SYSTEM && s->command.count)
		return err_set(e, ERR_INVALID, "mode 'system' runs the image's own init and takes no command");
	if (s->command.count && !s->command.items[0][0])
		return err_set(e, ERR_INVALID, "the command's first word is empty");
	if (s->network != NETWORK_AUTO && (s->networks.count || s->publish.count))
		return err_set(e, ERR_INVALID, "network '%s' has no interfaces: networks and publish do not go with it",
			       network_names[s->network]);
	return check_volumes(s, e);
}

const struct shape spec_shape = { "workspace-spec", sizeof(struct spec), spec_fields, "What a workspace shall be.",
				  check_spec };

int spec_parse(const char *bytes, size_t length, const char *source, struct spec *ret_spec, struct err *e)
{
	*ret_spec = (struct spec){ 0 };
	return decode_text(bytes, length, source, &spec_shape, ret_spec, e);
}

struct spec_resources spec_resources_or_default(const struct spec *s)
{
	return s->resources ? *s->resources :
			      (struct spec_resources){ .disk_bytes = SPEC_DISK_DEFAULT, .processes = SPEC_PROCESSES_DEFAULT };
}

char *spec_sizes(const struct spec *s)
{
	const struct spec_volume *v = s->volumes.items;
	struct spec_resources r = spec_resources_or_default(s);
	struct str text = { 0 };

	str_printf(&text, "%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64, r.cpu_milli, r.memory_bytes, r.processes,
		   r.disk_bytes);
	for (size_t i = 0; i < s->volumes.count; i++)
		str_printf(&text, ",%" PRIu64, v[i].size_bytes);
	return str_take(&text);
}

void spec_done(struct spec *s) { shape_done(&spec_shape, s); }
