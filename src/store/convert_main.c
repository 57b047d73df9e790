/* SPDX-License-Identifier: Apache-2.0 */
/*
 * carrel-convert [BYTES ENTRIES DEPTH]: one layer into one partition, within these limits (0: the default). Descriptor 0 is the
 * archive, 1 an empty file for the partition, 3 takes the answer:
 * one line of JSON, {"plain","partition","bytes","inodes"} or {"error":{"kind","message","hint"}} (import_layer.c reads it).
 * Before the first byte is read the process gives up everything but these descriptors, memory and threads.
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/err_json.h"
#include "base/fault.h"
#include "base/fs.h"
#include "base/own.h"
#include "base/sandbox.h"
#include "base/str.h"
#include "store/erofs_rewrite.h"
#include "store/erofs_writer.h"
#include "store/tar_reader.h"

#define ANSWER_FD 3
#define MEMORY_BYTES_MOST (UINT64_C(3) << 30)
#define WINDOW_BYTES (UINT64_C(4) << 20)

static json_t *success(const struct tar_summary *summary, const struct digest *partition, uint64_t size_bytes, uint64_t inodes)
{
	char plain[DIGEST_TEXT_SIZE], name[DIGEST_TEXT_SIZE];

	return json_pack("{s:s, s:s, s:I, s:I}", "plain", digest_text(&summary->plain, plain), "partition",
			 digest_text(partition, name), "bytes", (json_int_t)size_bytes, "inodes", (json_int_t)inodes);
}

/* Mapped, so that nothing is copied; nobody else shortens this file. */
static int hash_output(uint64_t size_bytes, struct digest *ret_digest, struct err *e)
{
	own_hash struct hash *h = hash_new();

	for (uint64_t at = 0; at < size_bytes; at += WINDOW_BYTES) {
		size_t n = size_bytes - at < WINDOW_BYTES ? (size_t)(size_bytes - at) : WINDOW_BYTES;
		void *bytes = mmap(NULL, n, PROT_READ, MAP_SHARED | MAP_POPULATE, STDOUT_FILENO, (off_t)at);
		if (bytes == MAP_FAILED)
			return err_errno(e, errno, "read the partition");
		hash_add(h, bytes, n);
		(void)munmap(bytes, n);
	}
	*ret_digest = hash_end(h);
	return 0;
}

/* A packed stream may ask for a window of any size; 8 million entries take 1 GiB. */
static int limit_memory(struct err *e)
{
#ifndef __SANITIZE_ADDRESS__
	const struct rlimit most = { MEMORY_BYTES_MOST, MEMORY_BYTES_MOST };
	if (setrlimit(RLIMIT_AS, &most) < 0)
		return err_errno(e, errno, "limit memory");
#endif
	(void)e;
	return 0;
}

struct limits {
	struct tar_limits tar;
	struct erofs_limits erofs;
};

static int take_limit(const char *text, uint64_t most, uint64_t *ret_limit, struct err *e)
{
	uint64_t limit = 0;

	if (str_to_u64(text, UINT64_MAX, &limit) < 0)
		return err_set(e, ERR_INVALID, "'%.40s' is no limit", text);
	*ret_limit = limit && limit < most ? limit : most;
	return 0;
}

static int read_limits(int argc, char **argv, struct limits *ret_limits, struct err *e)
{
	struct limits l = { tar_default_limits, erofs_default_limits };
	uint64_t depth = l.erofs.depth;

	int r = argc == 1 || argc == 4 ? 0 : err_set(e, ERR_INVALID, "usage: carrel-convert [BYTES ENTRIES DEPTH]");
	if (r == 0 && argc == 4)
		r = take_limit(argv[1], l.tar.plain_bytes, &l.tar.plain_bytes, e);
	if (r == 0 && argc == 4)
		r = take_limit(argv[2], l.erofs.entries, &l.erofs.entries, e);
	if (r == 0 && argc == 4)
		r = take_limit(argv[3], depth, &depth, e);
	l.erofs.depth = (unsigned)depth;
	*ret_limits = l;
	return r;
}

static int convert(const struct limits *limits, const int pipe[2], json_t **ret_answer, struct err *e)
{
	struct tar_summary summary;
	struct digest partition;
	uint64_t size_bytes, inodes;
	own_erofs_writer struct erofs_writer *w = erofs_writer_new(STDOUT_FILENO, 0, &limits->erofs);

	int r = tar_read(STDIN_FILENO, &limits->tar, w, &summary, e);
	if (r == 0)
		r = erofs_finish(w, &size_bytes, &inodes, e);
	if (r == 0 && erofs_writer_replaced(w))
		r = erofs_rewrite(STDOUT_FILENO, pipe, &size_bytes, &inodes, e);
	if (r == 0)
		r = hash_output(size_bytes, &partition, e);
	if (r == 0)
		*ret_answer = success(&summary, &partition, size_bytes, inodes);
	return r;
}

int main(int argc, char **argv)
{
	struct limits limits;
	struct err e;
	json_t *answer = NULL;
	int pair[2];

	(void)fault_point("convert-start");
	(void)signal(SIGPIPE, SIG_IGN);
	int r = pipe2(pair, O_CLOEXEC) < 0 ? err_errno(&e, errno, "make a pipe") : limit_memory(&e);
	if (r == 0)
		r = read_limits(argc, argv, &limits, &e);
	if (r == 0)
		r = sandbox_enter(SANDBOX_THREADS, NULL, &e);
	if (r == 0)
		r = convert(&limits, pair, &answer, &e);
	if (r < 0)
		answer = json_pack("{s:o}", "error", err_to_json(&e));
	own_str char *text = answer ? json_dumps(answer, JSON_COMPACT) : NULL;
	if (!text || fs_write_all(ANSWER_FD, text, strlen(text), NULL) < 0)
		return EXIT_FAILURE;
	json_decref(answer);
	return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
