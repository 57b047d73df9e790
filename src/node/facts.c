/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each fact is a row of the table: a name, a test that fills `detail`, and the hint that is shown when it fails. Tests ask the
 * kernel by doing the harmless beginning of the real thing (open a file system context, ask a flag of an own file), since
 * version numbers say little about what a distribution or a sandbox allows.
 */
#include "node/facts.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/seccomp.h>
#include <linux/mount.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "node/facts_engines.h"
#include "network/vlan.h"
#include "node/facts_network.h"
#include "node/machine.h"

struct fact {
	const char *name;
	bool required;
	bool (*test)(const struct node *n, struct str *detail);
	const char *hint;
};

static bool has_file_system(const char *name, struct str *detail)
{
	own_fd int fd = (int)syscall(SYS_fsopen, name, FSOPEN_CLOEXEC);
	if (fd < 0)
		str_printf(detail, "%s", strerrordesc_np(errno));
	return fd >= 0;
}

static bool test_erofs(const struct node *n, struct str *detail)
{
	(void)n;
	return has_file_system("erofs", detail);
}

static bool test_erofs_file(const struct node *n, struct str *detail)
{
	struct utsname u;
	unsigned major = 0, minor = 0;

	(void)n;
	if (uname(&u) == 0)
		(void)sscanf(u.release, "%u.%u", &major, &minor);
	bool direct = major > 6 || (major == 6 && minor >= 12);
	str_puts(detail, direct ? "partitions are mounted from their files" : "partitions are mounted through loop devices");
	return direct;
}

static bool test_overlay(const struct node *n, struct str *detail)
{
	own_fd int fd = (int)syscall(SYS_fsopen, "overlay", FSOPEN_CLOEXEC);

	(void)n;
	if (fd < 0 || syscall(SYS_fsconfig, fd, FSCONFIG_SET_FLAG, "userxattr", NULL, 0) < 0) {
		str_printf(detail, "%s", strerrordesc_np(errno));
		return false;
	}
	return true;
}

static bool test_ext4(const struct node *n, struct str *detail)
{
	(void)n;
	return has_file_system("ext4", detail);
}

static bool test_mount_api(const struct node *n, struct str *detail)
{
	(void)n;
	own_fd int fd = (int)syscall(SYS_open_tree, AT_FDCWD, "/", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (fd < 0) {
		str_printf(detail, "%s", strerrordesc_np(errno));
		return false;
	}
	/* A wrong user namespace is refused with EINVAL or EBADF by a kernel that knows the call, ENOSYS by one that does
	 * not. */
	struct mount_attr attr = { .attr_set = MOUNT_ATTR_IDMAP, .userns_fd = 0 };
	if (syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH, &attr, sizeof attr) < 0 && errno == ENOSYS) {
		str_puts(detail, "mount_setattr is missing");
		return false;
	}
	return true;
}

static bool namespace_exists(const char *name) { return fs_exists(AT_FDCWD, name); }

static bool test_user_namespaces(const struct node *n, struct str *detail)
{
	own_strbuf struct str most = { 0 };

	(void)n;
	if (!namespace_exists("/proc/self/ns/user")) {
		str_puts(detail, "the kernel has none");
		return false;
	}
	if (fs_read_file(AT_FDCWD, "/proc/sys/user/max_user_namespaces", 64, &most, NULL) == 0 && str_text(&most)[0] == '0') {
		str_puts(detail, "user.max_user_namespaces is 0");
		return false;
	}
	return true;
}

static bool test_time_namespaces(const struct node *n, struct str *detail)
{
	(void)n;
	(void)detail;
	return namespace_exists("/proc/self/ns/time");
}

static bool test_seccomp(const struct node *n, struct str *detail)
{
	uint32_t action = SECCOMP_RET_KILL_PROCESS;

	(void)n;
	if (syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0)
		return true;
	str_printf(detail, "%s", strerrordesc_np(errno));
	return false;
}

static bool test_loop(const struct node *n, struct str *detail)
{
	own_fd int fd = open("/dev/loop-control", O_RDWR | O_CLOEXEC);

	(void)n;
	if (fd < 0)
		str_printf(detail, "/dev/loop-control: %s", strerrordesc_np(errno));
	return fd >= 0;
}

static bool test_cgroups(const struct node *n, struct str *detail)
{
	bool v2 = fs_exists(AT_FDCWD, "/sys/fs/cgroup/cgroup.controllers"),
	     memory = fs_exists(AT_FDCWD, "/sys/fs/cgroup/memory/cgroup.procs");
	bool hybrid = fs_exists(AT_FDCWD, "/sys/fs/cgroup/unified/cgroup.procs");

	(void)n;
	str_puts(detail, v2     ? "version 2" :
			 memory ? hybrid ? "version 1, with a version 2 tree beside it" : "version 1" :
				  "none found");
	return v2 || memory;
}

static bool has_capability(unsigned capability)
{
	own_strbuf struct str status = { 0 };
	unsigned long long set = 0;

	if (fs_read_file(AT_FDCWD, "/proc/self/status", 65536, &status, NULL) < 0)
		return false;
	const char *line = strstr(str_text(&status), "CapEff:");
	return line && sscanf(line, "CapEff: %llx", &set) == 1 && (set >> capability & 1);
}

static bool test_root(const struct node *n, struct str *detail)
{
	(void)n;
	str_printf(detail, "user id %u", (unsigned)geteuid());
	return geteuid() == 0 && has_capability(CAP_SYS_ADMIN);
}

