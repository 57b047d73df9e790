/* SPDX-License-Identifier: Apache-2.0 */
#include "../test.h"

#include <string.h>

#include "model/rule.h"

static void canonical_text(void **state)
{
	static const struct { const char *written, *canonical; } rows[] = {
		{ "wan", "wan" },
		{ "  any   tcp/22  ", "any tcp/22" },
		{ "group:lab-a tcp/22,5432 udp/53 icmp", "group:lab-a tcp/22,5432 udp/53 icmp" },
		{ "workspace:db tcp/90-95,80,91-100,101", "workspace:db tcp/80,90-101" },
		{ "network:default udp", "network:default udp" },
		{ "10.1.2.3/8", "10.0.0.0/8" },
		{ "10.1.2.3/32", "10.1.2.3" },
		{ "2001:DB8:0::1/33 icmp", "2001:db8::/33 icmp" },
		{ "::/0", "::/0" },
		{ "none", "none" },
		{ "any tcp/1-65535", "any tcp/1-65535" },
	};
	struct err e;

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct rule r;
		struct str text = { 0 };
		assert_ok(rule_parse(rows[i].written, &r, &e), &e);
		rule_text(&r, &text);
		assert_string_equal(str_text(&text), rows[i].canonical);
		str_done(&text);
	}
}

static void refused(void **state)
{
	static const struct { const char *written, *says; } rows[] = {
		{ "", "PEER [SERVICE...]" },
		{ "lan", "expected wan, site" },
		{ "group:", "group:" },
		{ "group:Lab", "group:Lab" },
		{ "workspace:a;drop", "workspace:a;drop" },
		{ "none tcp/22", "stands alone" },
		{ "any sctp/22", "expected tcp/PORTS" },
		{ "any tcp/0", "1 to 65535" },
		{ "any tcp/65536", "1 to 65535" },
		{ "any tcp/22,", "1 to 65535" },
		{ "any tcp/", "1 to 65535" },
		{ "any tcp/30-20", "upwards" },
		{ "any icmp/8", "no ports" },
		{ "10.0.0.0/33", "0 to 32" },
		{ "10.0.0.0/", "0 to 32" },
		{ "10.0.0.0/08", "0 to 32" },
		{ "::1/129", "0 to 128" },
		{ "any tcp/1,3,5,7,9,11,13,15,17,19,21,23,25,27,29,31,33", "more than 16" },
		{ "any tcp udp tcp udp tcp udp tcp udp tcp", "at most 8" },
		{ "any\ttcp", "expected" },
	};
	char longer[RULE_LONGEST + 2];
	struct err e;

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
		assert_fails(rule_check(rows[i].written, &e), &e, ERR_INVALID, rows[i].says);
	assert_true(rule_check("wam", &e) < 0);
	assert_string_equal(e.hint, "did you mean 'wan'?");
	memset(longer, ' ', sizeof longer);
	longer[sizeof longer - 1] = '\0';
	assert_fails(rule_check(longer, &e), &e, ERR_INVALID, "characters");
}

static void serves(void **state)
{
	struct rule r;
	struct err e;

	(void)state;
	assert_ok(rule_parse("any", &r, &e), &e);
	assert_true(rule_serves(&r, RULE_ICMP, 0));
	assert_ok(rule_parse("any tcp/22,80-90 udp", &r, &e), &e);
	assert_true(rule_serves(&r, RULE_TCP, 85));
	assert_true(rule_serves(&r, RULE_UDP, 1));
	assert_false(rule_serves(&r, RULE_TCP, 91));
	assert_false(rule_serves(&r, RULE_TCP, 0));
	assert_false(rule_serves(&r, RULE_ICMP, 0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(canonical_text),
		cmocka_unit_test(refused),
		cmocka_unit_test(serves),
	};
	return cmocka_run_group_tests_name("rule", tests, NULL, NULL);
}
