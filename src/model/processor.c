/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. The levels are those of the x86-64 psABI (x86-64-v2, -v3, -v4: https://gitlab.com/x86-psABIs/x86-64-ABI): compilers
 * and the dynamic loader choose by them. QEMU has no model for a level, and its models of real processors have a maker's name
 * and family that others have not; so a level is qemu64, the oldest 64-bit processor, with the level's features one by one. To
 * them come the features that no program is chosen by but that cost time when they are missing (AES), or that a kernel protects
 * itself with, when all hosts have them.
 *
 * Of arm64 KVM makes only the host's own; emulated, neoverse-n1 (Armv8.2) is a model without pointer authentication, which
 * the emulator makes slowly.
 */
#include "model/processor.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"

#define VENDOR "vendor:"

/* One feature of x86-64: of a level (2-4), or one that is taken where all have it (0). */
struct feature {
	const char *name;  /* in /proc/cpuinfo */
	const char *word;  /* QEMU's */
	unsigned level;
	bool emulated;     /* TCG of QEMU 7.2 makes it */
	const char *vendor; /* only of this one; NULL: of all */
};

static const struct feature features[] = {
	{ "cx16", "cx16", 2, true },	   { "lahf_lm", "lahf-lm", 2, true }, { "popcnt", "popcnt", 2, true },	{ "pni", "pni",
	  2, true },
	{ "sse4_1", "sse4.1", 2, true },   { "sse4_2", "sse4.2", 2, true },   { "ssse3", "ssse3", 2, true },
	{ "avx", "avx", 3, true },	   { "avx2", "avx2", 3, true },	      { "bmi1", "bmi1", 3, true },	{ "bmi2",
	  "bmi2", 3, true },
	{ "f16c", "f16c", 3, true },	   { "fma", "fma", 3, true },	      { "abm", "abm", 3, true },	{ "movbe",
	  "movbe", 3, true },
	{ "xsave", "xsave", 3, true },
	{ "xsaveopt", "xsaveopt", 3, true },
	/* all that have the others have it, and under TCG Linux 6.1 hangs with xsave alone */
	{ "avx512f", "avx512f", 4 },	   { "avx512bw", "avx512bw", 4 },     { "avx512cd", "avx512cd", 4 },	{ "avx512dq",
	  "avx512dq", 4 },
	{ "avx512vl", "avx512vl", 4 },
	{ "aes", "aes", 0, true },	   { "pclmulqdq", "pclmulqdq", 0, true }, { "rdrand", "rdrand", 0, true }, { "rdtscp",
	  "rdtscp", 0, true },
	{ "erms", "erms", 0, true },	   { "fsgsbase", "fsgsbase", 0, true }, { "smep", "smep", 0, true },	{ "smap",
	  "smap", 0, true },
	{ "pdpe1gb", "pdpe1gb", 0, true }, { "adx", "adx", 0, true },	      { "arat", "arat", 0, true },
	{ "rdseed", "rdseed", 0 },	   { "sha_ni", "sha-ni", 0 },	      { "pcid", "pcid", 0 },		{ "invpcid",
	  "invpcid", 0 },
	{ "umip", "umip", 0 },	      { "md_clear", "md-clear", 0 },
	{ "ibrs", "spec-ctrl", 0, false, "GenuineIntel" }, { "stibp", "stibp", 0, false, "GenuineIntel" }, { "ssbd", "ssbd", 0,
	  false, "GenuineIntel" },
	{ "ibpb", "ibpb", 0, false, "AuthenticAMD" },	   { "stibp", "amd-stibp", 0, false, "AuthenticAMD" },
	{ "ssbd", "amd-ssbd", 0, false, "AuthenticAMD" },
};

#define LEAST 1
#define MOST  4
#define MOST_EMULATED 3

static const char *const level_names[] = { NULL, "x86-64-v1", "x86-64-v2", "x86-64-v3", "x86-64-v4" };

void processor_done(struct processor *p)
{
	free(p->model);
	texts_done(&p->features);
	*p = (struct processor){ 0 };
}

static bool has(const struct processor_host *h, const char *name)
{
	for (const char *const *f = h->features; f && *f; f++)
		if (str_eq(*f, name))
			return true;
	return false;
}

/* All hosts have it, and there is one. */
static bool common(const struct feature *f, const struct processor_host *hosts, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (!has(&hosts[i], f->name) || (f->vendor && !str_eq(f->vendor, hosts[i].vendor)))
			return false;
	return count > 0;
}

static unsigned level_of(const struct processor_host *hosts, size_t count, bool kvm)
{
	unsigned level = kvm ? MOST : MOST_EMULATED;

	for (size_t i = 0; i < ARRAY_SIZE(features); i++)
		if (features[i].level && !common(&features[i], hosts, count) && features[i].level <= level)
			level = features[i].level - 1;
	return level;
}

static unsigned level_named(const char *name)
{
	for (unsigned i = LEAST; name && i <= MOST; i++)
		if (str_eq(level_names[i], name))
			return i;
	return 0;
}

/* `exact`: the level and nothing else. */
static void make_level(unsigned level, bool exact, bool kvm, const struct processor_host *hosts, size_t count,
		       struct processor *p)
{
	struct str words = { 0 };

	str_printf(&words, "qemu64");
	for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
		const struct feature *f = &features[i];
		bool wanted = f->level ? f->level <= level : !exact && (kvm || f->emulated) && common(f, hosts, count);
		if (!wanted)
			continue;
		str_printf(&words, ",+%s", f->word);
		texts_add(&p->features, f->name);
	}
	p->model = str_take(&words);
	p->level = level_names[level];
}

