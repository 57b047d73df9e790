/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. A ring of pieces: this thread fills one, hands it to the hashing thread and to the caller, and fills the next while
 * the former is hashed. A piece is filled anew only when it was hashed; the caller has let go of it by then, as it asked for a
 * later one. Packed streams go through libarchive's filters ("raw" format); a stream that begins like a tar is read as it is.
 */
#include "store/tar_source.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"

#define PIECE_BYTES (1U << 18) /* all pieces together stay in a processor's cache */
#define PIECES 8

struct tar_source {
	int fd;
	struct archive *packed; /* NULL: read as it is */
	uint64_t bytes, most_bytes;
	bool ended;
	struct {
		char *bytes;
		size_t length;
	} pieces[PIECES];
	unsigned next;
	char *head; /* what was read to look at the stream */
	size_t head_length, head_used;
	/* The hashing thread: length 0 ends it. */
	pthread_t thread;
	sem_t filled, hashed;
	struct digest digest;
	bool joined;
};

static void *hash_pieces(void *data)
{
	struct tar_source *s = data;
	struct hash *h = hash_new();

	for (unsigned i = 0;; i = (i + 1) % PIECES) {
		while (sem_wait(&s->filled) < 0)
			;
		if (!s->pieces[i].length)
			break;
		hash_add(h, s->pieces[i].bytes, s->pieces[i].length);
		(void)sem_post(&s->hashed);
	}
	s->digest = hash_end(h);
	hash_free(h);
	return NULL;
}

/* --- reading --- */

/* From the head first, so that looking at it costs nothing. */
static ssize_t read_input(struct tar_source *s, void *bytes, size_t size)
{
	if (s->head_used < s->head_length) {
		size_t n = s->head_length - s->head_used < size ? s->head_length - s->head_used : size;
		memcpy(bytes, s->head + s->head_used, n);
		s->head_used += n;
		return (ssize_t)n;
	}
	ssize_t n;
	do
		n = read(s->fd, bytes, size);
	while (n < 0 && errno == EINTR);
	return n;
}

static int fill_head(struct tar_source *s, struct err *e)
{
	s->head = mem_alloc(PIECE_BYTES);
	while (s->head_length < 512) {
		ssize_t n = read(s->fd, s->head + s->head_length, PIECE_BYTES - s->head_length);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_errno(e, errno, "read the archive");
		if (n == 0)
			break;
		s->head_length += (size_t)n;
	}
	return s->head_length ? 0 : err_set(e, ERR_CORRUPT, "the archive is empty");
}

static bool looks_like_tar(const struct tar_source *s)
{
	return s->head_length >= 512 && memcmp(s->head + 257, "ustar", 5) == 0;
}

static ssize_t packed_read(struct archive *a, void *data, const void **ret_bytes)
{
	struct tar_source *s = data;
	static char buffer[PIECE_BYTES];

	ssize_t n = read_input(s, buffer, sizeof buffer);
	if (n < 0)
		archive_set_error(a, errno, "read: %s", strerrordesc_np(errno));
	*ret_bytes = buffer;
	return n;
}

static int archive_failed(struct archive *a, struct err *e)
{
	const char *why = archive_error_string(a);
	return err_set(e, ERR_CORRUPT, "the archive cannot be read: %s", why ? why : "unknown error");
}

static int open_packed(struct tar_source *s, struct err *e)
{
	struct archive_entry *entry;
	struct archive *a = archive_read_new();

	s->packed = a;
	(void)archive_read_support_filter_gzip(a);
	(void)archive_read_support_filter_xz(a);
	(void)archive_read_support_filter_zstd(a);
	(void)archive_read_support_filter_bzip2(a);
	(void)archive_read_support_format_raw(a);
	if (archive_read_open(a, s, NULL, packed_read, NULL) != ARCHIVE_OK || archive_read_next_header(a, &entry) != ARCHIVE_OK)
		return archive_failed(a, e);
	return 0;
}

static ssize_t read_plain(struct tar_source *s, char *bytes, size_t size, struct err *e)
{
	ssize_t n = s->packed ? archive_read_data(s->packed, bytes, size) : read_input(s, bytes, size);

	if (n < 0)
		return s->packed ? archive_failed(s->packed, e) : err_errno(e, errno, "read the archive");
	return n;
}

/* --- the caller's side --- */

int tar_source_new(int fd, uint64_t most_bytes, struct tar_source **ret_source, struct err *e)
{
	struct tar_source *s = mem_alloc(sizeof *s);

	*s = (struct tar_source){ .fd = fd, .most_bytes = most_bytes };
	(void)sem_init(&s->filled, 0, 0);
	(void)sem_init(&s->hashed, 0, PIECES - 1);
	for (int i = 0; i < PIECES; i++)
		s->pieces[i].bytes = mem_alloc(PIECE_BYTES);
	int failed = pthread_create(&s->thread, NULL, hash_pieces, s);
	int r = failed ? err_errno(e, failed, "start a thread") : fill_head(s, e);
	s->joined = failed;
	if (r == 0 && !looks_like_tar(s))
		r = open_packed(s, e);
	if (r < 0) {
		tar_source_free(s);
		return r;
	}
	*ret_source = s;
	return 0;
}

static void end_hashing(struct tar_source *s)
{
	if (s->joined)
		return;
	s->joined = true;
	s->pieces[s->next].length = 0;
	(void)sem_post(&s->filled);
	(void)pthread_join(s->thread, NULL);
}

void tar_source_free(struct tar_source *s)
{
	while (!s->joined && sem_wait(&s->hashed) < 0)
		;
	end_hashing(s);
	for (int i = 0; i < PIECES; i++)
		free(s->pieces[i].bytes);
	if (s->packed)
		(void)archive_read_free(s->packed);
	(void)sem_destroy(&s->filled);
	(void)sem_destroy(&s->hashed);
	free(s->head);
	free(s);
}

ssize_t tar_source_next(struct tar_source *s, const void **ret_bytes, struct err *e)
{
	if (s->ended)
		return 0;
	while (sem_wait(&s->hashed) < 0)
		;
	char *bytes = s->pieces[s->next].bytes;
	ssize_t n = read_plain(s, bytes, PIECE_BYTES, e);
	if (n <= 0) {
		s->ended = true;
		(void)sem_post(&s->hashed);
		return n;
	}
	s->bytes += (uint64_t)n;
	if (s->bytes > s->most_bytes) {
		s->ended = true;
		(void)sem_post(&s->hashed);
		return err_set(e, ERR_TOO_LARGE, "the archive has more than %llu bytes", (unsigned long long)s->most_bytes);
	}
	s->pieces[s->next].length = (size_t)n;
	s->next = (s->next + 1) % PIECES;
	(void)sem_post(&s->filled);
	*ret_bytes = bytes;
	return n;
}

int tar_source_finish(struct tar_source *s, struct digest *ret_digest, uint64_t *ret_bytes, struct err *e)
{
	const void *bytes;
	ssize_t n;

	while ((n = tar_source_next(s, &bytes, e)) > 0)
		;
	if (n < 0)
		return (int)n;
	while (sem_wait(&s->hashed) < 0)
		;
	end_hashing(s);
	*ret_digest = s->digest;
	*ret_bytes = s->bytes;
	return 0;
}
