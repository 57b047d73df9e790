/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_RECORD_H
#define NODE_RECORD_H

/*
 * What the agent knows about one workspace, on disk at STATE/node/workspaces/ID/ (docs/formats/node-state.md):
 *   assignment.json   the newest wish of the service, so that the agent needs no service to go on
 *   truth.json        struct truth, replaced after each action
 *   journal           "begin STEP" lines: what may have effects that truth.json does not tell of; emptied when truth.json was
 *                     written
 *   volumes/  snapshots/SID/  log/
 *
 * Writing is atomic. The count of restores is synced, for a restore that happens once more takes what was written since; all
 * else is not: it can be had again, or happens once more without harm (docs/decisions/0045).
 */

#include <stdbool.h>
#include <stdint.h>

#include "model/assignment.h"
#include "model/name.h"

struct truth {
	struct report *report;
	uint64_t first_id;      /* of the id range; 0: none */
	char *boot_id;          /* of the last start */
	bool restart_waits;     /* the restart policy wants one more start, after a pause */
	uint64_t failed_starts; /* restarts in a row, for the length of the pause */
	uint64_t stands_since_ms; /* Unix time since which it stands still to be moved; 0: it is not moved */
	uint64_t gave_up;       /* generation in which a snapshot, restore, change of size, pause or resume failed */
	char *sizes;            /* spec_sizes that were brought about, as far as that can be while it lives; NULL: not known */
};

struct record {
	char id[ID_SIZE];
	char *folder;            /* absolute */
	struct assignment wish;  /* wish.id NULL: none yet */
	struct truth truth;
	char *journal;           /* steps that were begun when the agent ended, "a b c"; empty: none */
	bool on_disk;
	bool staged;             /* partitions are held mounted for it */
	bool unsaved;            /* truth.json could not be written */
	bool untidy;             /* its memory folder may hold what is not this run's (suspend_tidy) */
	bool must_sync;          /* the next truth must survive a crash of the machine */
	uint64_t restoring;      /* restore whose copies were about to take the volumes' places (snapshot.h); 0: none */
	bool lost_wish;          /* assignment.json cannot be read: the service has a copy */
	bool lost_truth;         /* truth.json cannot be read: record_presume */
	uint64_t pack_due_ms;    /* Unix time at which its memory is to be packed (suspend_pack.h); 0: not */
	struct err *trouble;     /* why, of either */
};

struct record *record_new(const char *folder, const char *id);
/* ERR_NOT_FOUND: the agent ended before it had written anything, and what there was is removed now. Files that cannot be read
 * are told by lost_wish and lost_truth, and left alone. */
int record_load(const char *folder, const char *id, struct record **ret_record, struct err *e) must_check;
/* For a truth that was lost, the wish being known: what was wished for has happened once - it is not started or restored again
 * by itself - and if it was running, it may still be. */
void record_presume(struct record *r);
void record_free(struct record *r);

/* The wish: NULL writes r->wish as it is. */
int record_save_wish(struct record *r, struct err *e) must_check;
/* Writes truth.json and empties the journal. */
int record_save_truth(struct record *r, struct err *e) must_check;
/* `durable`: also after a crash of the machine. */
int record_begin(struct record *r, const char *step, bool durable, struct err *e) must_check;
/* All of it but truth.json, which then says `removed` until the service has heard it. */
int record_remove_data(struct record *r, struct err *e) must_check;
int record_forget(struct record *r, struct err *e) must_check;

void record_set_error(struct record *r, const char *step, const struct err *e);
void record_clear_error(struct record *r);
/* Fills truth.report.snapshots from the folder, which is what counts. */
int record_read_snapshots(struct record *r, struct err *e) must_check;

/* Paths; the caller frees. */
/* v NULL: the root volume */
char *record_volume_path(const struct record *r, const char *kept_folder, const struct spec_volume *v);
char *record_path(const struct record *r, const char *inner);

/* This boot of the machine, as the kernel names it. */
const char *boot_id(void);
uint64_t unix_ms(void);

#endif
