/* SPDX-License-Identifier: Apache-2.0 */
/* The compiler against golden files (CARREL_GOLDEN=update writes them anew), and the judge. Packets: tests/e2e/test_filter.py. */
#include "../golden.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "network/filter.h"

static struct err e;

#define T(text) (char *)(uintptr_t)(text) /* fields own their texts; these are never freed */

static struct network networks[] = {
	{ .name = T("default"), .kind = NETWORK_NAT, .number = 1, .ipv4 = T("10.88.0.0/24"), .ipv6 = T("fd00:88::/64") },
	{ .name = T("open"), .kind = NETWORK_ROUTED, .number = 2, .ipv4 = T("10.89.0.0/24") },
	{ .name = T("cell"), .kind = NETWORK_ISOLATED, .number = 3, .ipv4 = T("10.90.0.0/24") },
};
static const struct filter_network carried[] = { { &networks[0], "crbt1" },
						 { &networks[1], "crbt2" },
						 { &networks[2], "crbt3" } };

static struct attachment attachments[] = {
	{ T("default"), 16, T("eth0"), T("cr10"), T("02:00:00:00:00:10"), T("10.88.0.16/24"), T("fd00:88::10/64"), NULL },
	{ T("default"), 17, T("eth0"), T("cr11"), T("02:00:00:00:00:11"), T("10.88.0.17/24"), T("fd00:88::11/64"), NULL },
	{ T("open"), 18, T("eth0"), T("cr12"), T("02:00:00:00:00:12"), T("10.89.0.18/24"), NULL, NULL },
	{ T("cell"), 19, T("eth0"), T("cr13"), T("02:00:00:00:00:13"), T("10.90.0.19/24"), NULL, NULL },
};

static struct spec specs[4];
static struct filter_workspace workspaces[] = {
	{ "0000000000000001", &specs[0], &attachments[0], 1, 1000 },
	{ "0000000000000002", &specs[1], &attachments[1], 1, 1000 },
	{ "0000000000000003", &specs[2], &attachments[2], 1, 1001 },
	{ "0000000000000004", &specs[3], &attachments[3], 1, 1001 },
};
static const struct filter_intent intent = { .instance = "t", .networks = carried, .network_count = 3, .workspaces = workspaces,
					     .workspace_count = 4, .metadata_port = 8180 };

static char *servers[] = { T("192.168.77.53"), T("2001:db8::53") };
static struct network site_networks[] = {
	{ .name = T("default"), .kind = NETWORK_NAT, .number = 1, .ipv4 = T("10.88.0.0/24") },
	{ .name = T("office"), .kind = NETWORK_BRIDGE, .number = 2, .bridge = T("br0"), .ipv4 = T("192.168.77.0/24"),
	  .ipv6 = T("2001:db8::/64"), .dns = { servers, 2 } },
	{ .name = T("leased"), .kind = NETWORK_BRIDGE, .number = 3, .bridge = T("br1") },
};
static const struct filter_network on_site[] = { { &site_networks[0], "crbt1" },
						 { &site_networks[1], "br0" },
						 { &site_networks[2], "br1" } };
static struct attachment site_attachments[] = {
	{ T("office"), 16, T("eth0"), T("cr10"), T("02:00:00:00:00:10"), T("192.168.77.16/24"), T("2001:db8::10/64"), NULL },
	{ T("leased"), 17, T("eth0"), T("cr11"), T("02:00:00:00:00:11"), NULL, NULL, NULL },
	{ T("default"), 18, T("eth0"), T("cr12"), T("02:00:00:00:00:12"), T("10.88.0.18/24"), NULL, NULL },
};
static struct filter_workspace site_workspaces[] = {
	{ "0000000000000002", &specs[1], &site_attachments[0], 1, 1000 },
	{ "0000000000000003", &specs[2], &site_attachments[1], 1, 1000 },
	{ "0000000000000001", &specs[0], &site_attachments[2], 1, 1000 },
};

static int setup(void **state)
{
	static const char *const texts[] = {
		"{name: plain, image: x, publish: [\"8080:80\"]}",
		"{name: ruled, image: x, groups: [lab], allow: [wan, \"workspace:plain tcp/22,80-90\"], deny: [192.0.2.0/24], "
		"from: [\"group:lab icmp\", site]}",
		"{name: grouped, image: x, groups: [lab], allow: [any]}",
		"{name: alone, image: x, isolated: true}",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		assert_ok(spec_parse(texts[i], strlen(texts[i]), "test", &specs[i], &e), &e);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(specs); i++)
		spec_done(&specs[i]);
	return 0;
}

