/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/inner_network.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/own.h"
#include "engine/workspace/message.h"
#include "guest/device.h"
#include "guest/link.h"

#define LATE_MS 500 /* one that was plugged in just now; one that is not seen by then was handed over before */

static int hand_over(int network_namespace, const struct guest_objects *interfaces, bool afresh, struct err *e)
{
	const struct guest_interface *list = interfaces->items;
	char name[16];
	int r = 0;

	for (size_t i = 0; r >= 0 && i < interfaces->count; i++)
		if (!afresh)
			r = (r = device_find_link(list[i].mac, name, sizeof name, e)) < 0 ?
				    r :
				    link_move(name, network_namespace, e);
		else if (device_has_link(list[i].mac, LATE_MS, name, sizeof name))
			r = link_move(name, network_namespace, e);
	return r;
}

/* /sys shows the interfaces of the namespace that it was mounted in. */
static int set_up(int network_namespace, const struct guest_objects *interfaces, bool afresh, struct err *e)
{
	if (setns(network_namespace, CLONE_NEWNET) < 0 || unshare(CLONE_NEWNS) < 0 ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 || mount("sysfs", "/sys", "sysfs", MS_NOSUID, NULL) < 0)
		return err_errno(e, errno, "enter the workspace's network");
	return links_configure(interfaces->items, interfaces->count, afresh, e);
}

int inner_network_set(int network_namespace, const struct guest_objects *interfaces, bool afresh, struct err *e)
{
	int pair[2], kind, r = interfaces->count ? hand_over(network_namespace, interfaces, afresh, e) : 0;

	if (r < 0 || !interfaces->count || (r = message_pair(pair, e)) < 0)
		return r;
	own_fd int ours = pair[0], theirs = pair[1];
	pid_t pid = fork();
	if (pid < 0)
		return err_errno(e, errno, "make a process");
	if (pid == 0) {
		struct err why = { 0 };
		if (set_up(network_namespace, interfaces, afresh, &why) < 0)
			(void)!message_send(theirs, MESSAGE_FAILED, &why, NULL, 0, NULL);
		_exit(0);
	}
	own_close(&theirs);
	theirs = -1;
	r = message_receive(ours, &kind, NULL, e);
	(void)waitpid(pid, NULL, 0);
	return r < 0 ? r : 0;
}
