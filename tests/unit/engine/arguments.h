/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UNIT_ENGINE_ARGUMENTS_H
#define UNIT_ENGINE_ARGUMENTS_H

#include "../golden.h"
#include "engine/qemu/arguments.h"

/* QEMU's, one option and its value a line. Frees them. */
static inline void compare_arguments(char **argv, const char *name)
{
	own_str char *file = mem_printf("engine/golden/%s.arguments", name);
	own_strbuf struct str text = { 0 };

	for (size_t i = 0; argv[i]; i++)
		str_printf(&text, "%s%s", i == 0 ? "" : *argv[i] == '-' ? "\n" : " ", argv[i]);
	str_putc(&text, '\n');
	machine_arguments_free(argv);
	assert_golden(str_text(&text), file);
}

#endif
