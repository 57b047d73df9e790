/* SPDX-License-Identifier: Apache-2.0 */
#include "base/mem.h"
#include "cli/change.h"
#include "cli/show.h"

static char *count_text(const json_t *image, const json_t *value)
{
	(void)image;
	return value ? mem_printf("%zu", json_array_size(value)) : NULL;
}

static int list(struct cli *cli, const struct args *a, struct err *e)
{
	static const struct column columns[] = { { "NAME", "name" },
						 { "DIGEST", "digest", text_short },
						 { "ARCHITECTURE", "architecture" },
						 { "PARTITIONS", "partitions", count_text },
						 { "SIZE", "size", text_bytes },
						 { "CREATED", "created", text_age },
						 { 0 } };

	(void)a;
	return show_list(cli, "/v1/images" CLIENT_PAGE, columns, e);
}

static int show(struct cli *cli, const struct args *a, struct err *e)
{
	return show_object(cli, client_path("/v1/images/%s", args_operand(a, 0)), e);
}

static int remove_images(struct cli *cli, const struct args *a, struct err *e)
{
	return change_each(cli, a, "DELETE", "/v1/images/%s", NULL, e);
}

static const struct operand one[] = { { "IMAGE", "image, by name or digest", COMPLETE_IMAGE }, { 0 } };
static const struct operand many[] = { { "IMAGE", "images", COMPLETE_IMAGE, .many = true }, { 0 } };
static const struct example list_examples[] = { { "carrel image ls", "what can be deployed" }, { 0 } };
static const struct example show_examples[] = { { "carrel image show debian", "its partitions and what it runs" }, { 0 } };
static const struct example rm_examples[] = { { "carrel image rm debian", "partitions that no other image needs go with it" },
					      { 0 } };
const struct verb verb_image_ls = { "image ls", "list images", NULL, NULL, NULL, NULL, list_examples, list };
const struct verb verb_image_show = { "image show", "show all about an image", NULL, one, NULL, NULL, show_examples, show };
const struct verb verb_image_rm = { "image rm", "remove images", NULL, many, change_options, NULL, rm_examples, remove_images };
