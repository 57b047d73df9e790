/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MODEL_INTERFACES_OF_KERNEL_H
#define MODEL_INTERFACES_OF_KERNEL_H

/* Interfaces that some kernels put into each network namespace by themselves: nobody has made them, and they are there again in
 * the next. */

#include <stdbool.h>
#include <stddef.h>

#include "base/str.h"

static inline bool interface_is_kernels(const char *name)
{
	static const char *const kernels[] = { "lo",      "sit0",     "tunl0",    "gre0",    "gretap0", "erspan0",
					       "ip_vti0", "ip6_vti0", "ip6tnl0", "ip6gre0", "teql0" };

	for (size_t i = 0; i < sizeof kernels / sizeof *kernels; i++)
		if (str_eq(kernels[i], name))
			return true;
	return false;
}

#endif
