/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_WORKSPACE_VOLUME_H
#define ENGINE_WORKSPACE_VOLUME_H

/* A volume's file as a mount that no namespace has. Both descriptors closed, mount and loop device are gone. */

#include <stdbool.h>

#include "base/err.h"

struct volume_mount {
	int mount_fd, loop_fd; /* -1: none */
};

/* `file` is an ext4 image, open read-write; the loop device holds this open file (and a lock on it). `throw_away`: what is
 * written need not survive the machine. */
int volume_mount(int file, bool throw_away, struct volume_mount *ret_mount, struct err *e) must_check;
/* Another mount of the same file system: it is taken apart with the last of them. */
int volume_mount_again(const struct volume_mount *m, struct volume_mount *ret_mount, struct err *e) must_check;
void volume_mount_close(struct volume_mount *m);

#endif