static bool test_resize(const struct node *n, struct str *detail)
{
	(void)n;
	bool can = has_capability(CAP_SYS_RESOURCE);
	str_puts(detail, can ? "volumes grow while they are in use" : "volumes grow at the next start");
	return can;
}

static bool find_program(const char *name, struct str *detail)
{
	static const char *const folders[] = { "/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/sbin" };

	for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
		own_str char *path = mem_printf("%s/%s", folders[i], name);
		if (access(path, X_OK) == 0) {
			str_puts(detail, path);
			return true;
		}
	}
	str_puts(detail, "not found");
	return false;
}

static bool test_mkfs(const struct node *n, struct str *detail)
{
	(void)n;
	return find_program("mkfs.ext4", detail);
}

static bool test_nft(const struct node *n, struct str *detail)
{
	(void)n;
	return find_program("nft", detail);
}

static bool test_dnsmasq(const struct node *n, struct str *detail)
{
	(void)n;
	return find_program("dnsmasq", detail);
}

static bool test_vlans(const struct node *n, struct str *detail)
{
	(void)n;
	bool can = vlan_supported();
	str_puts(detail, can ? "VLAN devices on any interface" : "no VLAN devices: only bridges of the site that filter VLANs");
	return can;
}

static bool test_vhost(const struct node *n, struct str *detail)
{
	(void)n;
	bool can = access("/dev/vhost-net", R_OK | W_OK) == 0;
	str_puts(detail, can ? "the kernel serves machines' interfaces" :
			       "/dev/vhost-net is not there: QEMU serves machines' interfaces itself, one queue each");
	return can;
}

static bool test_runner(const struct node *n, struct str *detail)
{
	own_str char *path = mem_printf("%s/libexec/carrel/carrel-run", fs_prefix());

	(void)n;
	str_puts(detail, path);
	return access(path, X_OK) == 0;
}

static bool test_space(const struct node *n, struct str *detail)
{
	struct statvfs fs;
	char text[16];

	if (statvfs(n->config.state, &fs) < 0) {
		str_printf(detail, "%s: %s", n->config.state, strerrordesc_np(errno));
		return false;
	}
	uint64_t free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
	str_printf(detail, "%s free in %s", str_bytes(text, sizeof text, free_bytes), n->config.state);
	return free_bytes >= UINT64_C(1) << 30;
}

static const struct fact facts[] = {
	{ "root", true, test_root, "run carrel-node as root" },
	{ "erofs", true, test_erofs, "load the module erofs, or use a kernel with CONFIG_EROFS_FS (Linux 5.19 or later)" },
	{ "erofs-from-file", false, test_erofs_file, "Linux 6.12 mounts partitions without loop devices; older ones work too" },
	{ "overlay-userxattr", true, test_overlay, "load the module overlay; userxattr needs Linux 5.11" },
	{ "ext4", true, test_ext4, "load the module ext4" },
	{ "mount-api-idmap", true, test_mount_api, "id-mapped mounts need Linux 5.12, on erofs 5.19" },
	{ "user-namespaces", true, test_user_namespaces, "set the sysctl user.max_user_namespaces to 10000 or more" },
	{ "time-namespaces", false, test_time_namespaces, "use a kernel with CONFIG_TIME_NS" },
	{ "seccomp", true, test_seccomp, "use a kernel with CONFIG_SECCOMP_FILTER" },
	{ "loop-devices", true, test_loop, "load the module loop; in a container, pass /dev/loop-control through" },
	{ "cgroups", true, test_cgroups, "mount cgroup2 at /sys/fs/cgroup" },
	{ "grow-while-running", false, test_resize, "the agent lacks CAP_SYS_RESOURCE" },
	{ "mkfs.ext4", true, test_mkfs, "install e2fsprogs" },
	{ "nft", false, test_nft, "install nftables: without it no workspace is connected to a network" },
	{ "dnsmasq", false, test_dnsmasq, "install dnsmasq-base: it tells workspaces names and addresses" },
	{ "vlans", false, test_vlans, "load the module 8021q (modprobe 8021q)" },
	{ "vhost-net", false, test_vhost, "load the module vhost_net (modprobe vhost_net) where KVM is" },
	{ "carrel-run", true, test_runner, "install Carrel whole, or set CARREL_PREFIX to where it is" },
	{ "free-space", true, test_space, "free at least 1 GiB in the agent's state folder" },
};

static uint64_t host_memory(void)
{
	long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
	return pages > 0 && size > 0 ? (uint64_t)pages * (uint64_t)size : 0;
}

json_t *facts_read(const struct node *n)
{
	json_t *items = json_array();
	struct utsname u = { 0 };

	for (size_t i = 0; i < ARRAY_SIZE(facts); i++) {
		own_strbuf struct str detail = { 0 };
		bool ok = facts[i].test(n, &detail);
		(void)json_array_append_new(items, json_pack("{s:s, s:b, s:s, s:s, s:s}", "name", facts[i].name, "ok", ok,
							     "need", facts[i].required ? "required" : "optional", "detail",
							     str_text(&detail), "hint", ok ? "" : facts[i].hint));
	}
	facts_add_engines(items, n);
	facts_add_foreign_rules(items);
	facts_add_short_way(items);
	(void)uname(&u);
	return json_pack("{s:s, s:s, s:I, s:I, s:o, s:o, s:o}", "kernel", u.release, "machine", u.machine, "processors",
			 (json_int_t)machines_processors(), "memory", (json_int_t)host_memory(), "routes", facts_routes(),
			 "items", items, "resume", facts_resume());
}
