/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DB_IMAGE_H
#define DB_IMAGE_H

/* Images by name. `image` is JSON (model/image.h). Several names may stand for one digest. */

#include "db/db.h"

struct db_image {
	const char *name, *digest, *image;
	uint64_t owner_uid, created_ms;
};

/* The name moves when it exists; when it is another owner's and not `anybody`, the batch fails with ERR_EXISTS. */
void db_image_put(struct db_batch *b, const struct db_image *i, bool anybody);
void db_image_delete(struct db_batch *b, const char *name);
int db_image_query(struct db *db, struct db_rows **ret_rows, struct err *e) must_check; /* all, by name */
/* By name or by "sha256:...". No row: no such image. */
int db_image_find(struct db *db, const char *reference, struct db_rows **ret_rows, struct err *e) must_check;
void db_image_row(struct db_rows *rows, struct db_image *ret_row);

#endif
