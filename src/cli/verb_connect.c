/* SPDX-License-Identifier: Apache-2.0 */
#include "base/mem.h"
#include "base/str.h"
#include "cli/change.h"
#include "cli/spec_edit.h"
#include "cli/spec_options.h"

static const char *const rate_keys[] = { "in-most", "in-least", "out-most", "out-least" };

static int add_network(struct cli *cli, const struct args *a, const char *name, const json_t *spec, json_t *body, struct err *e)
{
	static const char *const keys[] = { "ipv4", "ipv6", "mac" };
	own_json json_t *list = spec_edit_list(spec, "networks");
	const char *network = args_operand(a, 1);
	size_t i;
	json_t *item = NULL;

	(void)cli, (void)name;
	json_t *one = json_pack("{s:s}", "network", network);
	if (!one)
		return err_set(e, ERR_INVALID, "the network's name is not UTF-8");
	for (i = 0; i < ARRAY_SIZE(keys); i++)
		if (args_text(a, keys[i]))
			(void)json_object_set_new(one, keys[i], json_string(args_text(a, keys[i])));
	json_t *rates = json_object();
	for (i = 0; i < ARRAY_SIZE(rate_keys); i++)
		if (args_text(a, rate_keys[i]))
			(void)json_object_set_new(rates, rate_keys[i], json_string(args_text(a, rate_keys[i])));
	if (json_object_size(rates))
		(void)json_object_set(one, "rates", rates);
	json_decref(rates);
	/* One that is connected is changed: other rates, another address. */
	json_array_foreach(list, i, item) {
		if (str_eq(json_string_value(json_object_get(item, "network")), network))
			break;
	}
	if (i < json_array_size(list)) {
		(void)json_object_update(item, one);
		json_decref(one);
	} else {
		(void)json_array_append_new(list, one);
	}
	(void)json_object_set_new(body, "network", json_string("auto"));
	return json_object_set(body, "networks", list);
}

static int connect_network(struct cli *cli, const struct args *a, struct err *e)
{
	return spec_edit(cli, a, args_operand(a, 0), add_network, e);
}

static int take_networks(struct cli *cli, const struct args *a, const char *name, const json_t *spec, json_t *body,
			 struct err *e)
{
	own_json json_t *list = spec_edit_list(spec, "networks");
	int r = 0;

	(void)cli;
	for (size_t i = 1; r == 0 && i < a->operand_count; i++) {
		bool found = false;
		for (size_t j = json_array_size(list); j-- > 0;)
			if (str_eq(json_string_value(json_object_get(json_array_get(list, j), "network")),
				   args_operand(a, i))) {
				(void)json_array_remove(list, j);
				found = true;
			}
		if (!found)
			r = err_set(e, ERR_NOT_FOUND, "workspace '%s' is not on network '%.64s'", name, args_operand(a, i));
	}
	return r < 0 ? r : json_object_set(body, "networks", list);
}

static int disconnect_network(struct cli *cli, const struct args *a, struct err *e)
{
	return spec_edit(cli, a, args_operand(a, 0), take_networks, e);
}

static const struct operand connect_operands[] = { { "WORKSPACE", "workspace", COMPLETE_WORKSPACE },
						   { "NETWORK", "network", COMPLETE_NETWORK },
						   { 0 } };
static const struct operand disconnect_operands[] = { { "WORKSPACE", "workspace", COMPLETE_WORKSPACE },
						      { "NETWORK", "networks to leave", COMPLETE_NETWORK, .many = true },
						      { 0 } };
static const struct option connect_options[] = {
	{ "ipv4", 0, OPTION_TEXT, "ADDRESS", "this IPv4 address; a free one is chosen when missing" },
	{ "ipv6", 0, OPTION_TEXT, "ADDRESS", "this IPv6 address" },
	{ "mac", 0, OPTION_TEXT, "ADDRESS", "this hardware address" },
	{ "in-most", 0, OPTION_TEXT, "RATE", "most bits a second towards the workspace, such as 100M" },
	{ "in-least", 0, OPTION_TEXT, "RATE", "what it is guaranteed" },
	{ "out-most", 0, OPTION_TEXT, "RATE", "most bits a second from the workspace" },
	{ "out-least", 0, OPTION_TEXT, "RATE", "what it is guaranteed" },
	{ 0 },
};
static const struct example connect_examples[] = {
	{ "carrel connect web lab", "one more interface, while it runs" },
	{ "carrel connect web lab --ipv4 10.88.0.50 --in-most 100M",
	  "with an address and a limit; changes one that is connected" },
	{ 0 },
};
static const struct example disconnect_examples[] = {
	{ "carrel disconnect web lab", "its addresses rest a minute, then others may get them" }, { 0 }
};
const struct verb verb_connect = { "connect", "connect a workspace to a network", NULL, connect_operands, connect_options,
				   change_options, connect_examples, connect_network };
const struct verb verb_disconnect = { "disconnect", "take a workspace off a network", NULL, disconnect_operands, NULL,
				      change_options, disconnect_examples, disconnect_network };
