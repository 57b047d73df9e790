/* SPDX-License-Identifier: Apache-2.0 */
/*
 * carrel-inner: goes on as the first process in the place of carrel-init, in a machine whose workspace travels. Its root is the
 * disk of tools (node/travel.c), where CRIU is too; carrel-init hands over the channel as standard input, and what it has read
 * of it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fs.h"
#include "base/log.h"
#include "guest/agent.h"
#include "guest/device.h"
#include "guest/inner.h"
#include "model/travel.h"

/* What carrel-init had read of the channel. */
static int hear(struct str *ret_said, struct err *e)
{
	int r = lseek(TRAVEL_SAID, 0, SEEK_SET) < 0 ? err_errno(e, errno, "hear what was said") : 0;

	if (r >= 0)
		r = fs_read_fd(TRAVEL_SAID, GUEST_PAYLOAD_LONGEST * 4, ret_said, e);
	(void)close(TRAVEL_SAID);
	return r;
}

static int serve(char *name, struct err *e)
{
	static const char *const scratch[] = { "/tmp", "/run" };
	int port = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3), console = open("/dev/console", O_RDWR | O_CLOEXEC), r;

	if (port < 0 || dup2(console, STDIN_FILENO) < 0)
		return err_errno(e, errno, "take the channel over");
	for (size_t i = 0; i < sizeof scratch / sizeof *scratch; i++)
		if (mount("carrel", scratch[i], "tmpfs", MS_NOSUID | MS_NODEV, "mode=755") < 0)
			return err_errno(e, errno, "mount %s", scratch[i]);
	if ((mkdir("/dev/pts", 0755) < 0 && errno != EEXIST) ||
	    mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, NULL) < 0)
		return err_errno(e, errno, "mount /dev/pts"); /* CRIU looks at it */
	own_strbuf struct str said = { 0 };
	if ((r = device_load_modules("/modules", "4-", e)) < 0 || (r = hear(&said, e)) < 0)
		return r;
	struct agent_options how = { .port = port, .machine = true, .root = -1, .name = name, .inner = &inner_calls,
				     .said = &said };
	return agent_run(&how, e);
}

int main(int argc, char **argv)
{
	struct err e = { 0 };

	(void)argc;
	if (getpid() != 1) {
		(void)fprintf(stderr, "carrel-inner is the first process of a machine\n");
		return 2;
	}
	(void)umask(0);
	log_init("carrel-inner", LOG_INFO);
	int r = serve(argv[0], &e);
	if (r < 0)
		log_error(&e, "the machine goes off");
	sync();
	(void)reboot(r > 0 ? RB_AUTOBOOT : RB_POWER_OFF);
	return 1;
}
