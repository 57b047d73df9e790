/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_SANDBOX_H
#define BASE_SANDBOX_H

/*
 * A process that reads bytes from outside gives up everything else first. After sandbox_enter it has the descriptors that it
 * holds, memory (none of it executable and writable), a clock and random numbers - and what `rights` add. It cannot open, make
 * or change files, start programs or processes, signal or trace others, or speak with the network; whoever takes it over has
 * only that.
 *
 * Two walls: seccomp decides which system calls exist, Landlock (where the kernel has it) which paths. There is no way back.
 */

#include <stdint.h>

#include "base/err.h"

enum sandbox_rights {
	SANDBOX_THREADS = 1 << 0, /* more threads in this process */
	SANDBOX_NETWORK = 1 << 1, /* sockets of IPv4 and IPv6, and looking up host names */
	SANDBOX_ACCEPT = 1 << 2,  /* connections to sockets that it holds */
};

/* Of address space, but with network: what was inherited, if that is less. With threads some more for each processor: a stack,
 * malloc's arena (128 MiB while it is made), buffers. */
#define SANDBOX_MEMORY_BYTES_MOST (UINT64_C(4) << 30)
#define SANDBOX_THREAD_BYTES_MOST (UINT64_C(256) << 20)

/* `readable` (NULL-terminated, or NULL): files and folders that may still be opened for reading. Only while the process has one
 * thread. What the process needs to have read, loaded or started must be so before. */
int sandbox_enter(unsigned rights, const char *const *readable, struct err *e) must_check;

/* The same around a program of others, which reads or writes one file and has to open it itself. */
struct sandbox_program {
	const char *const *argv;     /* argv[0] absolute; the file is called /proc/self/fd/N */
	const char *const *readable; /* what may be read and executed: the program and its libraries; NULL-terminated */
	int file;                    /* N; its owner is made to be nobody, for that is who opens it */
	bool writes;                 /* may change the file, within its length */
	uint64_t memory_bytes, cpu_seconds;
};
/* Becomes the program; returns only when that failed. */
int sandbox_exec(const struct sandbox_program *p, struct err *e) must_check;

#endif
