/* SPDX-License-Identifier: Apache-2.0 */
/* What a pool has in common is what its machines get. */
#include <string.h>

#include "../test.h"
#include "model/processor.h"

#define V2 "cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"
#define V3 V2, "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave", "xsaveopt"
#define V4 V3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"

static const char *const old[] = { "sse2", NULL }, *const nehalem[] = { V2, NULL },
			 *const haswell[] = { V3, "aes", "pcid", "ibrs", NULL },
			 *const skylake[] = { V4, "aes", "ibrs", "pcid", NULL }, *const epyc[] = { V3, "aes", "ibpb", NULL },
			 *const half[] = { V2, "avx", "avx2", NULL };
static struct err e;
static struct processor p;

static struct processor_host host(const char *const *features) { return (struct processor_host){ "GenuineIntel", features }; }

static const char *level(bool kvm, const struct processor_host *hosts, size_t count)
{
	processor_done(&p);
	assert_ok(processor_choose("amd64", NULL, kvm, hosts, count, &p, &e), &e);
	return p.level;
}

static bool lists(const char *feature)
{
	for (size_t i = 0; i < p.features.count; i++)
		if (strcmp(p.features.items[i], feature) == 0)
			return true;
	return false;
}

static void the_least_of_all(void **state)
{
	(void)state;
	const struct processor_host o = host(old), n = host(nehalem), h = host(haswell), s = host(skylake), part = host(half);
	assert_string_equal(level(true, &s, 1), "x86-64-v4");
	assert_string_equal(level(false, &s, 1), "x86-64-v3");
	assert_string_equal(level(true, (const struct processor_host[]){ s, h }, 2), "x86-64-v3");
	assert_true(lists("aes") && lists("pcid") && lists("ibrs") && strstr(p.model, ",+spec-ctrl"));
	assert_string_equal(level(true, (const struct processor_host[]){ s, h, n }, 3), "x86-64-v2");
	assert_false(lists("aes") || strstr(p.model, "aes"));
	assert_string_equal(level(true, (const struct processor_host[]){ h, part }, 2), "x86-64-v2");
	assert_false(lists("avx2"));
	assert_string_equal(level(true, (const struct processor_host[]){ h, o }, 2), "x86-64-v1");
	assert_string_equal(p.model, "qemu64");
	assert_string_equal(level(false, NULL, 0), "x86-64-v1");
}

static void words_and_their_order(void **state)
{
	(void)state;
	const struct processor_host h = host(haswell), amd = { "AuthenticAMD", epyc };
	assert_string_equal(level(false, &h, 1), "x86-64-v3");
	assert_string_equal(p.model, "qemu64,+cx16,+lahf-lm,+popcnt,+pni,+sse4.1,+sse4.2,+ssse3,"
				     "+avx,+avx2,+bmi1,+bmi2,+f16c,+fma,+abm,+movbe,+xsave,+xsaveopt,+aes");
	assert_string_equal(level(true, &amd, 1), "x86-64-v3");
	assert_non_null(strstr(p.model, ",+ibpb"));
	assert_null(strstr(p.model, "spec-ctrl"));
	assert_string_equal(level(true, (const struct processor_host[]){ h, amd }, 2), "x86-64-v3");
	assert_null(strstr(p.model, "ibpb"));
}

static void what_is_wished(void **state)
{
	(void)state;
	const struct processor_host h = host(haswell);
	processor_done(&p);
	assert_ok(processor_choose("amd64", "x86-64-v2", false, &h, 1, &p, &e), &e);
	assert_string_equal(p.model, "qemu64,+cx16,+lahf-lm,+popcnt,+pni,+sse4.1,+sse4.2,+ssse3");
	processor_done(&p);
	assert_ok(processor_choose("amd64", "max", false, &h, 1, &p, &e), &e);
	assert_string_equal(p.model, "max");
	processor_done(&p);
	assert_ok(processor_choose("amd64", "Skylake-Server-v4", true, &h, 1, &p, &e), &e);
	assert_string_equal(p.model, "Skylake-Server-v4");
	assert_null(p.level);
	processor_done(&p);
	assert_ok(processor_choose("amd64", "host", true, &h, 1, &p, &e), &e);
	assert_string_equal(p.model, "host");
	processor_done(&p);
	assert_fails(processor_choose("amd64", "host", false, &h, 1, &p, &e), &e, ERR_INVALID, "host");
	static const struct { const char *architecture, *wish; bool kvm; const char *model; } others[] = {
		{ "arm64", NULL, false, "neoverse-n1" }, { "arm64", NULL, true, "host" }, { "arm64", "max", false, "max" },
		{ "riscv64", NULL, false, "rv64" }, { "riscv64", "max", false, "rv64" },
	};
	for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
		assert_ok(processor_choose(others[i].architecture, others[i].wish, others[i].kvm, NULL, 0, &p, &e), &e);
		assert_string_equal(p.model, others[i].model);
		processor_done(&p);
	}
}

/* A name goes into QEMU's words: nothing of it may be a word of its own. */
static void no_words_by_a_name(void **state)
{
	(void)state;
	static const char *const bad[] = { "", "max,+x", "a b", "host\n", "-max", "x=y", "../x",
					    "0123456789012345678901234567890123456789012345678901234567890123456789" };
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		assert_true(processor_check_wish(bad[i], &e) < 0);
	assert_ok(processor_check_wish("Skylake-Server-v4", &e), &e);
	assert_ok(processor_check_wish("x86-64-v2", &e), &e);
}

static void what_memory_is_bound_to(void **state)
{
	(void)state;
	const struct processor_host h = host(haswell);
	struct texts bound = { 0 };
	processor_done(&p);
	assert_ok(processor_choose("amd64", "x86-64-v2", true, &h, 1, &p, &e), &e);
	processor_bind(&p, &h, &bound);
	assert_int_equal(bound.count, 8);
	assert_string_equal(bound.items[0], "vendor:GenuineIntel");
	texts_done(&bound);
	processor_done(&p);
	assert_ok(processor_choose("amd64", "host", true, &h, 1, &p, &e), &e);
	processor_bind(&p, &h, &bound);
	assert_true(bound.count > 20); /* all that the host has */
	texts_done(&bound);
	processor_done(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_least_of_all),        cmocka_unit_test(words_and_their_order),
		cmocka_unit_test(what_is_wished),          cmocka_unit_test(no_words_by_a_name),
		cmocka_unit_test(what_memory_is_bound_to),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
