/* SPDX-License-Identifier: Apache-2.0 */
#ifndef GUEST_POWER_H
#define GUEST_POWER_H

/*
 * The end of a system's machine. An init cannot unmount its own root, so the volumes would be left as after a power cut: whole,
 * but with a journal to be replayed. systemd goes back to an initramfs for that (systemd.io/INITRD_INTERFACE): when
 * /run/initramfs/shutdown is there, it makes that folder its root and becomes that program, which is carrel-init again and asks
 * the agent to do the rest.
 */

#include <signal.h>

#include "base/err.h"

#define POWER_OFF_SIGNAL (SIGRTMIN + 1) /* to the agent */
#define POWER_RESTART_SIGNAL (SIGRTMIN + 2)
#define POWER_PROGRAM "/shutdown"

/* By the agent: the program and our process id, in the system's /run, when the plan made one (a tmpfs). */
int power_leave_shutdown(int root, struct err *e) must_check;
/* As POWER_PROGRAM: what systemd asked for ("poweroff", "reboot", ...). */
void power_shutdown(const char *verb) __attribute__((noreturn));

#endif
