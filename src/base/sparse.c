/* SPDX-License-Identifier: Apache-2.0 */
#include "base/sparse.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/own.h"

#define THREADS_MOST 16

struct chunk {
	bool data;
	struct digest digest;
};

struct job {
	int fd;
	uint64_t length;
	size_t count;
	struct chunk *chunks;
	atomic_size_t next;
	atomic_int number; /* errno of the first that failed */
};

static bool is_zero(const uint8_t *bytes, size_t length)
{
	return length == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, length - 1) == 0);
}

static int hash_chunk(struct job *j, size_t at, uint8_t *buffer)
{
	uint64_t offset = (uint64_t)at * SPARSE_CHUNK;
	size_t length = j->length - offset < SPARSE_CHUNK ? (size_t)(j->length - offset) : SPARSE_CHUNK;

	for (size_t done = 0; done < length;) {
		ssize_t n = pread(j->fd, buffer + done, length - done, (off_t)(offset + done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? errno : EIO; /* it became shorter */
		done += (size_t)n;
	}
	j->chunks[at].data = !is_zero(buffer, length);
	if (j->chunks[at].data)
		j->chunks[at].digest = hash_bytes(buffer, length);
	return 0;
}

/* What lies in a hole is not read. */
static bool in_hole(const struct job *j, size_t at)
{
	off_t offset = (off_t)at * SPARSE_CHUNK, data = lseek(j->fd, offset, SEEK_DATA);

	return data < 0 ? errno == ENXIO : data >= offset + SPARSE_CHUNK;
}

static void *work(void *data)
{
	struct job *j = data;
	own_str uint8_t *buffer = mem_alloc(SPARSE_CHUNK);

	for (size_t at; !atomic_load(&j->number) && (at = atomic_fetch_add(&j->next, 1)) < j->count;) {
		int number = in_hole(j, at) ? 0 : hash_chunk(j, at, buffer);
		if (number)
			atomic_store(&j->number, number);
	}
	return NULL;
}

static void put_number(struct hash *h, uint64_t n)
{
	uint8_t bytes[8];

	for (unsigned i = 0; i < 8; i++)
		bytes[i] = (uint8_t)(n >> (8 * i));
	hash_add(h, bytes, sizeof bytes);
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
	own_hash struct hash *h = hash_new();
	struct job j = { .fd = fd };
	struct stat st;

	if (fstat(fd, &st) < 0)
		return err_errno(e, errno, "look at a file");
	j.length = (uint64_t)st.st_size;
	j.count = (size_t)((j.length + SPARSE_CHUNK - 1) / SPARSE_CHUNK);
	own_str struct chunk *chunks = mem_alloc_array(j.count + 1, sizeof *chunks);
	j.chunks = chunks;
	run(&j);
	if (atomic_load(&j.number))
		return err_errno(e, atomic_load(&j.number), "read a file");
	for (size_t i = 0; i < j.count; i++)
		if (chunks[i].data) {
			put_number(h, i);
			hash_add(h, chunks[i].digest.bytes, sizeof chunks[i].digest.bytes);
		}
	put_number(h, j.length);
	*ret_digest = hash_end(h);
	return 0;
}
