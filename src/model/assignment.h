/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MODEL_ASSIGNMENT_H
#define MODEL_ASSIGNMENT_H

/*
 * What the service tells a host (assignment: the whole wish for one workspace) and what the host answers (report: the truth).
 * Both are levels, not edges: sending one twice changes nothing, and the newest one counts. What would be an edge is a number
 * that only grows: `generation` (any change of the wish), `run` (one more start), `restore` (one more restore).
 */

#include "model/image.h"
#include "model/spec.h"
#include "model/state.h"

struct assignment_snapshot {
	char *id;
	char *name;
	bool memory; /* of a running workspace, with its memory */
	bool brief;  /* clones begin from it at once, and then it goes: nobody checks what it was when it was written */
};

/* What a machine boots. */
struct assignment_kernel {
	char *name, *release;
	char *digest;           /* of the kernel partition */
	uint64_t size_bytes;
};

/* What a clone begins from, instead of blank volumes. */
struct assignment_origin {
	char *workspace, *snapshot; /* ids; on the same host */
	char *name;                 /* that the workspace had then; NULL: not known */
	uint64_t number;            /* of this clone: 1, 2, ... */
	bool memory;                /* it goes on where the other one stood */
};

struct assignment {
	char *id;
	uint64_t generation;
	unsigned wish;          /* enum wish */
	uint64_t run;           /* number of the run that is wanted; 0: never started */
	bool held;              /* the program's output waits for the first attach (carrel run) */
	uint64_t owner_uid;
	struct spec *spec;
	struct image *image;
	struct assignment_kernel *kernel; /* NULL: it is no machine, or the site has none for it */
	struct assignment_origin *origin; /* NULL: it is no clone */
	struct objects attachments; /* struct attachment: its interfaces, eth0 first */
	uint64_t stop_timeout_ms;  /* of the stop that is wished now; FIELD_NO_PRESET: the spec's */
	struct objects snapshots;  /* struct assignment_snapshot: those that shall exist */
	uint64_t restore;          /* number of restores that were asked for */
	char *restore_from;        /* snapshot id of the last of them */
};

struct report_error {
	char *kind, *message, *hint, *step;
};

struct report {
	char *id;
	uint64_t generation;    /* of the assignment it answers */
	unsigned state;         /* enum state */
	uint64_t run;           /* of the last run that was started */
	uint64_t exit_status;   /* of the run that ended; FIELD_NO_PRESET: none */
	uint64_t restarts;      /* by the restart policy, in this run */
	char *step;             /* what is under way, or NULL */
	char *notice;           /* what the user should know about the last change, or NULL */
	struct report_error *error;
	struct texts snapshots; /* ids that exist */
	uint64_t restore;       /* restores done */
	uint64_t started_ms, ended_ms; /* Unix time; 0: never */
	uint64_t pid;           /* first process as the host numbers it; 0: none */
	char *engine;           /* that it runs under, or ran under last; NULL: never started */
	/* how a machine's last start came to its memory: "boot", "template", "memory" or "clone"; NULL: it is no machine */
	char *began;
	uint64_t machine_processors, machine_memory_bytes; /* that the machine of this run has; 0: it is none */
	uint64_t memory_bytes;  /* of the memory state on disk, holes not counted; 0: none */
	uint64_t stood_still_ms; /* in its last move with its memory; 0: there was none in this run */
};

extern const struct shape assignment_kernel_shape, assignment_origin_shape, assignment_shape, report_shape;

/* The next action: the matrix of state.h, and: a run that ended is not started again (restart policy is the host's, which
 * counts a new run in `truth->run` only for a new start); a workspace that failed is tried again only in a newer generation; a
 * new run of one that is suspended begins without its memory state (the service lets nobody ask for that unawares); and what
 * travels and runs under another engine than the wished one, with no newer run asked for, is suspended, to go on there. */
enum action assignment_next_action(const struct assignment *a, const struct report *truth);
/* Time for a clean shutdown: this stop's, else the spec's. */
uint64_t assignment_stop_timeout_ms(const struct assignment *a);
bool assignment_wants_snapshot(const struct assignment *a, const char *id);

void assignment_done(struct assignment *a);
void report_done(struct report *r);

#endif
