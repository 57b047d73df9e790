/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/workspace/volume.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/own.h"

static int loop_attach(int file, int *ret_loop, char name[32], struct err *e)
{
	own_fd int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);

	if (control < 0)
		return err_errno(e, errno, "open /dev/loop-control");
	for (int tries = 0; tries < 256; tries++) {
		int n = ioctl(control, LOOP_CTL_GET_FREE);
		if (n < 0)
			return err_errno(e, errno, "find a free loop device");
		(void)snprintf(name, 32, "/dev/loop%d", n);
		own_fd int loop = open(name, O_RDWR | O_CLOEXEC);
		if (loop < 0)
			return err_errno(e, errno, "open %s", name);
		struct loop_config config = { .fd = (uint32_t)file, .info = { .lo_flags = LO_FLAGS_AUTOCLEAR } };
		if (ioctl(loop, LOOP_CONFIGURE, &config) == 0) {
			*ret_loop = TAKE_FD(loop);
			return 0;
		}
		if (errno != EBUSY) /* another was faster: the next one */
			return err_errno(e, errno, "attach a volume to %s", name);
	}
	return err_set(e, ERR_NO_CAPACITY, "no loop device stays free long enough");
}

static int set_options(int fs, const char *device, bool throw_away, struct err *e)
{
	static const struct {
		const char *key, *value;
		bool only_throw_away;
	} options[] = { { "discard", NULL, false }, { "noinit_itable", NULL, false }, { "errors", "remount-ro", false },
			{ "nobarrier", NULL, true } };

	if (syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, "source", device, 0) < 0)
		return err_errno(e, errno, "source %s", device);
	for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
		int how = options[i].value ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG;
		if (options[i].only_throw_away && !throw_away)
			continue;
		if (syscall(SYS_fsconfig, fs, how, options[i].key, options[i].value, 0) < 0)
			return err_errno(e, errno, "option %s", options[i].key);
	}
	return 0;
}

static int mount_device(const char *device, bool throw_away, int *ret_mount, struct err *e)
{
	own_fd int fs = (int)syscall(SYS_fsopen, "ext4", FSOPEN_CLOEXEC);
	if (fs < 0)
		return err_errno(e, errno, "open file system ext4");
	int r = set_options(fs, device, throw_away, e);
	if (r < 0)
		return r;
	if (syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return err_errno(e, errno, "mount the volume on %s", device);
	int mount = (int)syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_NODEV);
	if (mount < 0)
		return err_errno(e, errno, "mount the volume on %s", device);
	*ret_mount = mount;
	return 0;
}

int volume_mount(int file, bool throw_away, struct volume_mount *ret_mount, struct err *e)
{
	own_fd int loop = -1, mount = -1;
	char name[32];
	int r = loop_attach(file, &loop, name, e);

	if (r < 0 || (r = mount_device(name, throw_away, &mount, e)) < 0)
		return r;
	*ret_mount = (struct volume_mount){ .mount_fd = TAKE_FD(mount), .loop_fd = TAKE_FD(loop) };
	return 0;
}

int volume_mount_again(const struct volume_mount *m, struct volume_mount *ret_mount, struct err *e)
{
	struct loop_info64 info;
	char name[32];
	own_fd int loop = -1, mount = -1;

	if (ioctl(m->loop_fd, LOOP_GET_STATUS64, &info) < 0 || (loop = fcntl(m->loop_fd, F_DUPFD_CLOEXEC, 0)) < 0)
		return err_errno(e, errno, "look at a loop device");
	(void)snprintf(name, sizeof name, "/dev/loop%u", info.lo_number);
	int r = mount_device(name, false, &mount, e);
	if (r < 0)
		return r;
	*ret_mount = (struct volume_mount){ .mount_fd = TAKE_FD(mount), .loop_fd = TAKE_FD(loop) };
	return 0;
}

void volume_mount_close(struct volume_mount *m)
{
	if (m->mount_fd >= 0)
		(void)close(m->mount_fd);
	if (m->loop_fd >= 0)
		(void)close(m->loop_fd);
	*m = (struct volume_mount){ -1, -1 };
}
