/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `carrel network ...`: what the site's networks are, and whether a connection would be let through. The last (test) asks the
 * service, which asks the agent's own judge, so the answer is that of the rules and not of a second reading of them here.
 */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "cli/change.h"
#include "cli/show.h"
#include "model/network.h"

static int list(struct cli *cli, const struct args *a, struct err *e)
{
	static const struct column columns[] = { { "NAME", "name" }, { "KIND", "kind" }, { "IPV4", "ipv4" }, { "IPV6", "ipv6" },
						 { "USED", "used" }, { "FREE", "free" }, { 0 } };

	(void)a;
	return show_list(cli, "/v1/networks" CLIENT_PAGE, columns, e);
}

static int show(struct cli *cli, const struct args *a, struct err *e)
{
	return show_object(cli, client_path("/v1/networks/%s", args_operand(a, 0)), e);
}

static int remove_networks(struct cli *cli, const struct args *a, struct err *e)
{
	return change_each(cli, a, "DELETE", "/v1/networks/%s", NULL, e);
}

static int add_numbers(const struct args *a, json_t *body, struct err *e)
{
	static const char *const keys[] = { "vlan", "mtu" };

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		uint64_t number;
		const char *given = args_text(a, keys[i]);
		if (given && str_to_u64(given, 65535, &number) < 0)
			return err_set(e, ERR_INVALID, "--%s %.20s: a number is expected", keys[i], given);
		if (given)
			(void)json_object_set_new(body, keys[i], json_integer((json_int_t)number));
	}
	return 0;
}

static int create(struct cli *cli, const struct args *a, struct err *e)
{
	static const char *const texts[] = { "kind", "ipv4", "ipv6", "zone", "bridge" };
	static const struct {
		const char *option, *key;
	} lists[] = { { "reserve", "reserved" }, { "dns", "dns" } };
	own_json json_t *body = json_pack("{s:s}", "name", args_operand(a, 0)), *made = NULL;
	struct client *client;
	int r = body ? add_numbers(a, body, e) : err_set(e, ERR_INVALID, "the network's name is not UTF-8");

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(texts); i++)
		if (args_text(a, texts[i]))
			(void)json_object_set_new(body, texts[i], json_string(args_text(a, texts[i])));
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(lists); i++) {
		json_t *items = json_array();
		const char *given;
		for (size_t at = 0; (given = args_next(a, lists[i].option, &at));)
			(void)json_array_append_new(items, json_string(given));
		if (json_array_size(items))
			(void)json_object_set(body, lists[i].key, items);
		json_decref(items);
	}
	if (r == 0)
		r = cli_client(cli, &client, e);
	if (r == 0)
		r = client_call(client, "POST", "/v1/networks", body, &made, e);
	if (r == 0 && !cli->quiet)
		print_object(cli, made);
	return r;
}

static int test(struct cli *cli, const struct args *a, struct err *e)
{
	own_json json_t *body = json_pack("{s:s, s:s}", "to", args_operand(a, 1), "service", args_operand(a, 2)),
			*answer = NULL;
	own_str char *path = client_path("/v1/workspaces/%s/judge", args_operand(a, 0));
	struct client *client;
	int r = body ? cli_client(cli, &client, e) : err_set(e, ERR_INVALID, "the words are not UTF-8");

	if (r == 0)
		r = client_call(client, "POST", path, body, &answer, e);
	if (r < 0)
		return r;
	bool allowed = json_is_true(json_object_get(answer, "allowed"));
	if (cli->format != FORMAT_TABLE) {
		print_object(cli, answer);
	} else {
		const char *rule = json_text_at(answer, "rule", NULL), *side = json_text_at(answer, "side", NULL);
		own_strbuf struct str text = { 0 };
		print_escape(&text, rule ? rule : json_text_at(answer, "message", ""));
		(void)printf("%s%s%s", allowed ? "allowed" : "denied", text.length ? ": " : "", str_text(&text));
		str_clear(&text);
		print_escape(&text, side ? side : "");
		(void)printf("%s%s%s\n", text.length ? " (" : "", str_text(&text), text.length ? ")" : "");
	}
	return allowed ? 0 : 1;
}

