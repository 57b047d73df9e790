/* SPDX-License-Identifier: Apache-2.0 */
#include "model/image.h"

#include <string.h>

#include "base/own.h"
#include "base/str.h"
#include "db/image.h"
#include "service/handlers.h"
#include "service/routes.h"
#include "service/service.h"

static const struct field add_fields[] = { { "name", FIELD_TEXT, 0, "name of the image", .required = true, .check = name_check_image }, { 0 } };
const struct shape image_add_shape = { "image-add", sizeof(char *), add_fields, "An image to import." };
static const struct field view_fields[] = { { "name", FIELD_TEXT, 0, "name of the image", .required = true }, { 0 } };
const struct shape image_view_shape = { "image", sizeof(char *), view_fields, "An image.", .open = true };

int images_open(struct service *s, struct err *e)
{
	(void)s, (void)e;
	return 0;
}

int images_resolve(struct service *s, const char *reference, struct image *ret_image, struct err *e)
{
	own_db_rows struct db_rows *rows = NULL;
	struct db_image row;
	int r = db_image_find(s->db, reference, &rows, e);

	if (r == 0)
		r = db_next(rows, e);
	if (r == 0) {
		(void)err_set(e, ERR_NOT_FOUND, "no image '%.255s'", reference);
		return err_hint(e, "carrel image ls shows the images; carrel image import adds one");
	}
	if (r < 0)
		return r;
	db_image_row(rows, &row);
	return decode_text(row.image, strlen(row.image), "database: image", &image_shape, ret_image, e);
}

int images_cancel(struct service *s, const char *operation_id, struct err *e)
{
	(void)s;
	return err_set(e, ERR_CONFLICT, "operation %s cannot be cancelled", operation_id);
}

static int unsupported(struct request *r, struct err *e) { return err_set(e, ERR_UNSUPPORTED, "%s is not there", r->route->path); }
int handle_images_list(struct request *r, struct err *e) { return unsupported(r, e); }
int handle_images_add(struct request *r, struct err *e) { return unsupported(r, e); }
int handle_image_show(struct request *r, struct err *e) { return unsupported(r, e); }
int handle_image_remove(struct request *r, struct err *e) { return unsupported(r, e); }
int handle_image_export(struct request *r, struct err *e) { return unsupported(r, e); }
