/* SPDX-License-Identifier: Apache-2.0 */
/*
 * carrel-init: the first process of a machine, from the initramfs (docs/formats/guest.md). Whatever happens, a machine that
 * cannot run its workspace says why on its console and goes off.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/own.h"
#include "base/str.h"
#include "guest/agent.h"
#include "guest/device.h"
#include "guest/modules.h"
#include "guest/power.h"
#include "guest/world.h"
#include "model/guest_protocol.h"
#include "model/travel.h"

#define MODULES "/modules"

static int mount_base(struct err *e)
{
	static const struct {
		const char *type, *path;
	} mounts[] = { { "proc", "/proc" }, { "sysfs", "/sys" }, { "devtmpfs", "/dev" } };

	for (size_t i = 0; i < sizeof mounts / sizeof *mounts; i++)
		if ((mkdir(mounts[i].path, 0755) < 0 && errno != EEXIST) ||
		    mount(mounts[i].type, mounts[i].path, mounts[i].type, MS_NOSUID, NULL) < 0)
			return err_errno(e, errno, "mount %s", mounts[i].path);
	return 0;
}

/* The disk of tools becomes the root, and carrel-inner this process, with the channel as its standard input and what was said
 * as a file. */
static int become_inner(int port, const struct str *said, char *name, struct err *e)
{
	static const char *const kept[] = { "/proc", "/sys", "/dev" };
	char *argv[] = { name, NULL };
	own_fd int heard = memfd_create("said", MFD_CLOEXEC);
	int mount_fd = -1,
	    r = heard < 0 ? err_errno(e, errno, "make memory file") : fs_write_all(heard, said->bytes, said->length, e);

	for (size_t i = 0; r >= 0 && i < 2; i++)
		r = device_load_modules(MODULES, i ? "3-" : "2-", e);
	if (r < 0 || (r = world_mount_disk(TRAVEL_TOOLS, "erofs", true, &mount_fd, e)) < 0)
		return r;
	if (mkdir("/tools", 0755) < 0 ||
	    syscall(SYS_move_mount, mount_fd, "", AT_FDCWD, "/tools", MOVE_MOUNT_F_EMPTY_PATH) < 0 || chdir("/tools") < 0)
		return err_errno(e, errno, "mount the tools");
	for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
		if (mount(kept[i], kept[i] + 1, NULL, MS_MOVE, NULL) < 0)
			return err_errno(e, errno, "move %s", kept[i]);
	if (mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 || dup2(port, STDIN_FILENO) < 0 ||
	    dup2(heard, TRAVEL_SAID) < 0)
		return err_errno(e, errno, "change the root");
	(void)execv(TRAVEL_PROGRAM, argv);
	return err_errno(e, errno, "start %s", TRAVEL_PROGRAM);
}

static int serve(char *name, struct err *e)
{
	char path[80];
	int r = mount_base(e);

	if (r < 0 || (r = device_load_modules(MODULES, "1-", e)) < 0 ||
	    (r = device_find_port(GUEST_PORT, path, sizeof path, e)) < 0)
		return r;
	int port = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (port < 0)
		return err_errno(e, errno, "open %s", path);
	struct agent_options how = { .port = port, .machine = true, .root = -1, .modules = MODULES, .name = name,
				     .become_inner = become_inner };
	return agent_run(&how, e);
}

int main(int argc, char **argv)
{
	struct err e = { 0 };

	if (getpid() != 1 && argc == 4 && str_eq(argv[1], "-q")) /* by the kernel: "modprobe -q -- NAME" */
		return modules_load(argv[3]);
	if (getpid() != 1) {
		(void)fprintf(stderr, "carrel-init is the first process of a machine\n");
		return 2;
	}
	(void)umask(0);
	log_init("carrel-init", LOG_INFO);
	if (str_eq(argv[0], POWER_PROGRAM))
		power_shutdown(argc > 1 ? argv[1] : "poweroff");
	int r = serve(argv[0], &e);
	if (r < 0)
		log_error(&e, "the machine goes off");
	sync();
	(void)reboot(r > 0 ? RB_AUTOBOOT : RB_POWER_OFF);
	return 1;
}
