/* SPDX-License-Identifier: Apache-2.0 */
#include "runner/logfile.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/own.h"
#include "model/runner_protocol.h"

static void open_current(struct logfile *l)
{
	struct stat st;

	l->fd = open(l->path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	l->bytes = l->fd >= 0 && fstat(l->fd, &st) == 0 ? (uint64_t)st.st_size : 0;
}

void logfile_open(struct logfile *l, const char *path, uint64_t bytes_most, uint64_t files_most)
{
	*l = (struct logfile){ .path = path, .fd = -1, .bytes_most = bytes_most, .files_most = (unsigned)files_most };
}

static void close_file(struct logfile *l)
{
	if (l->fd >= 0)
		(void)close(l->fd);
	l->fd = -1;
}

static char *numbered(const struct logfile *l, unsigned n) { return n ? mem_printf("%s.%u", l->path, n) : mem_strdup(l->path); }

static void rotate(struct logfile *l)
{
	close_file(l);
	for (unsigned n = l->files_most > 1 ? l->files_most - 1 : 1; n > 0; n--) {
		own_str char *from = numbered(l, n - 1), *to = numbered(l, n);
		(void)rename(from, to);
	}
	open_current(l);
}

void logfile_write(struct logfile *l, int stream, const void *bytes, size_t length)
{
	struct timespec now;
	struct runner_log_record head = { .mark = RUNNER_LOG_MARK, .length = (uint32_t)length, .stream = (uint32_t)stream };

	if (l->fd < 0 && *l->path) /* who says nothing has no file */
		open_current(l);
	if (l->fd < 0)
		return;
	if (l->bytes && l->bytes + sizeof head + length > l->bytes_most)
		rotate(l);
	(void)clock_gettime(CLOCK_REALTIME, &now);
	head.time_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
	head.check = head.mark ^ head.length ^ head.stream ^ (uint32_t)head.time_ns ^ (uint32_t)(head.time_ns >> 32);
	struct iovec parts[2] = { { &head, sizeof head }, { (void *)(uintptr_t)bytes, length } };
	ssize_t n = writev(l->fd, parts, 2);
	l->bytes += n > 0 ? (uint64_t)n : 0;
}
