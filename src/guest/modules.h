/* SPDX-License-Identifier: Apache-2.0 */
#ifndef GUEST_MODULES_H
#define GUEST_MODULES_H

/*
 * The kernel's modules for the workspace: its partition's lib/modules/RELEASE, read-only at the same place of the workspace's
 * root, when the root has a /lib and no modules of its own for this kernel. Beside a program, carrel-init also is what the
 * kernel starts when it wants a module (/proc/sys/kernel/modprobe), so that what is asked for by use (a file system, a
 * protocol, /dev/net/tun) is there without rights to load modules; a system has its own modprobe.
 */

#include <stdbool.h>

#include "base/err.h"

/* `disk`: the mounted partition; taken. `root`: the workspace's, not entered yet. A partition without modules for this kernel
 * is fine. */
int modules_show(int disk, int root, bool system, struct err *e) must_check;

/* As the kernel's modprobe: exit status. `name`: a module or one of its aliases. */
int modules_load(const char *name);

#endif
