/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RUNNER_CHECKPOINT_PRIVATE_H
#define RUNNER_CHECKPOINT_PRIVATE_H

/* The parts of carrel-checkpoint. */

#include <sys/types.h>

#include "engine/workspace/checkpoint_tree.h"

#define CHECKPOINT_PATIENCE_S 300 /* for one answer of CRIU; writing memory to a slow disk is the longest */

enum job_kind { JOB_DUMP, JOB_RESTORE, JOB_TRY };

struct job {
	enum job_kind kind;
	struct plan plan;
	struct checkpoint record;
	struct volume_mount volumes[BIRTH_VOLUMES_MOST];
	size_t volume_count;
	struct checkpoint_tree tree;
	int folder;             /* of the images */
	int logs;               /* folder of CRIU's log */
	bool inside;            /* of a machine: its agent makes the interfaces, and says when the first step may be taken */
	bool told;              /* carrel-run: that the workspace runs again */
	int ours[3], theirs[3]; /* pipes of a restore */
	uint32_t cables[INTERFACES_MOST]; /* indexes inside of those that have a port on the host */
	size_t cable_count;
	int criu;               /* socket; -1: not started, or gone */
	int criu_pidfd;
	pid_t criu_pid, first;
};

/* --- checkpoint_criu.c --- */

/* Starts it, in the workspace's cgroups as seen from there. For a try it is our child, else our parent's. */
int criu_start(struct job *j, struct err *e) must_check;
/* takes `o` */
int criu_ask(const struct job *j, enum checkpoint_request what, struct checkpoint_options *o, struct err *e) must_check;
int criu_go_on(const struct job *j, struct err *e) must_check;
int criu_hear(const struct job *j, struct checkpoint_answer *ret_answer, struct err *e) must_check;
/* What CRIU wrote about its failure becomes the sentence; `what`: "suspend". Returns as err_set. */
int criu_failed(const struct job *j, const struct checkpoint_answer *a, const char *what, struct err *e) must_check;
void criu_end(struct job *j); /* and seen gone */

/* --- checkpoint_try.c --- */

/* One small process written and made again; says CRIU's version, or on standard error why not. Returns an exit status. */
int checkpoint_try(const char *folder);

#endif
