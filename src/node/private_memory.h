/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_PRIVATE_MEMORY_H
#define NODE_PRIVATE_MEMORY_H

/*
 * The memory of a machine that began from a file it leaves as it is (a template's, or that of the machine it is a clone of):
 * MEMORY_BASE in its memory folder, and the pages that it has written since, which are QEMU's alone. Here these come to a file,
 * from outside: proc_pid_pagemap(5) tells which they are, process_vm_readv(2) reads them. The guest may run meanwhile; what it
 * changes then is for a second call.
 */

#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"

/* Whether the machine of this memory folder is one. */
bool private_memory_is(int folder);
/* `to` is a copy of MEMORY_BASE, with or without pages of an earlier call: afterwards it is the memory. Nothing, for any other
 * machine. */
int private_memory_update(int folder, pid_t qemu, int to, struct err *e) must_check;

/* The same for memory that is a file, and its copy. */
int shared_memory_update(int from, int to, struct err *e) must_check;

#endif
