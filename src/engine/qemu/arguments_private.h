/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_QEMU_ARGUMENTS_PRIVATE_H
#define ENGINE_QEMU_ARGUMENTS_PRIVATE_H

/* Between the files that write a machine's command line. */

#include "engine/qemu/arguments.h"

/* a part of MACHINE_ALLOWANCE; what no longer fits is translated again. QEMU itself would take a gigabyte */
#define TRANSLATED_MIB 96

struct machine_words {
	char **items;
	size_t count, room;
};

void machine_word(struct machine_words *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Control lines, display, disks and networks, each at its place on the bus. */
void machine_add_devices(struct machine_words *w, const struct qemu_machine *m);

#endif