static int choose_amd64(const char *wish, bool kvm, const struct processor_host *hosts, size_t count, struct processor *p)
{
	unsigned level = level_named(wish);

	if (level || str_eq(wish, PROCESSOR_BASELINE))
		make_level(level ? level : level_of(hosts, count, kvm), level != 0, kvm, hosts, count, p);
	else
		p->model = mem_strdup(wish);
	return 0;
}

static const char *baseline_of_others(const char *architecture, bool kvm)
{
	if (kvm)
		return PROCESSOR_HOST;
	return str_eq(architecture, "arm64") ? "neoverse-n1" : "rv64";
}

int processor_check_wish(const char *text, struct err *e)
{
	size_t length = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");

	if (length > 0 && length <= 64 && text[length] == '\0' && !strchr("._-", text[0]))
		return 0;
	(void)err_set(e, ERR_INVALID, "\"%s\" is no name of a processor", text);
	return err_hint(e, "baseline, host, max, x86-64-v2, x86-64-v3, or a model that QEMU knows");
}

int processor_choose(const char *architecture, const char *wish, bool kvm, const struct processor_host *hosts, size_t count,
		     struct processor *ret_processor, struct err *e)
{
	struct processor p = { 0 };

	if (!wish)
		wish = PROCESSOR_BASELINE;
	if (str_eq(wish, PROCESSOR_HOST) && !kvm) {
		(void)err_set(e, ERR_INVALID, "the emulator makes no processor 'host'");
		return err_hint(e, "cpu: max is all that it can make; engine kvm has the host's own");
	}
	if (str_eq(architecture, "amd64")) {
		(void)choose_amd64(wish, kvm, hosts, count, &p);
	} else {
		bool baseline = str_eq(wish, PROCESSOR_BASELINE);
		p.model = mem_strdup(baseline ? baseline_of_others(architecture, kvm) : wish);
	}
	if (str_eq(p.model, PROCESSOR_MAX) && str_eq(architecture, "riscv64")) { /* QEMU 7.2 has no max of it */
		free(p.model);
		p.model = mem_strdup("rv64");
	}
	*ret_processor = p;
	return 0;
}

void processor_bind(const struct processor *p, const struct processor_host *here, struct texts *ret_features)
{
	bool all = p->features.count == 0; /* nobody knows what the model takes of the host */

	if (here->vendor) {
		own_str char *vendor = mem_printf(VENDOR "%s", here->vendor);
		texts_add(ret_features, vendor);
	}
	for (size_t i = 0; i < p->features.count; i++)
		texts_add(ret_features, p->features.items[i]);
	for (const char *const *f = here->features; all && f && *f; f++)
		texts_add(ret_features, *f);
}
