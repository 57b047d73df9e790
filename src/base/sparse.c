/* SPDX-License-Identifier: Apache-2.0 */
#include "base/sparse.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"

#define THREADS_MOST 16

struct job {
	int fd;
	uint64_t length;
	size_t count;
	struct sparse_chunk *chunks;
	atomic_size_t next;
	atomic_bool failed;
	struct err why; /* of the first that failed */
};

bool sparse_is_zero(const void *bytes, size_t length)
{
	const uint8_t *first = bytes;

	return length == 0 || (first[0] == 0 && memcmp(first, first + 1, length - 1) == 0);
}

bool sparse_in_hole(int fd, uint64_t at, size_t length)
{
	off_t data = lseek(fd, (off_t)at, SEEK_DATA);

	return data < 0 ? errno == ENXIO : (uint64_t)data >= at + length;
}

struct sparse_chunk sparse_chunk_of(const void *bytes, size_t length)
{
	struct sparse_chunk c = { .data = !sparse_is_zero(bytes, length) };

	if (c.data)
		c.digest = hash_bytes(bytes, length);
	return c;
}

static int hash_chunk(struct job *j, size_t at, uint8_t *buffer, struct err *e)
{
	uint64_t offset = (uint64_t)at * SPARSE_CHUNK;
	size_t length = j->length - offset < SPARSE_CHUNK ? (size_t)(j->length - offset) : SPARSE_CHUNK;

	if (sparse_in_hole(j->fd, offset, SPARSE_CHUNK))
		return 0;
	int r = fs_pread_all(j->fd, buffer, length, offset, "a file", e);
	if (r == 0)
		j->chunks[at] = sparse_chunk_of(buffer, length);
	return r;
}

static void *work(void *data)
{
	struct job *j = data;
	own_str uint8_t *buffer = mem_alloc(SPARSE_CHUNK);
	struct err why;

	for (size_t at; !atomic_load(&j->failed) && (at = atomic_fetch_add(&j->next, 1)) < j->count;)
		if (hash_chunk(j, at, buffer, &why) < 0 && !atomic_exchange(&j->failed, true))
			j->why = why;
	return NULL;
}

static void put_number(struct hash *h, uint64_t n)
{
	uint8_t bytes[8];

	for (unsigned i = 0; i < 8; i++)
		bytes[i] = (uint8_t)(n >> (8 * i));
	hash_add(h, bytes, sizeof bytes);
}

struct digest sparse_digest(const struct sparse_chunk *chunks, size_t count, uint64_t length)
{
	own_hash struct hash *h = hash_new();

	for (size_t i = 0; i < count; i++)
		if (chunks[i].data) {
			put_number(h, i);
			hash_add(h, chunks[i].digest.bytes, sizeof chunks[i].digest.bytes);
		}
	put_number(h, length);
	return hash_end(h);
}

static void run(struct job *j)
{
	pthread_t threads[THREADS_MOST];
	long wanted = sysconf(_SC_NPROCESSORS_ONLN) - 1;
	int count = 0;

	while (count < wanted && count < THREADS_MOST && pthread_create(&threads[count], NULL, work, j) == 0)
		count++;
	(void)work(j);
	while (count-- > 0)
		(void)pthread_join(threads[count], NULL);
}

int sparse_hash_fd(int fd, struct digest *ret_digest, struct err *e)
{
	struct job j = { .fd = fd };
	struct stat st;

	if (fstat(fd, &st) < 0)
		return err_errno(e, errno, "look at a file");
	j.length = (uint64_t)st.st_size;
	j.count = (size_t)((j.length + SPARSE_CHUNK - 1) / SPARSE_CHUNK);
	own_str struct sparse_chunk *chunks = mem_alloc_array(j.count + 1, sizeof *chunks);
	j.chunks = chunks;
	run(&j);
	if (!atomic_load(&j.failed)) {
		*ret_digest = sparse_digest(chunks, j.count, j.length);
		return 0;
	}
	if (e)
		*e = j.why;
	return -j.why.number;
}
