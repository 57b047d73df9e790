/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/power.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/own.h"
#include "base/str.h"

#define PATIENCE_S 60 /* of process 1 with the agent, which may wait for its host */

static int copy_self(int folder, struct err *e)
{
	own_fd int from = open("/proc/self/exe", O_RDONLY | O_CLOEXEC),
		   to = openat(folder, "shutdown", O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
	ssize_t n = 1;

	if (from < 0 || to < 0)
		return err_errno(e, errno, "copy carrel-init to /run");
	while ((n = sendfile(to, from, NULL, 1 << 20)) > 0)
		;
	return n < 0 ? err_errno(e, errno, "copy carrel-init to /run") : 0;
}

int power_leave_shutdown(int root, struct err *e)
{
	struct statfs fs;
	char pid[16];
	own_fd int run = -1, folder = -1;
	int r = fs_open_dir(root, "run", &run, e);

	if (r < 0)
		return r;
	if (fstatfs(run, &fs) < 0 || fs.f_type != TMPFS_MAGIC)
		return 0; /* a file system of the image: nothing of ours is left there */
	if (mkdirat(run, "initramfs", 0755) < 0)
		return err_errno(e, errno, "make /run/initramfs");
	if ((r = fs_open_dir(run, "initramfs", &folder, e)) < 0)
		return r;
	(void)snprintf(pid, sizeof pid, "%d", (int)getpid());
	r = fs_write_file(folder, "agent", pid, strlen(pid), 0444, false, e);
	return r < 0 ? r : copy_self(folder, e);
}

static void power_wake(int number) { (void)number; }

void power_shutdown(const char *verb)
{
	own_strbuf struct str text = { 0 };
	bool restart = str_eq(verb, "reboot") || str_eq(verb, "kexec");
	uint64_t pid;

	if (fs_read_file(AT_FDCWD, "/agent", 16, &text, NULL) >= 0 && str_to_u64(str_text(&text), INT32_MAX, &pid) == 0 &&
	    pid > 1 && kill((pid_t)pid, restart ? POWER_RESTART_SIGNAL : POWER_OFF_SIGNAL) == 0) {
		(void)signal(SIGALRM, power_wake);
		(void)alarm(PATIENCE_S);
		(void)pause();
	}
	sync();
	(void)reboot(restart ? RB_AUTOBOOT : RB_POWER_OFF);
	_exit(1);
}
