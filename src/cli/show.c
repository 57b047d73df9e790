/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/show.h"

#include "base/own.h"

int show_object(struct cli *cli, char *path, struct err *e)
{
	own_str char *owned = path;
	own_json json_t *object = NULL;
	struct client *client;
	int r = cli_client(cli, &client, e);

	if (r == 0)
		r = client_call(client, "GET", owned, NULL, &object, e);
	if (r == 0)
		print_object(cli, object);
	return r;
}

int show_list(struct cli *cli, const char *path, const struct column *columns, struct err *e)
{
	own_json json_t *items = NULL;
	struct client *client;
	int r = cli_client(cli, &client, e);

	if (r == 0)
		r = client_list(client, path, &items, e);
	if (r == 0)
		print_list(cli, items, columns);
	return r;
}
