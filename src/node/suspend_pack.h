/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_SUSPEND_PACK_H
#define NODE_SUSPEND_PACK_H

/*
 * The files of a memory state, packed when it has rested for a while, and unpacked before it goes on
 * (docs/formats/memory-pack.md). The bytes are handled by carrel-memory, in a sandbox: a state may have come from another site.
 * The manifest says of each file in which form it is; until it does, the packed form is nothing, and afterwards the plain one
 * is.
 */

#include "node/suspend.h"

/* When its memory is to be packed, in milliseconds of Unix time; 0: there is nothing to pack, or the site keeps it as it is. */
uint64_t suspend_pack_due(const struct node *n, const struct record *r);

/* Whether memory is packed while it is written, and there is never a plain form of it on the disk: nothing may rest here. */
bool suspend_packs_at_once(const struct node *n);
/* One file being packed by a process that goes on where an earlier one was ended. */
struct suspend_packing;

/* ERR_NOT_FOUND: all are packed. */
int suspend_pack_begin(const struct record *r, struct suspend_packing **ret_packing, struct err *e) must_check;
int suspend_packing_pidfd(const struct suspend_packing *p);
/* After the process has ended: the packed form takes the plain one's place. */
int suspend_pack_finish(const struct record *r, struct suspend_packing *p, struct err *e) must_check;
/* ends the process; what it has written stays, and is gone on with. NULL: nothing */
void suspend_packing_free(struct suspend_packing *p);

/* The same at once, of a state without a manifest yet: the process is there, and waits until nobody changes the file. */
int suspend_pack_ready(int folder, const char *name, uint64_t taken_ms, struct suspend_packing **ret_packing,
		       struct err *e) must_check;
/* Nobody does. */
void suspend_pack_go(struct suspend_packing *p);
/* Ends when the packed form is on the disk, and `f` tells of it. The plain one stays, until suspend_pack_clean. */
int suspend_pack_now(struct suspend_packing *p, struct memory_file *f, struct err *e) must_check;

/*
 * Files that the manifest has packed are made plain, beside the packed ones. A machine's memory has its place and its length
 * then, and is still being filled: by a process that tells when it is whole.
 */
struct suspend_unpacking;

/* After a failure there is none of the plain files. NULL: nothing is under way. */
int suspend_unpack_begin(const struct record *r, const struct memory_manifest *m, struct suspend_unpacking **ret_unpacking,
			 struct err *e) must_check;
/* Gives a byte when all is whole, or its end without one; 0: all is whole. It stays the callee's. */
int suspend_unpacking_whole(const struct suspend_unpacking *u);
/* Ended, whatever became of it; `u` may be NULL. If it failed by itself: its error. */
int suspend_unpack_end(struct suspend_unpacking *u, struct err *e) must_check;
/* Every chunk of a packed file against its checksum. */
int suspend_pack_check(int folder, const struct memory_file *f, struct err *e) must_check;
/* What was packed at once has no plain file from here on, but its room until suspend_pack_clean. Whether there is one. */
bool suspend_pack_leave(const struct record *r);
/* What the manifest does not name goes, but for what a packing goes on with; without a manifest all that is packed. */
void suspend_pack_clean(const struct record *r);

#endif
