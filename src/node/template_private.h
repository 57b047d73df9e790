/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_TEMPLATE_PRIVATE_H
#define NODE_TEMPLATE_PRIVATE_H

/* What template.c, which names and uses templates, shares with template_make.c and template_room.c. */

#include <pthread.h>
#include <sys/stat.h>

#include "base/hash.h"
#include "model/spec.h"
#include "node/template.h"
#include "node/template_failure.h"

#define TEMPLATE_NEW ".new"
#define TEMPLATE_WANTS_MOST 8

/* A template that is to be made: what its machine needs, all of it its own but for the host's. */
struct template_wish {
	char name[DIGEST_HEX_SIZE];
	struct launch_machine host; /* lives as long as node->machines */
	uint64_t cpu_milli, memory_bytes;
	bool system;
};
void template_wish_fill(struct template_wish *w, const struct launch *l);

/* Found whole, with these files. */
struct checked {
	char name[DIGEST_HEX_SIZE];
	struct stat ram, state;
	struct checked *next;
};

struct templates {
	struct node *node;
	char *folder, *shim;
	pthread_mutex_t making; /* one at a time; taken before the other */
	pthread_mutex_t lock; /* all below */
	struct checked *checked;
	struct template_failure *failures;
	struct template_wish wants[TEMPLATE_WANTS_MOST];
	size_t want_count;
};

int template_name(const struct launch *l, char out[DIGEST_HEX_SIZE], struct err *e) must_check;
void template_note_whole(struct templates *t, const char *name, const struct stat *ram, const struct stat *state);
/* Its digests, once: who takes it later has them behind. ERR_CORRUPT: it is gone now. */
int template_look(struct templates *t, const char *name, struct err *e) must_check;
void template_remove(struct templates *t, const char *name);
void templates_prune(struct templates *t);
void templates_clean(struct templates *t);

#endif
