/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/change.h"
#include "cli/show.h"

static int list(struct cli *cli, const struct args *a, struct err *e)
{
	static const struct column columns[] = {
		{ "NAME", "name" }, { "SIZE", "size", text_bytes },     { "WORKSPACE", "workspace" },
		{ "HOST", "host" }, { "CREATED", "created", text_age }, { 0 }
	};

	(void)a;
	return show_list(cli, "/v1/volumes", columns, e);
}

static int remove_volumes(struct cli *cli, const struct args *a, struct err *e)
{
	return change_each(cli, a, "DELETE", "/v1/volumes/%s", NULL, e);
}

static const struct operand operands[] = { { "NAME", "kept volumes that no workspace uses", COMPLETE_VOLUME,
					     .many = true }, { 0 } };
static const struct example list_examples[] = { { "carrel volume ls", "volumes that stay when their workspace is removed" },
						{ 0 } };
static const struct example rm_examples[] = { { "carrel volume rm data", "its content is gone for good" }, { 0 } };
const struct verb verb_volume_ls = { "volume ls", "list kept volumes", NULL, NULL, NULL, NULL, list_examples, list };
const struct verb verb_volume_rm = { "volume rm", "remove kept volumes", NULL,          operands, change_options,
				     NULL,        rm_examples,           remove_volumes };
