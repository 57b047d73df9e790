/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SERVICE_SERVICE_H
#define SERVICE_SERVICE_H

/*
 * The state of one carreld. Everything here belongs to the loop's thread. What is in memory is the database's content plus the
 * changes that are being committed; an answer and an assignment leave only after the commit, and a commit that fails brings the
 * memory back to what the database has.
 */

#include "base/map.h"
#include "db/db.h"
#include "model/assignment.h"
#include "model/name.h"
#include "service/config.h"
#include "service/family.h"
#include "service/request.h"

struct server;
struct operation;
struct follower;
struct host;
struct stream;
struct state_waiter; /* wait.c */
struct images; /* images.c */
struct networks; /* network.h */

struct service {
	struct loop *loop;
	struct db *db;
	struct server *server;
	struct config config;
	const char *state_dir, *run_dir;
	struct {
		struct workspace **items; /* by seq */
		size_t count, capacity;
		struct map by_id, by_name;
		struct families families;
		int64_t last_seq;
	} workspaces;
	struct {
		struct operation **items; /* by seq */
		size_t count, capacity;
		struct map by_id;
		int64_t last_seq;
	} operations;
	struct {
		int64_t last_seq, trimmed_seq;
		struct follower *followers;
	} events;
	struct host *hosts;
	struct stream *streams;
	struct state_waiter *waiters;
	struct images *images;
	struct networks *networks;
	uint64_t requests, reports, jumps;
	uint64_t started_ms;
};

/* What the database has comes into memory; s->db and s->loop are there. */
int service_load(struct service *s, struct err *e) must_check;

static inline const struct config *config_of(const struct request *r) { return &r->service->config; }

/* Unix time in milliseconds, and as the API writes it: "2026-01-31T12:00:00.123Z"; NULL for 0. */
uint64_t service_now_ms(void);
char *service_time_text(uint64_t ms);

/* Pages: ?limit and ?after. The cursor is the seq of the last item. */
struct page {
	uint64_t limit;
	int64_t after;
};
int page_parse(const struct request *r, struct page *ret_page, struct err *e) must_check;
extern const struct parameter page_query[];

/* --- changes: a batch, the rows in memory it touched, and what follows when it is committed --- */

struct change {
	struct service *service;
	struct db_batch *batch;
	struct request *request;      /* NULL: nobody waits */
	char (*others)[ID_SIZE];      /* further workspaces that were touched */
	size_t other_count;
	char workspace[ID_SIZE];      /* touched: reloaded when the commit fails, assigned to its host when it succeeds */
	char operation[ID_SIZE];      /* made by it */
	int status;                   /* of the answer: 201 and 200 with the workspace, 202 with the operation, 204 */
	bool deleted;                 /* the workspace is gone: tell its host to forget it */
	char host[NAME_LONGEST + 1];
};
struct change *change_new(struct service *s, struct request *r);
void change_commit(struct change *c); /* takes it */
void change_add(struct change *c, const char *workspace); /* one more that it touches */
void change_drop(struct change *c);   /* nothing was changed after all */

/* images.c */
int images_open(struct service *s, struct err *e) must_check;
/* The image that a spec names, by name or digest: fills *ret_image (image_done it). ERR_NOT_FOUND with a hint. */
int images_resolve(struct service *s, const char *reference, struct image *ret_image, struct err *e) must_check;
/* A cancel of an operation on an image. */
int images_cancel(struct service *s, const char *operation_id, struct err *e) must_check;

#endif
