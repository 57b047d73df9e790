/* SPDX-License-Identifier: Apache-2.0 */
#include "runner/machine_threads.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"

/* QEMU names them "CPU 0/TCG", "CPU 1/KVM" (debug-threads=on). */
static bool is_processor(int tasks, const char *tid)
{
	own_str char *path = mem_printf("%s/comm", tid);
	char name[32] = "";
	own_fd int fd = openat(tasks, path, O_RDONLY | O_CLOEXEC);

	return fd >= 0 && read(fd, name, sizeof name - 1) > 0 && str_starts(name, "CPU ");
}

int machine_threads_place(pid_t pid, const char *file, struct err *e)
{
	own_str char *path = mem_printf("/proc/%d/task", (int)pid);
	own_fd int group = open(file, O_WRONLY | O_CLOEXEC);
	own_dir DIR *dir = group < 0 ? NULL : opendir(path);
	struct dirent *entry;
	int placed = 0, r;

	if (!dir)
		return err_errno(e, errno, "open %s", group < 0 ? file : path);
	while ((r = fs_next_entry(dir, &entry, e)) > 0) {
		if (!is_processor(dirfd(dir), entry->d_name))
			continue;
		if (write(group, entry->d_name, strlen(entry->d_name)) < 0)
			return err_errno(e, errno, "write a virtual processor to %s", file);
		placed++;
	}
	if (r < 0)
		return r;
	return placed ? 0 : err_set(e, ERR_INTERNAL, "QEMU has no threads of virtual processors");
}
