/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/nursery.h"

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/proc.h"
#include "base/rights.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int nursery = -1, nursery_pidfd = -1; /* under the lock */

static int make_pair(int ret_pair[2], struct err *e)
{
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ret_pair) < 0)
		return err_errno(e, errno, "make socket pair");
	return 0;
}

static int begin(struct err *e)
{
	own_str char *path = mem_printf("%s/libexec/carrel/carrel-run", fs_prefix());
	const char *const argv[] = { "carrel-run", NULL };
	int pair[2];
	int r = make_pair(pair, e);

	if (r < 0)
		return r;
	own_fd int ours = pair[0], theirs = pair[1];
	const struct proc_fd fds[] = { { 0, -1 }, { 1, -1 }, { 3, theirs } };
	const struct proc_spawn how = { .path = path, .argv = argv, .fds = fds, .fd_count = ARRAY_SIZE(fds),
					.new_session = true };
	if ((r = proc_start(&how, &nursery_pidfd, NULL, e)) < 0)
		return r;
	nursery = TAKE_FD(ours);
	return 0;
}

static void end(void)
{
	int status;

	if (nursery < 0)
		return;
	own_close(&nursery);
	(void)!proc_wait(nursery_pidfd, &status, NULL);
	own_close(&nursery_pidfd);
	nursery = nursery_pidfd = -1;
}

static int order(int theirs, struct err *e)
{
	for (int tries = 0;; tries++) {
		int r = nursery < 0 ? begin(e) : 0;
		if (r < 0)
			return r;
		if (rights_send(nursery, "r", 1, &theirs, 1, 0) > 0)
			return 0;
		r = -errno;
		end(); /* somebody killed it */
		if (tries == 1)
			return err_errno(e, -r, "ask for a runner");
	}
}

int nursery_runner(int *ret_socket, struct err *e)
{
	int pair[2];
	int r = make_pair(pair, e);

	if (r < 0)
		return r;
	own_fd int ours = pair[0], theirs = pair[1];
	(void)pthread_mutex_lock(&lock);
	r = order(theirs, e);
	(void)pthread_mutex_unlock(&lock);
	if (r == 0)
		*ret_socket = TAKE_FD(ours);
	return r;
}

void nursery_end(void)
{
	(void)pthread_mutex_lock(&lock);
	end();
	(void)pthread_mutex_unlock(&lock);
}
