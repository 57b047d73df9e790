/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_WORKSPACE_INSIDE_H
#define ENGINE_WORKSPACE_INSIDE_H

/* The first process of a workspace: builds the tree it will live in, leaves the host's, and becomes init or starts the
 * program. */

#include <stddef.h>

#include "engine/workspace/birth.h"
#include "engine/workspace/plan.h"

#define INSIDE_CGROUPS_MOST 12

struct inside {
	const struct plan *plan;
	int *layers; /* private copies of the partitions' mounts, lowest first */
	size_t layer_count, layer_room;
	int tasks[INSIDE_CGROUPS_MOST]; /* v1 `tasks` files to enter */
	size_t task_count;
	int first;       /* mount of carrel-first; -1: none */
	int tun;         /* mount of the folder with the device tun; -1: none */
	int foreign;     /* QEMU's user mode, opened for its path only; -1: none */
	int standard[3]; /* its ends of the pipes; -1: /dev/null or the terminal */
	int sync;
	int parent_sync; /* the other end, which must not stay open here: its closing says that carrel-run is gone */
};

/* Private copies of the partitions' mounts, into `layers`. */
int inside_open_layers(const struct plan *p, struct inside *in, struct err *e) must_check;
int inside_raise_loopback(struct err *e) must_check; /* of the network namespace here */
/* A tmpfs in the place of /proc of this mount namespace becomes the working folder. */
int inside_make_scratch(struct err *e) must_check;
void inside_first_process(const struct inside *in) __attribute__((noreturn));

/* --- tree.c --- */
#define TREE_DEVPTS "newinstance,ptmxmode=0666,mode=620,gid=5"

struct tree {
	const struct plan *plan;
	const struct inside *in;
	int root;                    /* folder: where steps work now */
	int volumes[BIRTH_VOLUMES_MOST]; /* mounts: root volume, then the plan's */
	size_t volume_count;
	int terminal, terminal_peer; /* made by STEP_CONSOLE */
};
/* Two halves; the working folder must be a scratch tmpfs. First the steps for /dev, /proc and /sys, aside; then, with the
 * volumes there, the overlay, with what was made aside put in its place, and the other steps. Leaves the new root in `root`. */
int tree_begin(struct tree *t, struct err *e) must_check;
int tree_complete(struct tree *t, struct err *e) must_check;
/* Parts of the two: the overlay, opened as `root`; and what hides others, in the working folder. */
int tree_stack(struct tree *t, struct err *e) must_check;
/* What STEP_VOLUME mounts, as a descriptor. */
int tree_take_volume(struct tree *t, const struct step *s, int *ret_mount, struct err *e) must_check;
/* Its other side is a mount, of a file. */
int tree_make_terminal(int *ret_master, int *ret_mount, struct err *e) must_check;
int tree_make_nothing(const char *name, bool folder, struct err *e) must_check;
int tree_step(struct tree *t, const struct step *s, struct err *e) must_check; /* one more, in a finished tree */

#endif
