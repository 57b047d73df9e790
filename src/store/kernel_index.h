/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_KERNEL_INDEX_H
#define STORE_KERNEL_INDEX_H

/*
 * What depmod(8) writes when a kernel package is installed: the files by which modprobe(8) finds a module by its name or by
 * what a device or the kernel calls it. Made at the import, since a kernel partition is never written again.
 */

#include <stddef.h>

#include "base/err.h"
#include "base/str.h"

struct kernel_index_module {
	const char *name;	 /* with '_' */
	const char *path;	 /* below /lib/modules/RELEASE: "kernel/drivers/net/tun.ko" */
	const char *depends;	 /* names, with commas between them */
	const struct str *infos; /* of .modinfo: "key=value" texts, each with a NUL behind it */
};

/* `order`: modules.builtin of the package, names of files; may be empty. Called once for each file; the first error ends it. */
typedef int kernel_index_fn(void *data, const char *name, const struct str *content, struct err *e);
int kernel_index_write(const struct kernel_index_module *modules, size_t count, const char *builtin, kernel_index_fn *fn,
		       void *data, struct err *e) must_check;

#endif
