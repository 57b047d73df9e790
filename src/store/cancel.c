/* SPDX-License-Identifier: Apache-2.0 */
#include "store/cancel.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>

static int signal_fd = -1, watched_peer_fd = -1;
static const int signals[] = { SIGTERM, SIGINT, SIGHUP };

static void signal_set(sigset_t *set)
{
	(void)sigemptyset(set);
	for (unsigned i = 0; i < sizeof signals / sizeof *signals; i++)
		(void)sigaddset(set, signals[i]);
}

int cancel_start(int peer_fd, struct err *e)
{
	sigset_t set;

	signal_set(&set);
	(void)sigprocmask(SIG_BLOCK, &set, NULL);
	signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	watched_peer_fd = peer_fd;
	return signal_fd < 0 ? err_errno(e, errno, "signalfd") : 0;
}

void cancel_in_child(void)
{
	sigset_t set;

	signal_set(&set);
	(void)sigprocmask(SIG_UNBLOCK, &set, NULL);
	signal_fd = watched_peer_fd = -1; /* closed, or not ours */
}

int cancel_poll(struct pollfd *fds, nfds_t count, int timeout_ms, struct err *e)
{
	enum { most = 8 };
	struct pollfd all[most + 2];
	int n;

	if (count > most)
		return err_set(e, ERR_INTERNAL, "too many descriptors to poll");
	if (count)
		memcpy(all, fds, count * sizeof *fds);
	/* the signal is never read, so that every later wait ends too; of the peer only its end counts */
	all[count] = (struct pollfd){ .fd = signal_fd, .events = POLLIN };
	all[count + 1] = (struct pollfd){ .fd = watched_peer_fd, .events = 0 };
	do
		n = poll(all, count + 2, timeout_ms);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return err_errno(e, errno, "poll");
	if (all[count].revents)
		return err_set(e, ERR_CANCELLED, "cancelled");
	if (all[count + 1].revents & (POLLHUP | POLLERR))
		return err_set(e, ERR_CANCELLED, "cancelled: the service is gone");
	if (count)
		memcpy(fds, all, count * sizeof *fds);
	return n;
}
