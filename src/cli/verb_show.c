/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/print.h"

static int show(struct cli *cli, const struct args *a, struct err *e)
{
	own_str char *path = client_path("/v1/workspaces/%s", args_operand(a, 0)),
		     *traffic_path = client_path("/v1/workspaces/%s/traffic", args_operand(a, 0));
	own_json json_t *workspace = NULL, *traffic = NULL;
	struct client *client;
	int r = cli_client(cli, &client, e);

	if (r == 0)
		r = client_call(client, "GET", path, NULL, &workspace, e);
	/* Counters are beside the workspace: it does not change with each packet. */
	if (r == 0 && json_array_size(json_object_get(workspace, "interfaces")) &&
	    client_call(client, "GET", traffic_path, NULL, &traffic, NULL) == 0)
		(void)json_object_set(workspace, "interfaces", json_object_get(traffic, "interfaces"));
	if (r == 0)
		print_object(cli, workspace);
	return r;
}

static const struct operand operands[] = { { "NAME", "workspace", COMPLETE_WORKSPACE }, { 0 } };
static const struct example examples[] = {
	{ "carrel show web", "its spec, state, process, times, last error" },
	{ "carrel show web --format json | jq .state", "for a script" },
	{ 0 },
};
const struct verb verb_show = { "show", "show all about a workspace", NULL, operands, NULL, NULL, examples, show };