static void compare(const struct filter_intent *what, const char *name)
{
	own_str char *file = mem_printf("network/golden/%s.nft", name);
	own_strbuf struct str text = { 0 };

	assert_ok(filter_compile(what, &text, &e), &e);
	assert_golden(str_text(&text), file);
}

static void golden(void **state)
{
	(void)state;
	compare(&intent, "filter");
}

/* On a bridge of the site: reflexive rules, and those for kernels that follow connections there. */
static void golden_site(void **state)
{
	struct filter_intent site = { .instance = "t", .networks = on_site, .network_count = 3, .workspaces = site_workspaces,
				      .workspace_count = 3 };

	(void)state;
	compare(&site, "site");
	site.follows = true;
	compare(&site, "site-followed");
}

/* Rules and names reach nft as digests and numbers only. */
static void no_text_of_a_user(void **state)
{
	own_strbuf struct str text = { 0 };

	(void)state;
	assert_ok(filter_compile(&intent, &text, &e), &e);
	assert_null(strstr(text.bytes, "lab"));
	assert_null(strstr(text.bytes, "plain"));
	struct filter_intent wrong = intent;
	wrong.instance = "x; flush ruleset";
	assert_fails(filter_compile(&wrong, &text, &e), &e, ERR_INVALID, "cannot name tables");
	struct attachment hostile = attachments[0];
	hostile.port = T("cr\" drop");
	struct filter_workspace workspace = { "0000000000000001", &specs[0], &hostile, 1, 1000 };
	wrong = (struct filter_intent){ .instance = "t", .networks = carried, .network_count = 3, .workspaces = &workspace,
					.workspace_count = 1 };
	assert_fails(filter_compile(&wrong, &text, &e), &e, ERR_INVALID, "usable port");
}

static void judged(void **state)
{
	static const struct {
		const char *from, *to;
		enum rule_protocol protocol;
		uint16_t port;
		bool published, allowed;
		const char *rule;
	} rows[] = {
		{ "1", NULL, RULE_TCP, 80, false, true, "default: wan" },
		{ "1", "192.168.1.1", RULE_TCP, 80, false, false, "default" },
		{ "1", "2", RULE_TCP, 80, false, false, "default" },
		{ "2", "1", RULE_TCP, 85, false, true, "default: same owner or group" },
		{ "2", "1", RULE_TCP, 23, false, false, "default" },
		{ "2", "192.0.2.9", RULE_TCP, 80, false, false, "deny 192.0.2.0/24" },
		{ "3", "2", RULE_ICMP, 0, false, true, "from group:lab icmp" },
		{ "3", "2", RULE_TCP, 22, false, false, "default" },
		{ "3", "4", RULE_TCP, 22, false, false, "isolated network" },
		{ "4", NULL, RULE_TCP, 22, false, false, "isolated network" },
		{ NULL, "1", RULE_TCP, 80, true, true, "published port" },
		{ NULL, "1", RULE_TCP, 80, false, false, "not published" },
		{ NULL, "1", RULE_TCP, 81, true, false, "default" },
		{ "192.168.1.1", "2", RULE_TCP, 80, true, true, "from site" },
		{ NULL, "2", RULE_TCP, 80, true, false, "default" },
		{ "10.88.0.99", "3", RULE_TCP, 80, false, false, "forged source address" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct filter_question q = { .protocol = rows[i].protocol, .port = rows[i].port,
					     .published = rows[i].published };
		struct filter_end *ends[] = { &q.from, &q.to };
		const char *words[] = { rows[i].from, rows[i].to };
		struct filter_verdict v;
		for (int k = 0; k < 2; k++) {
			bool outside = !words[k] || words[k][1];
			ends[k]->address = outside ? words[k] : NULL;
			ends[k]->workspace = outside ? NULL : workspaces[words[k][0] - '1'].id;
		}
		assert_ok(filter_judge(&intent, &q, &v, &e), &e);
		if (v.allowed != rows[i].allowed || strcmp(v.rule, rows[i].rule) != 0)
			fail_msg("row %zu: %s by \"%s\"", i, v.allowed ? "allowed" : "denied", v.rule);
	}
	struct filter_verdict v;
	assert_fails(filter_judge(&intent, &(struct filter_question){ .from = { "00000000000000ff", NULL } }, &v, &e), &e,
		     ERR_NOT_FOUND, "not known");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(golden),
		cmocka_unit_test(golden_site),
		cmocka_unit_test(no_text_of_a_user),
		cmocka_unit_test(judged),
	};
	return cmocka_run_group_tests_name("network-filter", tests, setup, teardown);
}
