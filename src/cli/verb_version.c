/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "cli/print.h"

static int version(struct cli *cli, const struct args *a, struct err *e)
{
	struct client *client;
	own_json json_t *service = NULL;
	struct err failure = { 0 };
	(void)a;

	int r = cli_client(cli, &client, e);
	if (r < 0)
		return r;
	if (client_call(client, "GET", "/v1/version", NULL, &service, &failure) < 0)
		service = json_pack("{s:s}", "error", failure.message);
	own_json json_t *both = json_pack("{s:s, s:O}", "client", CARREL_VERSION, "service", service);
	print_object(cli, both);
	return 0;
}

static const struct example examples[] = { { "carrel version", "of this program and of the service" }, { 0 } };
const struct verb verb_version = {
	"version", "print the versions of this program and of the service", NULL, NULL, NULL, NULL, examples, version
};
