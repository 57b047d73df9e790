/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "store/kernel.h"

/* Built in or as a module: a machine does not start, or a workspace does not work in it, without. */
static const struct {
	const char *option, *why;
} needed[] = {
	{ "BLK_DEV_INITRD", "starting carrel-init" },
	{ "DEVTMPFS", "device files" },
	{ "TMPFS", "file systems in memory" },
	{ "PROC_FS", "/proc" },
	{ "SYSFS", "/sys" },
	{ "UNIX98_PTYS", "terminals" },
	{ "VIRTIO_PCI", "devices" },
	{ "VIRTIO_BLK", "disks" },
	{ "VIRTIO_CONSOLE", "the channel to the host" },
	{ "VIRTIO_NET", "networks" },
	{ "EROFS_FS", "partitions" },
	{ "EXT4_FS", "volumes" },
	{ "OVERLAY_FS", "the workspace's root" },
	{ "UNIX", "local sockets" },
	{ "INET", "IPv4" },
	{ "EPOLL", "carrel-init" },
	{ "SIGNALFD", "services" },
	{ "TIMERFD", "services" },
	{ "CGROUPS", "services" },
	{ "SECCOMP_FILTER", "programs that confine themselves" },
};

static const char *const architectures[][2] = { { "X86_64", "amd64" }, { "ARM64", "arm64" }, { "RISCV", "riscv64" } };

/* 'y', 'm', or 0. */
static char value_of(const char *config, const char *option)
{
	char line[64];
	int n = snprintf(line, sizeof line, "CONFIG_%s=", option);

	for (const char *at = config; (at = strstr(at, line)); at++)
		if ((at == config || at[-1] == '\n') && (at[n] == 'y' || at[n] == 'm'))
			return at[n];
	return 0;
}

static bool has(const char *config, const char *option) { return value_of(config, option) != 0; }

bool kernel_config_has(const char *config, const char *option) { return value_of(config, option) == 'y'; }

int kernel_check_config(const char *config, char ret_architecture[16], struct err *e)
{
	const char *architecture = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(architectures); i++)
		if (has(config, architectures[i][0]))
			architecture = architectures[i][1];
	if (!architecture)
		return err_set(e, ERR_UNSUPPORTED, "the kernel is for no processor that machines can have");
	for (size_t i = 0; i < ARRAY_SIZE(needed); i++)
		if (!has(config, needed[i].option)) {
			(void)err_set(e, ERR_UNSUPPORTED, "the kernel was built without CONFIG_%s (%s)", needed[i].option,
				      needed[i].why);
			return err_hint(e, "take the distribution's kernel for virtual machines: linux-image-cloud-amd64");
		}
	(void)snprintf(ret_architecture, 16, "%s", architecture);
	return 0;
}
