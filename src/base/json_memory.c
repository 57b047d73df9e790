/* SPDX-License-Identifier: Apache-2.0 */
#include "base/json_memory.h"

#include <jansson.h>
#include <stdlib.h>

#include "base/mem.h"

static void *get(size_t size_bytes)
{
	void *memory = malloc(size_bytes);

	if (!memory)
		memory = mem_alloc(size_bytes); /* which says so, and aborts */
	return memory;
}

void json_memory_init(void) { json_set_alloc_funcs(get, free); }
