/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SERVICE_WORKSPACE_H
#define SERVICE_WORKSPACE_H

/* Workspaces as the service knows them: the wish (durable), the truth (as the host reported it last), and the table of all. */

#include "base/hash.h"
#include "service/service.h"

struct snapshot {
	char id[ID_SIZE];
	char *name;
	uint64_t created_ms;
	bool memory;
};

struct workspace {
	int64_t seq;
	char id[ID_SIZE];
	char *name, *host;
	uint64_t owner_uid;
	struct assignment wish; /* id, owner, spec, image, snapshots: all that the host gets; borrowed texts are its own */
	uint64_t created_ms, version;
	bool reported;          /* the host ever spoke of it */
	struct report truth;
	struct { struct snapshot *items; size_t count; } snapshots;
	struct operation *operation; /* under way, or NULL */
	unsigned uncommitted;   /* changes of the wish that are being committed */
	bool stale;             /* one of them failed: read anew when none is under way any longer */
	uint64_t sent_generation; /* to the connected host */
	struct service *service; /* whose table holds it */
	char *told;             /* what hosts know of it as a member of networks; NULL: nothing */
	struct json_t *traffic; /* counters and drops as its host told last; NULL: nothing */
	unsigned attached;      /* attach streams open */
	bool was_attached;
	struct loop_source *linger; /* remove_on_exit waits for the first attach */
	struct workspace *next_clone, *previous_clone; /* of the same original (family.h) */
	char *rendered;         /* JSON as shown; NULL: changed since */
	size_t rendered_length;
};

extern const struct shape workspace_shape, snapshot_view_shape, create_shape, change_shape, error_shape, why_shape;

int workspaces_load(struct service *s, struct err *e) must_check;
struct workspace *workspace_by_id(struct service *s, const char *id);
/* id, name or unique id prefix of at least 4; what the caller may not see is not found. */
int workspace_find(const struct request *r, const char *reference, struct workspace **ret_workspace, struct err *e) must_check;
bool workspace_visible(const struct workspace *w, const struct identity *who);
/* Takes id, seq, name... already filled in; puts it into the table. */
void workspace_insert(struct service *s, struct workspace *w);
void workspace_remove(struct service *s, struct workspace *w); /* frees it */
void workspace_discard(struct workspace *w); /* never inserted */
void workspace_rename(struct service *s, struct workspace *w, const char *name);
/* Back to what the database has: after a failed commit. */
void workspace_reload(struct service *s, const char *id);
/* Shown differently from now on: new version, and the row of the wish goes into the batch. */
void workspace_store(struct workspace *w, struct db_batch *b, bool is_new);
void workspace_store_truth(struct workspace *w, struct db_batch *b);
const char *workspace_render(struct workspace *w, size_t *ret_length);
void workspace_etag(const struct workspace *w, char out[32]);
/* If-Match of the request, when there is one. */
int workspace_check_match(const struct request *r, const struct workspace *w, struct err *e) must_check;
bool workspace_is_machine(const struct workspace *w); /* its last run is, or was, under an engine for machines */
/* The host has done what is wished, or given up. */
bool workspace_settled(const struct workspace *w);
struct snapshot *workspace_add_snapshot(struct workspace *w, const char *id, const char *name, uint64_t created_ms,
					bool memory);
void workspace_drop_snapshot(struct workspace *w, const char *id);
char *workspace_clone_snapshot(const char *id); /* name of a snapshot that is made for clones */
json_t *snapshot_to_json(const struct workspace *w, const struct snapshot *n);

/* Answers with it as it is, and its ETag. */
void workspace_reply(struct request *r, struct workspace *w);
/* What an idempotency key stands for. */
void workspace_request_digest(const struct request *r, char out[DIGEST_HEX_SIZE]);
/* 1: this key made `subject` before, by the same request, which was answered with `status`; 0: it is new. ERR_CONFLICT: another
 * request. */
int workspace_known_key(struct request *r, const char *key, const char *digest, char subject[ID_SIZE], int *ret_status,
			struct err *e) must_check;

/* wait.c. 1: the request waits for a state and is answered later; 0: it asked for none, or it is there. */
int wait_begin(struct request *r, const struct workspace *w, struct err *e) must_check;
void wait_changed(struct service *s, const char *id); /* its truth is another one, or it is gone */

/* converge.c */
void converge_assign(struct workspace *w, struct service *s);           /* sends the wish when host and commit allow */
void converge_report(struct service *s, struct host *h, struct report *r, struct db_batch *b, struct json_t *forget);
void converge_wish(struct workspace *w, enum wish wish);              /* a new generation */
/* what `o` wished and did not get */
void converge_withdraw(struct workspace *w, const struct operation *o, struct db_batch *b);
void converge_streams_changed(struct service *s, struct workspace *w);

#endif
