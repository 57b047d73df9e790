/* SPDX-License-Identifier: Apache-2.0 */
/*
 * carrel-names FOLDER ZONE GATEWAY...: becomes the dnsmasq of one network, after giving up what it does not need, with a child
 * that decides who may ask it what (names_front.h). What stays: a root made of the programs and libraries of the host,
 * read-only, and FOLDER/data; the capabilities to bind low ports and to answer who has no address yet, and to become nobody;
 * and the host's network, where it listens on one bridge. No new privileges, no other programs' IPC, and no system call that
 * changes mounts, namespaces, other processes or the kernel.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <seccomp.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/own.h"
#include "network/names_front.h"

enum what { FILE_READ, FOLDER_READ, FOLDER_WRITE, DEVICE };

static int bind_into(const char *root, const char *from, const char *to, enum what what, struct err *e)
{
	static const unsigned long flags[] = { [FILE_READ] = MS_RDONLY | MS_NODEV, [FOLDER_READ] = MS_RDONLY | MS_NODEV,
					       [FOLDER_WRITE] = MS_NOEXEC | MS_NODEV, [DEVICE] = MS_NOEXEC };
	bool folder = what == FOLDER_READ || what == FOLDER_WRITE;
	own_str char *target = mem_printf("%s%s", root, to);

	if (folder ? mkdir(target, 0755) < 0 : mknod(target, S_IFREG | 0444, 0) < 0)
		return err_errno(e, errno, "make %s", target);
	if (mount(from, target, NULL, MS_BIND, NULL) < 0 ||
	    mount(NULL, target, NULL, MS_BIND | MS_REMOUNT | MS_NOSUID | flags[what], NULL) < 0)
		return err_errno(e, errno, "bind %s", from);
	return 0;
}

/* /lib and the like are links into /usr, or folders on a system that has not merged them. */
static int take_library(const char *root, const char *name, struct err *e)
{
	char target[256];
	own_str char *path = mem_printf("%s%s", root, name);
	ssize_t length = readlink(name, target, sizeof target - 1);

	if (length < 0)
		return fs_exists(AT_FDCWD, name) ? bind_into(root, name, name, FOLDER_READ, e) : 0;
	target[length] = '\0';
	return symlink(target, path) < 0 ? err_errno(e, errno, "link %s", path) : 0;
}

