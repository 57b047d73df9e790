/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. A plan says everything that carrel-run will do, in order, so that it can be read before it happens and compared with
 * a golden file. What differs between a full system and a single program is decided here and nowhere else:
 *
 *                     full system                              program
 *   first process     the image's init                         our own small init, the program as its child
 *   capabilities      all that mean nothing outside the        what an unprivileged container usually has
 *                     user namespace, and none that do
 *   no_new_privs      no (sudo and services work)              yes
 *   /run              tmpfs                                    of the image
 *   /dev/net/tun      yes, unless on the host's network        no (without CAP_NET_ADMIN it is of no use)
 *   /proc/sys/net     writable, unless on the host's network   read-only
 *   cgroup2 tree      writable, its own subtree                read-only
 *   machine-id        always                                   when the image has the file
 *
 * In a machine the kernel is the workspace's own: /dev, /proc and /sys are whole, a system keeps all capabilities, and there is
 * no seccomp filter (its rules are for the host's processor). Programs have the same user, rights and files in both.
 *
 * Masks over /proc and /sys are the second wall: the first is that the kernel treats the workspace's root as an ordinary user.
 */
#include "engine/workspace/request.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <linux/mount.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/own.h"
#include "model/name.h"
#include "model/runner_protocol.h"
#include "model/travel.h"

#define OPEN_FILES 1048576
#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

#define BIT(capability) (UINT64_C(1) << (capability))

/* capabilities(7). Each of these reaches past the workspace or is of no use in it. */
#define NOT_FOR_SYSTEMS                                                                                                        \
	(BIT(CAP_SYS_MODULE) | BIT(CAP_SYS_RAWIO) | BIT(CAP_SYS_TIME) | BIT(CAP_MAC_ADMIN) | BIT(CAP_MAC_OVERRIDE) |           \
	 BIT(CAP_SYSLOG) | BIT(CAP_WAKE_ALARM) | BIT(CAP_BLOCK_SUSPEND) | BIT(CAP_SYS_PACCT) | BIT(CAP_BPF) |                 \
	 BIT(CAP_PERFMON) | BIT(CAP_AUDIT_CONTROL) | BIT(CAP_AUDIT_READ))
#define FOR_SYSTEMS ((BIT(CAP_LAST_CAP + 1) - 1) & ~NOT_FOR_SYSTEMS)
#define FOR_PROGRAMS                                                                                                           \
	(BIT(CAP_CHOWN) | BIT(CAP_DAC_OVERRIDE) | BIT(CAP_FOWNER) | BIT(CAP_FSETID) | BIT(CAP_KILL) | BIT(CAP_SETGID) |        \
	 BIT(CAP_SETUID) | BIT(CAP_SETPCAP) | BIT(CAP_NET_BIND_SERVICE) | BIT(CAP_NET_RAW) | BIT(CAP_SYS_CHROOT) |             \
	 BIT(CAP_MKNOD) | BIT(CAP_AUDIT_WRITE) | BIT(CAP_SETFCAP))

bool request_is_system(const struct launch *l)
{
	if (l->maintenance || l->spec->mode == MODE_PROGRAM)
		return false;
	return l->spec->mode == MODE_SYSTEM || (l->spec->command.count == 0 && l->image->init);
}

/* --- memory --- */

static void *own(struct request *r, void *thing)
{
	MEM_PUSH_ROOM(r->owned, r->owned_count, r->owned_room);
	return r->owned[r->owned_count++] = thing;
}

void request_done(struct request *r)
{
	for (size_t i = 0; i < r->owned_count; i++)
		free(r->owned[i]);
	free(r->owned);
	free(r->plan.steps);
	*r = (struct request){ 0 };
}

static const char **own_list(struct request *r, size_t most) { return own(r, mem_alloc_array(most + 1, sizeof(char *))); }

static const char **copy_list(struct request *r, const char *const *list)
{
	size_t n = 0;

	while (list && list[n])
		n++;
	const char **copy = own_list(r, n);
	for (size_t i = 0; i < n; i++)
		copy[i] = own(r, mem_strdup(list[i]));
	return copy;
}

static void step(struct request *r, enum step_kind kind, uint64_t number, const char *source, const char *target,
		 const char *text)
{
	MEM_PUSH_ROOM(r->plan.steps, r->plan.step_count, r->step_room);
	r->plan.steps[r->plan.step_count++] =
		(struct step){ .kind = kind, .number = number, .source = source, .target = target, .text = text };
}

/* --- the tree --- */

#define TMPFS_KIB_LEAST 4096 /* an init keeps its sockets and state there */
#define CLOSED (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC)

/* A tmpfs holds memory that is not given back until its files are removed, so each has a size: a share of the workspace's
 * memory, or of the host's when the workspace has no limit. Inodes are the kernel's memory; one for each page is plenty. */
static const char *tmpfs_options(struct request *r, const struct launch *l, const char *mode, unsigned percent)
{
	uint64_t kib = spec_resources_or_default(l->spec).memory_bytes / 1024 * percent / 100;

	if (!kib)
		return own(r, mem_printf("mode=%s,size=10%%,nr_inodes=102400", mode));
	if (kib < TMPFS_KIB_LEAST)
		kib = TMPFS_KIB_LEAST;
	return own(r, mem_printf("mode=%s,size=%" PRIu64 "k,nr_inodes=%" PRIu64, mode, kib, kib / 4));
}

/* systemd.exec(5). Namespaces inside a workspace's cannot be written to disk, so services share its host name, network, and
 * message queues, which are nobody else's (docs/decisions/0112). A unit's own drop-in is stronger. */
#define SERVICE_DEFAULTS WRITE_MARK "[Service]\nProtectHostname=no\nPrivateNetwork=no\nPrivateUsers=no\nPrivateIPC=no\n"

/* In a machine the modules' devices are listed by kmod, which an image made for containers may lack; there is no harm in that
 * (udev has them). */
#define DEVICES_LISTED WRITE_MARK "[Unit]\nConditionFileIsExecutable=/bin/kmod\n"

static void plan_dev(struct request *r, const struct launch *l, bool system, bool console)
{
	static const char *const devices[] = {
		"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"
	};
	static const char *const links[][2] = { { "/dev/ptmx", "pts/ptmx" },
						{ "/dev/fd", "/proc/self/fd" },
						{ "/dev/stdin", "/proc/self/fd/0" },
						{ "/dev/stdout", "/proc/self/fd/1" },
						{ "/dev/stderr", "/proc/self/fd/2" } };

	if (l->machine)
		step(r, STEP_MOUNT, MOUNT_ATTR_NOSUID, "devtmpfs", "/dev", "mode=755");
	else
		step(r, STEP_MOUNT, MOUNT_ATTR_NOSUID, "tmpfs", "/dev", "mode=755,size=64k,nr_inodes=4096");
	for (size_t i = 0; i < ARRAY_SIZE(devices) && !l->machine; i++)
		step(r, STEP_DEVICE, 0, "", devices[i], "");
	for (size_t i = l->machine ? 1 : 0; i < ARRAY_SIZE(links); i++) /* devtmpfs has its own ptmx */
		step(r, STEP_LINK, 0, "", links[i][0], links[i][1]);
	step(r, STEP_MOUNT, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, "devpts", "/dev/pts",
	     "newinstance,ptmxmode=0666,mode=620,gid=5");
	step(r, STEP_MOUNT, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, "tmpfs", "/dev/shm", tmpfs_options(r, l, "1777", 50));
	step(r, STEP_MOUNT, CLOSED, "mqueue", "/dev/mqueue", "");
	if (system && !l->machine && l->spec->network != NETWORK_HOST) /* it needs a network that is the workspace's own */
		step(r, STEP_TUN, 0, "", "/dev/net", "");
	if (!system && !l->machine)
		step(r, STEP_FIRST, 0, own(r, mem_printf("%s/libexec/carrel/carrel-first", l->inner ? "" : fs_prefix())),
		     PLAN_FIRST, "");
	if (console && !l->machine) /* a machine's is the kernel's */
		step(r, STEP_CONSOLE, 0, "", "/dev/console", "");
}

static void plan_proc_and_sys(struct request *r, const struct launch *l, bool system)
{
	/* What tells of, or acts on, the host. Those that a kernel does not have are passed over. */
	static const char *const hidden[] = { "/proc/acpi",	  "/proc/asound",      "/proc/interrupts",   "/proc/kcore",
					      "/proc/keys",	  "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi",
					      "/proc/sysrq-trigger", "/proc/timer_list", "/proc/timer_stats" };
	static const char *const read_only[] = { "/proc/bus", "/proc/fs", "/proc/irq" };

	step(r, STEP_MOUNT, CLOSED, "proc", "/proc", "");
	if (l->machine) {
		step(r, STEP_MOUNT, CLOSED, "sysfs", "/sys", "");
		return;
	}
	if (l->foreign) /* before /proc/sys is closed, and closed with it */
		step(r, STEP_FOREIGN, 0, l->foreign->user_program, "/proc/sys/fs/binfmt_misc",
		     own(r, machine_board_programs(l->foreign)));
	/* Which of these there are differs from kernel to kernel, and what is mounted on them could not be made again under
	 * another. They belong to the host's root, who is nobody inside: what travels can read a few more numbers of its host,
	 * no more. */
	for (size_t i = 0; i < ARRAY_SIZE(read_only) && !l->spec->travels; i++)
		step(r, STEP_READ_ONLY, 0, "", read_only[i], "");
	/* Below it the kernel shows the settings of the network namespace that asks, and lets its owner's root change them. */
	step(r, STEP_READ_ONLY, 0, "", "/proc/sys", system && l->spec->network != NETWORK_HOST ? "net" : "");
	for (size_t i = 0; i < ARRAY_SIZE(hidden) && !l->spec->travels; i++)
		step(r, STEP_HIDE, 0, "", hidden[i], "");
	/* sysfs shows the network namespace it is mounted in, which must be the workspace's own. */
	if (l->spec->network == NETWORK_HOST)
		step(r, STEP_HOST, 0, "/sys", "/sys", "");
	else
		step(r, STEP_MOUNT, CLOSED | MOUNT_ATTR_RDONLY, "sysfs", "/sys", "");
	if (!l->spec->travels)
		step(r, STEP_HIDE, 0, "", "/sys/firmware", "");
	if (l->cgroups.v2)
		step(r, STEP_MOUNT, CLOSED | (system ? 0 : MOUNT_ATTR_RDONLY), "cgroup2", "/sys/fs/cgroup", "");
}

static void plan_volumes(struct request *r, const struct launch *l)
{
	const char **names = own_list(r, l->volume_count);

	for (size_t i = 0; i < l->volume_count; i++) {
		const struct launch_volume *v = &l->volumes[i];
		names[i] = own(r, mem_strdup(v->name));
		step(r, STEP_VOLUME, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | (v->read_only ? MOUNT_ATTR_RDONLY : 0), names[i],
		     own(r, mem_strdup(v->mount)), "");
	}
	r->plan.volumes = names;
}

/* Stable for the life of a workspace and different from that of any other, as machine-id(5) wants; not to be guessed
 * backwards. */
char *request_machine_id(const char *id)
{
	own_str char *text = mem_printf("carrel machine-id %s", id);
	struct digest d = hash_bytes(text, strlen(text));
	char hex[DIGEST_HEX_SIZE];

	d.bytes[6] = (uint8_t)((d.bytes[6] & 0x0f) | 0x40); /* a version 4 UUID */
	d.bytes[8] = (uint8_t)((d.bytes[8] & 0x3f) | 0x80);
	(void)digest_hex(&d, hex);
	return mem_printf("%.32s\n", hex);
}

/* Who answers for names; a link instead of a file (systemd-resolved) is left alone, and asks its servers by DHCP. */
static void plan_resolver(struct request *r, const struct launch *l)
{
	struct str text = { 0 };
	bool any = false;

	str_puts(&text, WRITE_MARK);
	for (size_t i = 0; i < l->interface_count; i++)
		if (l->interfaces[i].zone) {
			str_printf(&text, "%s %s", any ? "" : "search", l->interfaces[i].zone);
			any = true;
		}
	str_puts(&text, any ? "\n" : "");
	for (size_t i = 0; i < l->interface_count; i++)
		for (size_t d = 0; d < ARRAY_SIZE(l->interfaces[i].dns); d++)
			if (l->interfaces[i].dns[d])
				str_printf(&text, "nameserver %s\n", l->interfaces[i].dns[d]);
	if (l->interface_count)
		step(r, STEP_WRITE, WRITE_ALWAYS, "", "/etc/resolv.conf", own(r, mem_strdup(str_text(&text))));
	str_done(&text);
}

static void plan_identity(struct request *r, const struct launch *l, bool system)
{
	const char *host = r->plan.host_name;

	step(r, STEP_WRITE, WRITE_ALWAYS, "", "/etc/hostname", own(r, mem_printf("%s\n", host)));
	step(r, STEP_WRITE, WRITE_UNLESS_OWN, "", "/etc/hosts",
	     own(r, mem_printf(PLAN_HOSTS, host)));
	step(r, STEP_WRITE, system ? WRITE_ALWAYS : WRITE_IF_THERE, "", "/etc/machine-id", own(r, request_machine_id(l->id)));
	if (l->spec->network == NETWORK_HOST)
		step(r, STEP_HOST, 1, "/etc/resolv.conf", "/etc/resolv.conf", "");
	plan_resolver(r, l);
}

/* systemd-system.conf(5): services do not inherit the manager's own environment. */
static const char *travel_manager(struct request *r)
{
	struct str text = { 0 };

	str_puts(&text, WRITE_MARK "[Manager]\nDefaultEnvironment=");
	for (size_t i = 0; travel_environment[i]; i++)
		str_printf(&text, "%s\"%s\"", i ? " " : "", travel_environment[i]);
	str_puts(&text, "\n");
	return own(r, text.bytes);
}

static void plan_tree(struct request *r, const struct launch *l, bool system)
{
	plan_proc_and_sys(r, l, system);
	plan_dev(r, l, system, system || l->spec->terminal);
	if (system) {
		step(r, STEP_MOUNT, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, "tmpfs", "/run", tmpfs_options(r, l, "755", 20));
		step(r, STEP_MOUNT, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, "tmpfs", "/tmp", tmpfs_options(r, l, "1777", 50));
		step(r, STEP_WRITE, WRITE_ALWAYS, "", "/run/systemd/system/service.d/50-carrel.conf", SERVICE_DEFAULTS);
		if (l->machine)
			step(r, STEP_WRITE, WRITE_ALWAYS, "", "/run/systemd/system/kmod-static-nodes.service.d/50-carrel.conf",
			     DEVICES_LISTED);
		if (l->spec->travels)
			step(r, STEP_WRITE, WRITE_ALWAYS, "", "/run/systemd/system.conf.d/50-carrel.conf", travel_manager(r));
	}
	plan_volumes(r, l);
	plan_identity(r, l, system);
}

/* --- the program --- */

static int plan_argv(struct request *r, const struct launch *l, bool system, struct err *e)
{
	const struct image_run *run = l->image->run;
	const struct texts *command = &l->spec->command;
	size_t n = 0, entry = run ? run->entrypoint.count : 0, rest = run ? run->command.count : 0;

	if (l->maintenance) {
		r->plan.argv = own_list(r, 0);
		return 0;
	}
	r->plan.argv = own_list(r, command->count + entry + rest + 1);
	for (size_t i = 0; i < command->count; i++)
		r->plan.argv[n++] = own(r, mem_strdup(command->items[i]));
	if (system && !n)
		r->plan.argv[n++] = "/sbin/init";
	if (n)
		return 0;
	for (size_t i = 0; i < entry; i++)
		r->plan.argv[n++] = own(r, mem_strdup(run->entrypoint.items[i]));
	for (size_t i = 0; i < rest; i++)
		r->plan.argv[n++] = own(r, mem_strdup(run->command.items[i]));
	if (n)
		return 0;
	(void)err_set(e, ERR_INVALID, "image %s has no command to run", l->image->name ? l->image->name : "");
	return err_hint(e, "name one: carrel run IMAGE -- COMMAND");
}

static void plan_environment(struct request *r, const struct launch *l, bool system)
{
	const struct image_run *run = l->image->run;
	size_t n = 0, most = 12 + (run ? run->environment.count : 0) + l->spec->environment.count;
	const char **list = r->plan.environment = own_list(r, most);

	plan_set_variable(list, &n, "PATH=" DEFAULT_PATH);
	if (!l->machine)
		plan_set_variable(list, &n, "container=carrel"); /* systemd.io/CONTAINER_INTERFACE */
	for (size_t i = 0; l->spec->travels && travel_environment[i]; i++)
		plan_set_variable(list, &n, travel_environment[i]);
	if (l->spec->terminal || system)
		plan_set_variable(list, &n, "TERM=xterm-256color");
	for (size_t i = 0; run && i < run->environment.count; i++)
		if (strchr(run->environment.items[i], '='))
			plan_set_variable(list, &n, own(r, mem_strdup(run->environment.items[i])));
	for (size_t i = 0; i < l->spec->environment.count; i++) {
		const struct pair *p = &l->spec->environment.items[i];
		plan_set_variable(list, &n, own(r, mem_printf("%s=%s", p->key, p->value)));
	}
	list[n] = NULL;
}

static int signal_by_name(const char *name)
{
	if (!name || !*name)
		return SIGTERM;
	if (str_starts(name, "SIG"))
		name += 3;
	for (int s = 1; s < 32; s++)
		if (str_eq(sigabbrev_np(s), name))
			return s;
	uint64_t number = 0;
	if (str_starts(name, "RTMIN+") && str_to_u64(name + 6, 30, &number) == 0)
		return SIGRTMIN + (int)number;
	return str_to_u64(name, 64, &number) == 0 && number ? (int)number : SIGTERM;
}

static void plan_program(struct request *r, const struct launch *l, bool system)
{
	const struct image_run *run = l->image->run;
	struct plan *p = &r->plan;
	const char *user = l->spec->user ? l->spec->user : run ? run->user : NULL;
	const char *directory = l->spec->directory ? l->spec->directory : run ? run->directory : NULL;

	plan_environment(r, l, system);
	p->user = system || l->maintenance || !user ? "" : own(r, mem_strdup(user));
	p->directory = system || l->maintenance || !directory ? "" : own(r, mem_strdup(directory));
	p->stop_signal = system ? 0 : (uint64_t)signal_by_name(run ? run->stop_signal : NULL);
	p->capabilities = !system ? FOR_PROGRAMS : l->machine ? UINT64_MAX : FOR_SYSTEMS;
	p->open_files = OPEN_FILES;
	p->flags = (system ? PLAN_SYSTEM | PLAN_TERMINAL : 0) | (l->held ? PLAN_HELD : 0) | (l->paused ? PLAN_PAUSED : 0) |
		   (l->maintenance ? PLAN_MAINTENANCE : 0) | (l->throw_away ? PLAN_THROW_AWAY : 0) |
		   (l->spec->terminal && !l->maintenance ? PLAN_TERMINAL : 0) | (l->spec->interactive ? PLAN_INPUT : 0) |
		   (l->spec->network == NETWORK_HOST ? PLAN_HOST_NETWORK : 0) | (l->spec->travels ? PLAN_TRAVELS : 0);
}

void request_interface(const struct launch_interface *f, struct request_interface *ret_interface)
{
	const char **at = ret_interface->texts;

	(void)snprintf(ret_interface->mtu, sizeof ret_interface->mtu, "%u", f->mtu);
	(void)snprintf(ret_interface->vlan, sizeof ret_interface->vlan, "%u", f->vlan);
	at[INTERFACE_PORT] = f->port;
	at[INTERFACE_BRIDGE] = f->bridge;
	at[INTERFACE_DEVICE] = f->device;
	at[INTERFACE_MAC] = f->mac;
	at[INTERFACE_MTU] = ret_interface->mtu;
	at[INTERFACE_ISOLATED] = f->isolated ? "1" : "0";
	at[INTERFACE_IPV4] = f->ipv4;
	at[INTERFACE_IPV6] = f->ipv6;
	at[INTERFACE_GATEWAY4] = f->gateway4;
	at[INTERFACE_GATEWAY6] = f->gateway6;
	at[INTERFACE_VLAN] = ret_interface->vlan;
	at[INTERFACE_POOL6] = f->pool6;
	for (size_t i = 0; i < INTERFACE_TEXTS; i++)
		if (!at[i])
			at[i] = "";
}

static void plan_interfaces(struct request *r, const struct launch *l)
{
	const char **list = own_list(r, l->interface_count * INTERFACE_TEXTS);

	for (size_t i = 0; i < l->interface_count && !l->maintenance; i++) {
		struct request_interface one = { 0 };
		request_interface(&l->interfaces[i], &one);
		for (size_t t = 0; t < INTERFACE_TEXTS; t++)
			list[i * INTERFACE_TEXTS + t] = own(r, mem_strdup(one.texts[t]));
	}
	r->plan.interfaces = list;
}

static void plan_places(struct request *r, const struct launch *l)
{
	struct plan *p = &r->plan;
	const char **partitions = own_list(r, l->partition_count);

	for (size_t i = 0; i < l->partition_count; i++)
		partitions[i] = own(r, mem_strdup(l->partitions[i]));
	p->partitions = partitions;
	plan_interfaces(r, l);
	p->cgroups_v1 = copy_list(r, l->cgroups.v1);
#define TEXT(from) ((from) ? own(r, mem_strdup(from)) : "")
	p->id = TEXT(l->id);
	p->name = TEXT(l->name);
	p->host_name = TEXT(l->host_name ? l->host_name : l->spec->host_name ? l->spec->host_name : l->name);
	p->run_dir = TEXT(l->run_dir);
	p->log_path = TEXT(l->log_path);
	p->cgroup_v2 = TEXT(l->cgroups.v2);
	p->freeze_path = TEXT(l->cgroups.freeze_path);
	p->freeze_text = TEXT(l->cgroups.freeze_text);
	p->thaw_text = TEXT(l->cgroups.thaw_text);
#undef TEXT
	p->first_id = l->first_id;
	p->run = l->run;
	p->log_bytes = RUNNER_LOG_BYTES;
	p->log_files = RUNNER_LOG_FILES;
}

static int check(const struct launch *l, struct err *e)
{
	if (l->interface_count > INTERFACES_MOST)
		return err_set(e, ERR_INVALID, "a workspace has at most %d interfaces", INTERFACES_MOST);
	if (!id_valid(l->id))
		return err_set(e, ERR_INVALID, "\"%s\" is not a workspace id", l->id ? l->id : "");
	if (l->machine && l->spec->network == NETWORK_HOST)
		return err_set(e, ERR_INVALID, "a machine cannot have the host's network");
	if (!l->machine && (l->first_id < LAUNCH_IDS || l->first_id > UINT32_MAX - LAUNCH_IDS))
		return err_set(e, ERR_INVALID, "id range from %u on is not for workspaces", l->first_id);
	if (!l->partition_count)
		return err_set(e, ERR_INVALID, "image has no partition");
	if (l->partition_count > 400) /* overlayfs takes at most 500 layers, in one page of options */
		return err_set(e, ERR_INVALID, "image has %zu partitions, the most is 400", l->partition_count);
	for (size_t i = 0; i < l->volume_count; i++) {
		int r = name_check_path(l->volumes[i].mount, e);
		if (r < 0)
			return r;
	}
	return 0;
}

int request_plan(const struct launch *l, struct request *ret_request, struct err *e)
{
	struct request request = { 0 };
	bool system = request_is_system(l);
	int r = check(l, e);

	if (r < 0)
		return r;
	plan_places(&request, l);
	plan_program(&request, l, system);
	plan_tree(&request, l, system);
	r = plan_argv(&request, l, system, e);
	if (r >= 0 && !l->machine)
		r = filter_program(system, &request.plan.filter, &request.plan.filter_bytes, e);
	if (r < 0) {
		request_done(&request);
		return r;
	}
	*ret_request = request;
	return 0;
}
