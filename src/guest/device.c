/* SPDX-License-Identifier: Apache-2.0 */
/*
 * There is no udev in the initramfs: devices are found by what the host wrote on them - serial of a disk, name of a port, MAC
 * address - in sysfs. A device that is not there yet is waited for by the kernel's own announcements (NETLINK_KOBJECT_UEVENT),
 * which are heard before the second look, so that one between the two looks is not missed; what they say is not parsed, each
 * is only a reason to look again.
 */
#include "guest/device.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/loop.h"
#include "base/own.h"
#include "base/str.h"

#define PATIENCE_MS 10000

/* --- modules --- */

static int load(int folder, const char *name, struct err *e)
{
	own_fd int fd = openat(folder, name, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return err_errno(e, errno, "open module %s", name);
	if (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST && errno != ENODEV)
		return err_errno(e, errno, "load module %s", name);
	return 0;
}

int device_load_modules(const char *folder, const char *prefix, struct err *e)
{
	struct dirent **names;
	own_fd int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int r = 0;

	if (fd < 0)
		return errno == ENOENT ? 0 : err_errno(e, errno, "open folder %s", folder); /* a kernel that needs none */
	int n = scandir(folder, &names, NULL, alphasort);
	if (n < 0)
		return err_errno(e, errno, "list folder %s", folder);
	for (int i = 0; i < n; i++) {
		if (r >= 0 && names[i]->d_name[0] != '.' && str_starts(names[i]->d_name, prefix))
			r = load(fd, names[i]->d_name, e);
		free(names[i]);
	}
	free(names);
	return r;
}

/* --- devices --- */

int device_rescan(struct err *e)
{
	own_fd int fd = open("/sys/bus/pci/rescan", O_WRONLY | O_CLOEXEC);

	return fd < 0 || write(fd, "1", 1) != 1 ? err_errno(e, errno, "look for devices again") : 0;
}

/* The first entry of `class` whose file `attribute` says `value`. */
static bool find(const char *class, const char *attribute, const char *value, char *ret_name, size_t size)
{
	own_dir DIR *dir = opendir(class);

	for (struct dirent *d; dir && (d = readdir(dir));) {
		char path[512], text[128];
		(void)snprintf(path, sizeof path, "%s/%s/%s", class, d->d_name, attribute);
		own_fd int fd = d->d_name[0] == '.' ? -1 : open(path, O_RDONLY | O_CLOEXEC);
		ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
		if (n < 0)
			continue;
		text[n] = '\0';
		text[strcspn(text, "\n")] = '\0';
		if (str_eq(text, value)) {
			(void)snprintf(ret_name, size, "%s", d->d_name);
			return true;
		}
	}
	return false;
}

static int open_announcements(void)
{
	struct sockaddr_nl all = { .nl_family = AF_NETLINK, .nl_groups = 1 };
	int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT);

	if (fd >= 0)
		(void)bind(fd, (struct sockaddr *)&all, sizeof all);
	return fd;
}

static void await_announcement(int fd, uint64_t until_ms)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	uint64_t now = loop_now_ms();
	char text[4096];

	(void)poll(&p, 1, until_ms > now ? (int)(until_ms - now) : 0);
	while (read(fd, text, sizeof text) > 0)
		;
}

static bool await_for(unsigned most_ms, const char *class, const char *attribute, const char *value, char *ret_name,
		      size_t size)
{
	uint64_t until = loop_now_ms() + most_ms;

	if (find(class, attribute, value, ret_name, size))
		return true;
	own_fd int fd = open_announcements();
	for (;;) {
		if (find(class, attribute, value, ret_name, size))
			return true;
		if (loop_now_ms() >= until)
			return false;
		await_announcement(fd, until);
	}
}

static int await(const char *class, const char *attribute, const char *value, char *ret_name, size_t size, struct err *e)
{
	if (await_for(PATIENCE_MS, class, attribute, value, ret_name, size))
		return 0;
	return err_set(e, ERR_NOT_FOUND, "the machine has no device whose %s is \"%s\"", attribute, value);
}

int device_find_disk(const char *serial, char *ret_path, size_t size, struct err *e)
{
	char name[64];
	int r = await("/sys/block", "serial", serial, name, sizeof name, e);

	if (r >= 0)
		(void)snprintf(ret_path, size, "/dev/%s", name);
	return r;
}

int device_find_port(const char *port, char *ret_path, size_t size, struct err *e)
{
	char name[64];
	int r = await("/sys/class/virtio-ports", "name", port, name, sizeof name, e);

	if (r >= 0)
		(void)snprintf(ret_path, size, "/dev/%s", name);
	return r;
}

int device_find_link(const char *mac, char *ret_name, size_t size, struct err *e)
{
	return await("/sys/class/net", "address", mac, ret_name, size, e);
}

bool device_has_link(const char *mac, unsigned most_ms, char *ret_name, size_t size)
{
	return await_for(most_ms, "/sys/class/net", "address", mac, ret_name, size);
}