static int enter_root(const char *folder, struct err *e)
{
	static const char *const libraries[] = { "/lib", "/lib32", "/lib64", "/libx32", "/bin", "/sbin" };
	static const char *const files[] = { "/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/ld.so.cache" };
	static const char *const devices[] = { "/dev/null", "/dev/urandom" };
	own_str char *root = mem_printf("%s/root", folder), *data = mem_printf("%s/data", folder),
		     *etc = mem_printf("%s/etc", root), *dev = mem_printf("%s/dev", root),
		     *config = mem_printf("%s/config", folder);

	if (unshare(CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return err_errno(e, errno, "take namespaces of its own");
	if (mount("carrel-names", root, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=1m,mode=755") < 0)
		return err_errno(e, errno, "mount %s", root);
	int r = mkdir(etc, 0755) < 0 || mkdir(dev, 0755) < 0 ? err_errno(e, errno, "make %s", root) :
							       bind_into(root, "/usr", "/usr", FOLDER_READ, e);
	for (size_t i = 0; i < ARRAY_SIZE(libraries) && r == 0; i++)
		r = take_library(root, libraries[i], e);
	for (size_t i = 0; i < ARRAY_SIZE(files) && r == 0; i++)
		if (fs_exists(AT_FDCWD, files[i]))
			r = bind_into(root, files[i], files[i], FILE_READ, e);
	if (r == 0)
		r = bind_into(root, config, "/config", FILE_READ, e);
	for (size_t i = 0; i < ARRAY_SIZE(devices) && r == 0; i++)
		r = bind_into(root, devices[i], devices[i], DEVICE, e);
	if (r == 0)
		r = bind_into(root, data, "/data", FOLDER_WRITE, e);
	if (r < 0)
		return r;
	if (chdir(root) < 0 || syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 || chdir("/") < 0 ||
	    mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=1m,mode=755") < 0)
		return err_errno(e, errno, "enter %s", root);
	return 0;
}

static int drop_capabilities(struct err *e)
{
	/* What dnsmasq keeps by itself when it becomes nobody, and what that takes. */
	static const uint64_t kept = UINT64_C(1) << CAP_NET_ADMIN | UINT64_C(1) << CAP_NET_RAW |
				     UINT64_C(1) << CAP_NET_BIND_SERVICE | UINT64_C(1) << CAP_SETUID |
				     UINT64_C(1) << CAP_SETGID;

	for (unsigned cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
		if (!(kept >> cap & 1) && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
			return err_errno(e, errno, "drop capability %u", cap);
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { 0 };
	data[0].effective = data[0].permitted = data[0].inheritable = (uint32_t)kept;
	if (syscall(SYS_capset, &header, data) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return err_errno(e, errno, "drop capabilities");
	return 0;
}

static int forbid_calls(struct err *e)
{
	static const char *const calls[] = { "mount", "umount2", "pivot_root", "chroot", "move_mount", "open_tree", "fsopen",
					     "fsmount", "mount_setattr", "setns", "unshare", "ptrace", "process_vm_readv",
					     "process_vm_writev", "bpf", "perf_event_open", "userfaultfd", "init_module",
					     "finit_module", "delete_module", "kexec_load", "kexec_file_load", "reboot",
					     "swapon", "swapoff", "add_key", "keyctl", "request_key", "acct", "io_uring_setup",
					     "settimeofday", "clock_settime", "adjtimex", "sethostname", "mknod", "mknodat" };
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
	int r = filter ? 0 : -ENOMEM;

	for (size_t i = 0; i < ARRAY_SIZE(calls) && r == 0; i++)
		r = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), seccomp_syscall_resolve_name(calls[i]), 0);
	if (r == 0)
		r = seccomp_load(filter);
	seccomp_release(filter);
	return r < 0 ? err_errno(e, -r, "forbid system calls") : 0;
}

static int become(const char *folder, struct err *e)
{
	static const struct rlimit files = { 1024, 1024 }, memory = { 256 << 20, 256 << 20 }, none = { 0, 0 };
	int r = enter_root(folder, e);

	if (r == 0)
		r = drop_capabilities(e);
	if (r == 0)
		r = forbid_calls(e);
	if (r < 0)
		return r;
	const char *const argv[] = { "dnsmasq", "--conf-file=/config", NULL };
	const char *const env[] = { "PATH=/usr/sbin:/usr/bin", NULL };
	/* last: what the sanitizers need here is more than dnsmasq gets */
	if (setrlimit(RLIMIT_NOFILE, &files) < 0 || setrlimit(RLIMIT_DATA, &memory) < 0 || setrlimit(RLIMIT_CORE, &none) < 0)
		return err_errno(e, errno, "set limits");
	(void)execve("/usr/sbin/dnsmasq", (char *const *)(uintptr_t)argv, (char *const *)(uintptr_t)env);
	if (errno != ENOENT)
		return err_errno(e, errno, "run /usr/sbin/dnsmasq");
	(void)err_set(e, ERR_NOT_FOUND, "there is no /usr/sbin/dnsmasq");
	return err_hint(e, "install the package dnsmasq-base");
}

/* Its number is written beside ours, so that both are found again. */
static int start_front(const struct names_front *f, struct err *e)
{
	own_str char *path = mem_printf("%s/front", f->folder);
	int parent = getpid();
	pid_t pid = fork();

	if (pid < 0)
		return err_errno(e, errno, "start the resolver");
	if (pid == 0) {
		(void)!names_front_run(f, parent, e);
		log_error(e, "names");
		_exit(1);
	}
	own_str char *text = mem_printf("%d\n", (int)pid);
	return fs_write_file(AT_FDCWD, path, text, strlen(text), 0600, false, e);
}

int main(int argc, char **argv)
{
	struct err e = { 0 };

	log_init("carrel-names", LOG_INFO);
	if (argc < 4 || argc > 5 || argv[1][0] != '/') {
		(void)fputs("usage: carrel-names FOLDER ZONE GATEWAY... (started by carrel-node)\n", stderr);
		return 2;
	}
	(void)umask(022);
	if (start_front(&(struct names_front){ argv[1], argv[2], { argv[3], argv[4] } }, &e) == 0)
		(void)become(argv[1], &e);
	log_error(&e, "names");
	return 1;
}