static const struct operand create_operands[] = { { "NAME", "name of the network" }, { 0 } };
static const struct operand one[] = { { "NAME", "network", COMPLETE_NETWORK }, { 0 } };
static const struct operand many[] = { { "NAME", "networks that no workspace uses", COMPLETE_NETWORK, .many = true }, { 0 } };
static const struct operand test_operands[] = { { "FROM", "workspace or address", COMPLETE_WORKSPACE },
						{ "TO", "workspace or address", COMPLETE_WORKSPACE },
						{ "SERVICE", "tcp/PORT, udp/PORT or icmp" },
						{ 0 } };
static const struct option create_options[] = {
	{ "kind", 0, OPTION_TEXT, "KIND",
	  "nat: hidden behind the host; routed: the site routes the pools here; isolated: no way out; bridge: joins a bridge",
	  network_kind_names },
	{ "ipv4", 0, OPTION_TEXT, "POOL", "IPv4 pool such as 10.88.0.0/24; a free one is chosen when missing; none: no IPv4" },
	{ "ipv6", 0, OPTION_TEXT, "POOL", "IPv6 pool such as fd00:88::/64; a free one is chosen when missing; none: no IPv6" },
	{ "reserve", 0, OPTION_MANY, "RANGE", "address, POOL or FIRST-LAST that is not given out" },
	{ "zone", 0, OPTION_TEXT, "ZONE", "DNS zone; NAME.carrel when missing" },
	{ "bridge", 0, OPTION_TEXT, "BRIDGE", "bridge of the site to join, or with --vlan any interface (kind bridge)" },
	{ "vlan", 0, OPTION_TEXT, "NUMBER", "VLAN on it" },
	{ "mtu", 0, OPTION_TEXT, "BYTES", "largest packet" },
	{ "dns", 0, OPTION_MANY, "ADDRESS", "server for names outside; the host's when missing" },
	{ 0 },
};
static const struct example create_examples[] = {
	{ "carrel network create lab", "hidden behind the host, with pools that are free" },
	{ "carrel network create dmz --kind routed --ipv4 192.0.2.0/26 --reserve 192.0.2.2-192.0.2.9",
	  "addresses that the site routes to this host" },
	{ "carrel network create office --kind bridge --bridge br0 --vlan 7 --ipv4 198.51.100.0/24",
	  "workspaces beside the site's own machines" },
	{ 0 },
};
static const struct example list_examples[] = { { "carrel network ls", "pools, and how many addresses are left" }, { 0 } };
static const struct example show_examples[] = { { "carrel network show lab", "its pools, and who has which address" }, { 0 } };
static const struct example rm_examples[] = { { "carrel network rm lab", "refused while workspaces are on it" }, { 0 } };
static const struct example test_examples[] = {
	{ "carrel network test web db tcp/5432", "allowed or denied, and by which rule; exit status 0 or 1" },
	{ "carrel network test 203.0.113.9 web tcp/80", "from outside" },
	{ 0 },
};
const struct verb verb_network_create = { "network create", "create a network (administrators)", NULL, create_operands,
					  create_options, NULL, create_examples, create };
const struct verb verb_network_ls = { "network ls", "list networks", NULL, NULL, NULL, NULL, list_examples, list };
const struct verb verb_network_show = {
	"network show", "show a network and who is on it", NULL, one, NULL, NULL, show_examples, show
};
const struct verb verb_network_rm = {
	"network rm", "remove networks (administrators)", NULL, many, change_options, NULL, rm_examples, remove_networks
};
const struct verb verb_network_test = {
	"network test", "say whether a connection would pass, and why", NULL, test_operands, NULL, NULL, test_examples, test
};
