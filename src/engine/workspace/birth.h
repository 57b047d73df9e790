/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_WORKSPACE_BIRTH_H
#define ENGINE_WORKSPACE_BIRTH_H

/*
 * Bringing a workspace into the world: the side that runs in carrel-run, with the host's rights. What a plan names is opened
 * here (partitions, volumes, cgroups); everything that follows a path of the workspace happens in its first process (inside.h),
 * which has no rights outside. All mounts are descriptors of this process or live in the workspace's namespace: when both are
 * gone, so are they.
 */

#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"
#include "engine/workspace/plan.h"
#include "engine/workspace/volume.h"

#define BIRTH_VOLUMES_MOST 63

struct birth {
	const struct plan *plan;
	struct volume_mount volumes[BIRTH_VOLUMES_MOST]; /* 0: root volume */
	size_t volume_count;
	pid_t pid;
	int pidfd;      /* the first process */
	int user_namespace; /* between begin and complete */
	int sync;       /* socket to it until the program is executed */
	int input, output, errors; /* our ends of the pipes; -1: none */
	int terminal;   /* master, or -1 */
	int terminal_peer; /* other side of it, held so that the master never hangs up */
	int mounts;     /* its mount namespace, when birth_hold_mounts was called */
};

void birth_init(struct birth *b, const struct plan *p);
/* Makes the first process and lets it make what needs no volume. */
int birth_begin(struct birth *b, struct err *e) must_check;
/* With `volumes` filled in (the root volume, then the plan's). Returns when the first process has its whole world around it and
 * waits before the program. */
int birth_complete(struct birth *b, struct err *e) must_check;
/* Lets it go on. birth_executed waits until the program was executed or could not be. */
int birth_release(struct birth *b, struct err *e) must_check;
int birth_executed(struct birth *b, struct err *e) must_check;
/* The end of the first process is told without waiting until the kernel has taken its mounts apart: that happens in
 * birth_close_volumes. */
void birth_hold_mounts(struct birth *b);
/* A mount that no namespace has yet shows the ids of that user namespace. */
int birth_map_mount(int mount, int user_namespace, const char *what, struct err *e) must_check;
int birth_make_tun(int *ret_mount, struct err *e) must_check; /* STEP_TUN */
int birth_make_pipe(const struct plan *p, int *ret_read, int *ret_write, struct err *e) must_check;
void birth_close_volumes(struct birth *b);
void birth_undo(struct birth *b); /* kills what was born and closes everything */

#endif
