/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/workspace/describe.h"

#include <linux/mount.h>
#include <string.h>

#include "base/mem.h"
#include "base/own.h"

static json_t *list(const char *const *texts)
{
	json_t *array = json_array();

	for (; texts && *texts; texts++)
		(void)json_array_append_new(array, json_string(*texts));
	return array;
}

static void add_attributes(struct str *line, uint64_t attributes)
{
	static const struct {
		uint64_t bit;
		const char *name;
	} names[] = { { MOUNT_ATTR_RDONLY, "ro" },
		      { MOUNT_ATTR_NOSUID, "nosuid" },
		      { MOUNT_ATTR_NODEV, "nodev" },
		      { MOUNT_ATTR_NOEXEC, "noexec" } };

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (attributes & names[i].bit)
			str_printf(line, " %s", names[i].name);
}

static void add_quoted(struct str *line, const char *text)
{
	str_puts(line, " \"");
	for (; *text; text++)
		if (*text == '\n')
			str_puts(line, "\\n");
		else
			str_putc(line, *text);
	str_putc(line, '"');
}

static void describe_step(struct str *line, const struct step *s)
{
	static const char *const verbs[] = { [STEP_MOUNT] = "mount",   [STEP_VOLUME] = "volume", [STEP_DEVICE] = "device",
					     [STEP_HOST] = "host",     [STEP_LINK] = "link",     [STEP_FOLDER] = "folder",
					     [STEP_HIDE] = "hide",     [STEP_READ_ONLY] = "read-only", [STEP_WRITE] = "write",
					     [STEP_CONSOLE] = "console", [STEP_FIRST] = "first",
					     [STEP_TUN] = "tun",	[STEP_FOREIGN] = "foreign" };
	static const char *const when[] = { "", " unless own", " if there" };

	str_printf(line, "%s %s", verbs[s->kind], s->target);
	switch (s->kind) {
	case STEP_MOUNT:
	case STEP_VOLUME:
		str_printf(line, " %s", s->source);
		add_attributes(line, s->number);
		str_printf(line, "%s%s", *s->text ? " " : "", s->text);
		break;
	case STEP_FOREIGN:
		str_printf(line, " %s", s->source);
		break;
	case STEP_LINK:
		str_printf(line, " -> %s", s->text);
		break;
	case STEP_WRITE:
		str_puts(line, when[s->number]);
		add_quoted(line, s->text);
		break;
	case STEP_FOLDER:
		str_printf(line, " %o", (unsigned)s->number);
		break;
	case STEP_READ_ONLY:
		str_printf(line, "%s%s", *s->text ? " but " : "", s->text);
		break;
	default:
		break;
	}
}

static json_t *describe_steps(const struct plan *p)
{
	json_t *steps = json_array();
	own_strbuf struct str line = { 0 };

	for (size_t i = 0; p->partitions[i]; i++) {
		str_clear(&line);
		str_printf(&line, "layer %s, ids from %u on", p->partitions[i], (unsigned)p->first_id);
		(void)json_array_append_new(steps, json_string(str_text(&line)));
	}
	(void)json_array_append_new(steps, json_string("overlay / userxattr xino=on"));
	for (size_t i = 0; i < p->step_count; i++) {
		str_clear(&line);
		describe_step(&line, &p->steps[i]);
		(void)json_array_append_new(steps, json_string(str_text(&line)));
	}
	return steps;
}

static json_t *describe_flags(uint64_t flags)
{
	static const char *const names[] = { "system",     "held",     "paused", "maintenance",
					     "throw-away", "terminal", "input",  "host-network" };
	json_t *array = json_array();

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (flags & (UINT64_C(1) << i))
			(void)json_array_append_new(array, json_string(names[i]));
	return array;
}

/* NULL: none. */
static json_t *describe_interfaces(const struct plan *p)
{
	static const char *const keys[INTERFACE_TEXTS] = { "port", "bridge", "device",   "mac",      "mtu",  "isolated",
							   "ipv4", "ipv6",   "gateway4", "gateway6", "vlan", "pool6" };
	json_t *array = p->interfaces && p->interfaces[0] ? json_array() : NULL;

	for (const char **at = p->interfaces; array && *at; at += INTERFACE_TEXTS) {
		json_t *one = json_object();
		for (size_t i = 0; i < INTERFACE_TEXTS; i++)
			if (*at[i])
				(void)json_object_set_new(one, keys[i], json_string(at[i]));
		(void)json_array_append_new(array, one);
	}
	return array;
}

json_t *describe_plan(const struct plan *p)
{
	own_str char *capabilities = mem_printf("%010llx", (unsigned long long)p->capabilities);
	own_str char *ids = mem_printf("%u-%u", (unsigned)p->first_id, (unsigned)(p->first_id + 65535));
	json_t *program = json_pack("{s:o, s:o, s:s, s:s, s:I}", "command", list(p->argv), "environment", list(p->environment),
				    "user", p->user, "directory", p->directory, "stop_signal", (json_int_t)p->stop_signal);

	return json_pack("{s:s, s:s, s:o, s:s, s:s, s:s, s:o, s:o, s:s, s:o*, s:o, s:o}", "engine", "workspace", "mode",
			 p->flags & PLAN_SYSTEM ? "system" : "program", "flags", describe_flags(p->flags), "host_name",
			 p->host_name, "ids", ids, "namespaces",
			 p->flags & PLAN_HOST_NETWORK ? "user mount pid ipc uts cgroup time" :
							"user mount pid network ipc uts cgroup time",
			 "program", program, "cgroups", list(p->cgroups_v1), "capabilities", capabilities, "interfaces",
			 describe_interfaces(p), "volumes", list(p->volumes), "steps", describe_steps(p));
}
