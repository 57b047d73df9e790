/* SPDX-License-Identifier: Apache-2.0 */
#include "db/network.h"

void db_network_insert(struct db_batch *b, const struct db_network *n)
{
	static const char sql[] = "INSERT INTO networks (number, name, network, created) VALUES (?,?,?,?)";
	db_batch_add(b, sql, "uttu", n->number, n->name, n->network, n->created_ms);
}

void db_network_delete(struct db_batch *b, uint64_t number, const char *name)
{
	static const char rest_sql[] = "DELETE FROM attachments WHERE network=? AND released>0";
	static const char sql[] =
		"DELETE FROM networks WHERE number=? AND NOT EXISTS (SELECT 1 FROM attachments WHERE network=?)";
	db_batch_add(b, rest_sql, "u", number);
	db_batch_add(b, sql, "uu", number, number);
	db_batch_must_change(b, ERR_CONFLICT, "network '%s' is in use", name);
}

int db_network_query(struct db *db, struct db_rows **ret_rows, struct err *e)
{
	static const char sql[] = "SELECT number, name, network, created FROM networks ORDER BY number";
	return db_query(db, ret_rows, e, sql, "");
}

void db_network_row(struct db_rows *rows, struct db_network *ret_row)
{
	*ret_row = (struct db_network){ .number = (uint64_t)db_int(rows, 0), .name = db_text(rows, 1),
					.network = db_text(rows, 2), .created_ms = (uint64_t)db_int(rows, 3) };
}

void db_attachment_insert(struct db_batch *b, const struct db_attachment *a)
{
	static const char sql[] =
		"INSERT INTO attachments (number, workspace, network, owner_uid, name, device, port, mac, ipv4, ipv6,"
		" released) VALUES (?,?,?,?,?,?,?,?,?,?,?)";
	db_batch_add(b, sql, "utuuttttttu", a->number, a->workspace, a->network, a->owner_uid, a->name, a->device, a->port,
		     a->mac, a->ipv4, a->ipv6, a->released_ms);
}

void db_attachment_release(struct db_batch *b, uint64_t number, uint64_t owner_uid, const char *name, uint64_t now_ms)
{
	static const char sql[] = "UPDATE attachments SET released=?, owner_uid=?, name=? WHERE number=?";
	db_batch_add(b, sql, "uutu", now_ms, owner_uid, name, number);
}

void db_attachment_take_back(struct db_batch *b, uint64_t number)
{
	static const char sql[] = "DELETE FROM attachments WHERE number=? AND released>0";
	db_batch_add(b, sql, "u", number);
	db_batch_must_change(b, ERR_CONFLICT, "the addresses that this workspace had are in use");
}

void db_attachment_trim(struct db_batch *b, uint64_t released_before_ms)
{
	static const char sql[] = "DELETE FROM attachments WHERE released>0 AND released<=?";
	db_batch_add(b, sql, "u", released_before_ms);
}

#define COLUMNS                                                                                                                \
	"SELECT number, workspace, network, owner_uid, name, device, port, mac, ipv4, ipv6, released FROM attachments "
#define ORDER "ORDER BY released, number"

int db_attachment_query(struct db *db, const char *workspace, struct db_rows **ret_rows, struct err *e)
{
	static const char all[] = COLUMNS ORDER, some[] = COLUMNS "WHERE workspace=? " ORDER;
	return workspace ? db_query(db, ret_rows, e, some, "t", workspace) : db_query(db, ret_rows, e, all, "");
}

void db_attachment_row(struct db_rows *rows, struct db_attachment *ret_row)
{
	*ret_row = (struct db_attachment){
		.number = (uint64_t)db_int(rows, 0),
		.workspace = db_text(rows, 1),
		.network = (uint64_t)db_int(rows, 2),
		.owner_uid = (uint64_t)db_int(rows, 3),
		.name = db_text(rows, 4),
		.device = db_text(rows, 5),
		.port = db_text(rows, 6),
		.mac = db_text(rows, 7),
		.ipv4 = db_text(rows, 8),
		.ipv6 = db_text(rows, 9),
		.released_ms = (uint64_t)db_int(rows, 10),
	};
}

void db_group_insert(struct db_batch *b, const struct db_group *g)
{
	static const char sql[] =
		"INSERT INTO user_groups (name, owner_uid, shared, created) VALUES (?,?,?,?) ON CONFLICT (name) DO NOTHING";
	db_batch_add(b, sql, "tutu", g->name, g->owner_uid, g->shared, g->created_ms);
}

void db_group_update(struct db_batch *b, const struct db_group *g)
{
	static const char sql[] = "UPDATE user_groups SET shared=? WHERE name=?";
	db_batch_add(b, sql, "tt", g->shared, g->name);
	db_batch_must_change(b, ERR_NOT_FOUND, "no group '%s'", g->name);
}

void db_group_delete(struct db_batch *b, const char *name)
{
	static const char sql[] = "DELETE FROM user_groups WHERE name=?";
	db_batch_add(b, sql, "t", name);
}

int db_group_query(struct db *db, struct db_rows **ret_rows, struct err *e)
{
	static const char sql[] = "SELECT name, owner_uid, shared, created FROM user_groups ORDER BY name";
	return db_query(db, ret_rows, e, sql, "");
}

void db_group_row(struct db_rows *rows, struct db_group *ret_row)
{
	*ret_row = (struct db_group){ .name = db_text(rows, 0), .owner_uid = (uint64_t)db_int(rows, 1),
				      .shared = db_text(rows, 2), .created_ms = (uint64_t)db_int(rows, 3) };
}

void db_site_put(struct db_batch *b, const char *key, const char *value)
{
	static const char sql[] =
		"INSERT INTO site (key, value) VALUES (?,?) ON CONFLICT (key) DO UPDATE SET value=excluded.value";
	db_batch_add(b, sql, "tt", key, value);
}

int db_site_query(struct db *db, struct db_rows **ret_rows, struct err *e)
{
	static const char sql[] = "SELECT key, value FROM site";
	return db_query(db, ret_rows, e, sql, "");
}
