/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_SUSPEND_H
#define NODE_SUSPEND_H

/*
 * Suspended is exactly the workspace whose memory folder holds a manifest: it appears in one rename, when the state is complete
 * and the workspace stands still, and goes in one rename before the workspace moves again. Whoever is killed in between leaves
 * the one or the other, and the record is told by the folder (docs/decisions/0095).
 */

#include "model/memory.h"
#include "node/emulator.h"
#include "node/steps.h"

/* What a host has, with what its words are held by. */
struct suspend_host {
	struct memory_host has;
	const struct emulator *emulator;
	char *version;
	struct texts features; /* NULL-terminated */
};

/* How an engine does it; one row per engine in suspend_engines.c. */
struct suspend_engine {
	const char *name; /* as in spec_engine_names */
	/* Whether this workspace could be suspended now; else the reason and what to do. Changes nothing. */
	int (*check)(struct node *n, const struct record *r, struct err *e);
	/* The workspace stands still, all but `files`' digests and the manifest itself is on disk in `folder`, and `m` tells of
	 * it. After a failure it goes on as before. */
	int (*save)(struct work *w, int folder, struct memory_manifest *m, void **ret_saved, struct err *e);
	/* MANIFEST.new becomes the manifest, and the workspace and its runner end; one may not happen without the other. After
	 * a failure it goes on as before. */
	int (*commit)(struct work *w, int folder, void *saved, struct err *e);
	void (*abort)(struct work *w, void *saved); /* not committed: goes on as before */
	/* What this host has, for memory_check; whatever comes of it, the caller frees it. */
	int (*host)(struct node *n, const struct memory_manifest *m, struct suspend_host *ret_host, struct err *e);
};

extern const struct suspend_engine suspend_emulator, suspend_kvm; /* suspend_machine.c */
extern const struct suspend_engine suspend_workspace; /* suspend_workspace.c: by CRIU */
/* suspend_travel.c: by CRIU, of what lives inside a machine; of no engine alone */
extern const struct suspend_engine suspend_travel;
/* program, version and features of a state written now */
void suspend_workspace_needs(const struct record *r, struct memory_manifest *m);
extern const struct suspend_engine *const suspend_engines[]; /* NULL-terminated */

/* For `saved` of an engine that keeps nothing but the runner's connection, whose end lets the workspace go on. */
void *suspend_connection(int fd_taken);
int suspend_connection_commit(struct work *w, int folder, void *saved, struct err *e) must_check;
void suspend_connection_abort(struct work *w, void *saved);

bool suspend_is_there(const struct record *r); /* a manifest */
/* Read strictly. ERR_NOT_FOUND: none. */
int suspend_read(const struct record *r, struct memory_manifest *ret_manifest, struct err *e) must_check;

void suspend_count_bytes(struct record *r); /* the report tells them */

/* What a manifest says of any workspace: who, which image, which volumes. */
int suspend_begin_manifest(const struct work *w, struct memory_manifest *m, struct err *e) must_check;
/* MANIFEST.new in `folder`: its bytes for good, its name when it is renamed and the folder synced. */
int suspend_write_manifest(int folder, const struct memory_manifest *m, struct err *e) must_check;

/* From running or paused to suspended: afterwards the runner is gone and the manifest there, or all is as before. */
int suspend_do(struct work *w, struct err *e) must_check;
/* Of the files that have none. */
int suspend_add_digests(int folder, struct memory_manifest *m, struct err *e) must_check;
/* After it was suspended and all it used was given back: the manifest gets the digests that nobody had time for. */
int suspend_seal(const struct record *r, struct err *e) must_check;
/* Whether the memory state can be resumed here: host, workspace, files; `whole`: with what is packed, which a resume finds out
 * itself. Nothing is changed. */
int suspend_verify(struct node *n, const struct record *r, bool whole, struct memory_manifest *ret_manifest,
		   struct err *e) must_check;
/* Bound to this workspace, which has taken it over from another service: its id, its restores, its range of ids. All files but
 * the manifest are in their places; ret_text is what that is from now on. */
int suspend_take_over(const struct record *r, const char *manifest, size_t length, char **ret_text, struct err *e) must_check;
/* The memory state goes, whatever there is of it; what a live machine uses stays. */
int suspend_discard(const struct record *r, struct err *e) must_check;
/* Before it goes on from memory of CRIU: what the machine that it was had there, which nothing is made from. */
void suspend_drop_unnamed(const struct record *r, const struct memory_manifest *m);
/* The folder of a run that may have begun from memory, or whose suspension failed, or of a state that was packed at once, may
 * have what is nothing any more (record.untidy). Not while a run's manifest is there. */
bool suspend_is_untidy(const struct record *r);
/* It goes. `brief`, somebody waits: what is large only loses its name, and a later call removes it. */
void suspend_tidy(struct record *r, bool brief);
/* {"level","engine","reason","hint","obstacles","notes"}: what a suspend would come to now; with `to`, what it would be then, a
 * live move. */
json_t *suspend_check(struct node *n, const struct record *r, const struct assignment *to);

#endif
