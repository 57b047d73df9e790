/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SERVICE_IMAGES_H
#define SERVICE_IMAGES_H

/* Images: names for what is in the store. */

#include "service/service.h"
#include "store/store.h"

struct image_job; /* images_import.c: an import under way */
struct sending;   /* images_export.c: an export */

struct images {
	struct store *store;
	char *store_path;
	struct image_job *jobs;
	struct sending *exports;
	struct loop_source *collecting;
};

/* 1: found, by name or digest; 0: there is none. */
int images_find(struct service *s, const char *reference, struct image *ret_image, struct err *e) must_check;
/* False: it is none of the exports under way. */
bool images_export_cancel(struct service *s, const char *operation_id);
struct db_rows;
/* The row that stands in `rows`. */
int images_row(struct db_rows *rows, struct image *ret_image, struct err *e) must_check;
/* Answers the request when the name is gone, with a key of the site's table set to nothing (NULL: none). */
int images_remove(struct request *r, const struct image *image, const char *site_key, struct err *e) must_check;
/* Something may have lost its last user: looked for after a moment. */
void images_collect_soon(struct service *s);

#endif
