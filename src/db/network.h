/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DB_NETWORK_H
#define DB_NETWORK_H

/*
 * Networks, attachments (who has which addresses), groups, and what the site decided once about itself. The schema refuses that
 * an address, a MAC or a number is given twice: a batch that tries fails whole, with the workspace it would have made.
 */

#include "db/db.h"

struct db_network {
	uint64_t number, created_ms;
	const char *name, *network;
};
void db_network_insert(struct db_batch *b, const struct db_network *n);
/* Fails with ERR_CONFLICT while attachments are on it; those that only rest go with it. */
void db_network_delete(struct db_batch *b, uint64_t number, const char *name);
int db_network_query(struct db *db, struct db_rows **ret_rows, struct err *e) must_check; /* by number */
void db_network_row(struct db_rows *rows, struct db_network *ret_row);

struct db_attachment {
	uint64_t number, network, owner_uid, released_ms;
	const char *workspace, *name, *device, *port, *mac, *ipv4, *ipv6;
};
void db_attachment_insert(struct db_batch *b, const struct db_attachment *a);
/* From now on its addresses rest. */
void db_attachment_release(struct db_batch *b, uint64_t number, uint64_t owner_uid, const char *name, uint64_t now_ms);
/* Ends the rest of one, whose addresses go back to who had them; ERR_CONFLICT when it does not rest. */
void db_attachment_take_back(struct db_batch *b, uint64_t number);
void db_attachment_trim(struct db_batch *b, uint64_t released_before_ms);
/* NULL: all; by release */
int db_attachment_query(struct db *db, const char *workspace, struct db_rows **ret_rows, struct err *e) must_check;
void db_attachment_row(struct db_rows *rows, struct db_attachment *ret_row);

struct db_group {
	const char *name, *shared;
	uint64_t owner_uid, created_ms;
};
void db_group_insert(struct db_batch *b, const struct db_group *g); /* one that is there stays as it is */
void db_group_update(struct db_batch *b, const struct db_group *g);
void db_group_delete(struct db_batch *b, const char *name);
int db_group_query(struct db *db, struct db_rows **ret_rows, struct err *e) must_check;
void db_group_row(struct db_rows *rows, struct db_group *ret_row);

void db_site_put(struct db_batch *b, const char *key, const char *value);
int db_site_query(struct db *db, struct db_rows **ret_rows, struct err *e) must_check; /* columns: key, value */

#endif
