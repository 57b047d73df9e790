/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RUNNER_LOGFILE_H
#define RUNNER_LOGFILE_H

/* The log of a workspace's output: docs/formats/log.md. A log that cannot be written never stops the workspace. The file is
 * made by the first write. */

#include <stddef.h>
#include <stdint.h>

struct logfile {
	const char *path;
	int fd;
	uint64_t bytes, bytes_most;
	unsigned files_most;
};

void logfile_open(struct logfile *l, const char *path, uint64_t bytes_most, uint64_t files_most); /* "" for none */
void logfile_write(struct logfile *l, int stream, const void *bytes, size_t length);

#endif
