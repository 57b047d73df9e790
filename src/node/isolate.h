/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_ISOLATE_H
#define NODE_ISOLATE_H

/*
 * Everything the agent asks of engine and enforcement, so that the steps read as one line each. All calls block and may be made
 * from any thread; one workspace is worked on by one thread at a time.
 */

#include <jansson.h>

#include "engine/launch.h"
#include "model/memory.h"
#include "node/node.h"
#include "node/record.h"

struct isolate_volume {
	const struct spec_volume *spec; /* NULL: the root volume */
	char *path;
	int fd; /* open and locked */
	struct volume_mount mount; /* of a new root volume that was made ready; -1, -1 otherwise */
};

/* Of a workspace that boots a disk, beside the root disk (node/disk.h). */
struct isolate_disk {
	int *others; /* disks above the image's further partitions */
	size_t count;
	int firmware, variables; /* -1: BIOS */
	int seed;                /* -1: not made yet */
	bool is_one;
};

/* What the steps before `launch` left for it. */
struct isolate_parts {
	char **lowers; /* mount points of partitions, lowest first */
	size_t lower_count;
	int *partition_fds; /* of a machine: the files, as many */
	bool has_kernel;
	int kernel_fd;      /* with has_kernel: the kernel partition's file */
	struct isolate_volume *volumes;
	size_t volume_count;
	struct isolate_disk disk;
	struct launch_interface *interfaces; /* what stands in them is their own */
	size_t interface_count;
	const struct memory_manifest *memory; /* of a workspace that goes on from memory; NULL: it begins */
	int whole; /* tells that its machine's memory is whole (launch_memory.whole_fd); 0: it is */
};
void isolate_interface_done(struct launch_interface *f);
void isolate_parts_done(struct isolate_parts *p);

struct isolate_status {
	bool ended; /* exit_status counts */
	bool paused;
	bool killed_for_memory; /* the kernel killed a process of it */
	uint64_t run, pid, started_ms, ended_ms;
	int exit_status;
};

/* Its engine makes it a virtual machine: files in place of mounts. */
bool isolate_is_machine(const struct assignment *a);
const char *isolate_engine_name(const struct node *n, const struct assignment *a); /* that a start would take; NULL: none can */

/* What `report` tells of is a virtual machine, alive or as it was last. */
bool isolate_ran_as_machine(const struct report *r);
/* Whether this host has what the wish's engine needs, before anything is stopped for it. */
int isolate_can_start(struct node *n, const struct assignment *a, struct err *e) must_check;

struct isolator;
int isolator_new(struct isolator **ret_isolator, struct err *e) must_check;
void isolator_free(struct isolator *i);

/* Limits of one workspace, before its first process; undo takes the groups away and kills what is in them. */
int isolate_limits(struct node *n, const struct record *r, const struct isolate_parts *parts, struct err *e) must_check;
/* Those of a workspace that lives become what the wish says; what a memory state needs is only looked at. ERR_CONFLICT: more is
 * in use; then nothing is changed. */
int isolate_change_limits(struct node *n, const struct record *r, struct err *e) must_check;
/* Of a machine that lives or is suspended: what it has, and what the next start will give it. False: it is none. */
bool isolate_machine_sizes(const struct record *r, struct launch_size *ret_is, struct launch_size *ret_wished);
int isolate_limits_undo(struct node *n, const char *id, struct err *e) must_check;

/* Its machine will start from a template, as far as this host can: made now, while it still runs elsewhere. */
int isolate_make_template(struct node *n, const struct record *r, int kernel_fd, struct err *e) must_check;
/* Starts runner and first process, or (maintenance) the runner alone. */
int isolate_start(struct node *n, const struct record *r, struct isolate_parts *parts, bool paused, bool maintenance,
		  uint64_t *ret_pid, struct err *e) must_check;
/* The limits and the runner of something that is no workspace of the service's: `l` but for groups and run folder, which are
 * made for a->id; isolate_undo and isolate_limits_undo take both away. */
int isolate_launch(struct node *n, const struct assignment *a, uint64_t first_id, struct launch *l, struct err *e) must_check;
/* A connection that stays, whose end of file says that the runner is gone; the caller's. */
int isolate_connect(struct node *n, const char *id, int *ret_control, struct err *e) must_check;
/* Ends the runner and all of the workspace's processes, whatever state they are in, and removes the run folder. */
int isolate_undo(struct node *n, const char *id, struct err *e) must_check;
/* From the status file; ERR_NOT_FOUND when it was never written. */
int isolate_status(struct node *n, const char *id, struct isolate_status *ret_status, struct err *e) must_check;

int isolate_stop(struct node *n, const struct record *r, uint64_t timeout_ms, struct err *e) must_check;
/* The workspace stands still and its memory is in the folder (docs/formats/memory.md). It goes on when the connection is
 * closed; a commit ends it, and returns when its runner is gone. */
int isolate_suspend(struct node *n, const struct record *r, int folder, int *ret_connection, struct err *e) must_check;
/* The same of what lives inside a machine: on the disk of its luggage. */
int isolate_depart(struct node *n, const struct record *r, int folder, int *ret_connection, struct err *e) must_check;
int isolate_commit(struct node *n, const struct record *r, int connection, struct err *e) must_check;
int isolate_pause(struct node *n, const struct record *r, struct err *e) must_check;
int isolate_resume(struct node *n, const struct record *r, struct err *e) must_check;
/* The interfaces that a machine which runs shall have. */
int isolate_connect_machine(struct node *n, const char *id, const struct launch_interface *interfaces, size_t count,
			    struct err *e) must_check;
/* Makes what is on the volumes' files consistent as long as they stay frozen. Thawing what is not frozen is fine. */
int isolate_freeze_volumes(struct node *n, const struct record *r, bool freeze, struct err *e) must_check;
/* Of a machine that runs: its root (0) or a volume of its spec, from 1 on. */
int isolate_grow_machine(struct node *n, const struct record *r, size_t number, uint64_t size_bytes, struct err *e) must_check;
int isolate_grow_volume(struct node *n, const struct record *r, const struct isolate_volume *v, uint64_t size_bytes,
			struct err *e) must_check;

/* What would be done, for --dry-run. New references. */
json_t *isolate_limits_plan(const struct node *n, const struct assignment *a);
json_t *isolate_plan(const struct node *n, const struct assignment *a);

/* Takes away what carries a workspace's id on this host and is not in `known` (cgroups, run folders, processes). */
int isolate_collect(struct node *n, bool (*known)(void *data, const char *id), void *data, struct err *e) must_check;
/* The cgroup that holds all workspaces, when it is empty: for --clean. */
void isolate_clean(struct node *n);

#endif
