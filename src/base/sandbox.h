/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_SANDBOX_H
#define BASE_SANDBOX_H

/*
 * A process that reads bytes from outside gives up everything else first. After sandbox_enter it has the descriptors that it holds,
 * memory (none of it executable and writable), a clock and random numbers - and what `rights` add. It cannot open, make or change
 * files, start programs or processes, signal or trace others, or speak with the network; whoever takes it over has only that.
 *
 * Two walls: seccomp decides which system calls exist, Landlock (where the kernel has it) which paths. There is no way back.
 */

#include "base/err.h"

enum sandbox_rights {
	SANDBOX_THREADS = 1 << 0, /* more threads in this process */
	SANDBOX_NETWORK = 1 << 1, /* sockets of IPv4 and IPv6, and looking up host names */
};

#define SANDBOX_MEMORY_BYTES_MOST (UINT64_C(4) << 30) /* of address space, but with threads or network */

/* `readable` (NULL-terminated, or NULL): files and folders that may still be opened for reading. Only while the process has one
 * thread. What the process needs to have read, loaded or started must be so before. */
int sandbox_enter(unsigned rights, const char *const *readable, struct err *e) must_check;

#endif
