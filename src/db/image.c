/* SPDX-License-Identifier: Apache-2.0 */
#include "db/image.h"

#include "base/str.h"

void db_image_put(struct db_batch *b, const struct db_image *i, bool anybody)
{
	static const char sql[] =
		"INSERT INTO images (name, digest, owner_uid, created, image) VALUES (?,?,?,?,?) ON CONFLICT (name) DO"
		" UPDATE SET digest=excluded.digest, owner_uid=excluded.owner_uid, created=excluded.created,"
		" image=excluded.image WHERE images.owner_uid=excluded.owner_uid OR ?=1";
	db_batch_add(b, sql, "ttuuti", i->name, i->digest, i->owner_uid, i->created_ms, i->image, (int64_t)anybody);
	db_batch_must_change(b, ERR_EXISTS, "image '%s' exists and belongs to another user", i->name);
}

void db_image_delete(struct db_batch *b, const char *name)
{
	static const char sql[] = "DELETE FROM images WHERE name=?";
	db_batch_add(b, sql, "t", name);
}

int db_image_query(struct db *db, struct db_rows **ret_rows, struct err *e)
{
	static const char sql[] = "SELECT name, digest, owner_uid, created, image FROM images ORDER BY name";
	return db_query(db, ret_rows, e, sql, "");
}

int db_image_find(struct db *db, const char *reference, struct db_rows **ret_rows, struct err *e)
{
	static const char by_name[] = "SELECT name, digest, owner_uid, created, image FROM images WHERE name=?";
	static const char by_digest[] =
		"SELECT name, digest, owner_uid, created, image FROM images WHERE digest=? ORDER BY name LIMIT 1";
	return db_query(db, ret_rows, e, str_starts(reference, "sha256:") ? by_digest : by_name, "t", reference);
}

void db_image_row(struct db_rows *rows, struct db_image *ret_row)
{
	*ret_row = (struct db_image){ .name = db_text(rows, 0), .digest = db_text(rows, 1),
				      .owner_uid = (uint64_t)db_int(rows, 2), .created_ms = (uint64_t)db_int(rows, 3),
				      .image = db_text(rows, 4) };
}
