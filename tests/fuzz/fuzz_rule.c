/* SPDX-License-Identifier: Apache-2.0 */
/* Rules: what was accepted has one canonical text, which is accepted and means the same. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "model/rule.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
	struct rule rule, again;
	struct err e;
	struct str text = { 0 }, text_again = { 0 };
	char *input = mem_strndup((const char *)bytes, length);

	if (rule_parse(input, &rule, &e) >= 0) {
		rule_text(&rule, &text);
		if (rule_parse(str_text(&text), &again, &e) < 0 || memcmp(&rule, &again, sizeof rule) != 0)
			abort();
		rule_text(&again, &text_again);
		if (!str_eq(str_text(&text), str_text(&text_again)))
			abort();
	}
	free(input);
	str_done(&text);
	str_done(&text_again);
	return 0;
}
