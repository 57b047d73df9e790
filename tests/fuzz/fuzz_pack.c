/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A packed memory of anybody's. What is read writes nothing behind its length; and what a packing goes on with, whoever left it
 * there, is in the end what was to be packed. The checksums stop most inputs at once, so they are also tried with those that
 * fit.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "store/memory_pack.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define SMALL (UINT64_C(8) << 20)

static int file_of(const uint8_t *data, size_t size)
{
	int fd = memfd_create("pack", MFD_CLOEXEC);

	if (fd < 0 || (size && write(fd, data, size) != (ssize_t)size))
		abort();
	return fd;
}

static void read_file(int fd)
{
	struct memory_pack *p = NULL;
	int to = memfd_create("memory", MFD_CLOEXEC);

	if (memory_pack_open(fd, &p, NULL) == 0) {
		uint64_t length = memory_pack_start(p)->length;
		if (length <= SMALL && memory_pack_read(p, to, 1, NULL) == 0 && lseek(to, 0, SEEK_END) != (off_t)length)
			abort();
		(void)!memory_pack_read(p, -1, 1, NULL);
		memory_pack_free(p);
	}
	(void)close(to);
}

#define CHUNKS_MOST 64

/* Heads that can be get the right digests; returns where the first other bytes are. */
static size_t right_chunks(uint8_t *bytes, size_t end, uint64_t length, struct memory_pack_chunk *chunks, size_t *ret_count)
{
	struct hash *h = hash_new();
	size_t at = MEMORY_PACK_START_BYTES, count = 0;

	while (count < CHUNKS_MOST && at + MEMORY_PACK_HEAD_BYTES < end) {
		struct memory_pack_chunk *c = &chunks[count];
		if (memory_pack_head_decode(bytes + at, length, c, NULL) < 0 || c->stored > end - at - MEMORY_PACK_HEAD_BYTES)
			break;
		memory_pack_chunk_digest(bytes + at, bytes + at + MEMORY_PACK_HEAD_BYTES, c->stored, h, &c->digest);
		memory_pack_head_encode(c, bytes + at);
		at += MEMORY_PACK_HEAD_BYTES + c->stored;
		count++;
	}
	hash_free(h);
	*ret_count = count;
	return at;
}

/* As if whoever made it had computed the checksums: of the start, of each chunk, and of the table. */
static void make_right(uint8_t *bytes, size_t size)
{
	struct memory_pack_chunk chunks[CHUNKS_MOST];
	struct memory_pack_start s;
	size_t end = size - MEMORY_PACK_FOOTER_BYTES, count = 0;

	if (size < MEMORY_PACK_START_BYTES + MEMORY_PACK_FOOTER_BYTES)
		return;
	struct digest d = hash_bytes(bytes, 32);
	memcpy(bytes + 32, d.bytes, sizeof d.bytes);
	if (memory_pack_start_decode(bytes, &s, NULL) < 0)
		return;
	size_t table = right_chunks(bytes, end, s.length, chunks, &count);
	for (size_t i = 0; i < count && table + (i + 1) * MEMORY_PACK_ENTRY_BYTES <= end; i++)
		memory_pack_entry_encode(&chunks[i], bytes + table + i * MEMORY_PACK_ENTRY_BYTES);
	struct hash *h = hash_new();
	hash_add(h, bytes, MEMORY_PACK_START_BYTES);
	hash_add(h, bytes + table, end - table + MEMORY_PACK_FOOTER_HASHED);
	d = hash_end(h);
	hash_free(h);
	memcpy(bytes + end + MEMORY_PACK_FOOTER_HASHED, d.bytes, sizeof d.bytes);
}

static void go_on(const uint8_t *data, size_t size)
{
	static uint8_t memory[3 << 20], found[3 << 20];
	const struct memory_pack_how how = { .taken_ms = 1, .threads = 1 };
	struct memory_pack_made made;
	struct memory_pack *p = NULL;
	int from, to = file_of(data, size), out = memfd_create("memory", MFD_CLOEXEC);

	memset(memory + 5000, 'x', 100);
	memset(memory + (2 << 20), 'y', 9000);
	from = file_of(memory, sizeof memory);
	if (memory_pack_write(from, to, &how, &made, NULL) < 0 || memory_pack_open(to, &p, NULL) < 0 ||
	    memory_pack_read(p, out, 1, NULL) < 0)
		abort();
	if (made.kept == 0 &&
	    (pread(out, found, sizeof found, 0) != (ssize_t)sizeof found || memcmp(memory, found, sizeof found) != 0))
		abort();
	memory_pack_free(p);
	(void)close(from);
	(void)close(to);
	(void)close(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int fd = file_of(data, size);

	read_file(fd);
	(void)close(fd);
	uint8_t *copy = malloc(size + 1);
	if (!copy)
		abort();
	if (size)
		memcpy(copy, data, size);
	make_right(copy, size);
	fd = file_of(copy, size);
	read_file(fd);
	(void)close(fd);
	free(copy);
	if (size % 8 == 0) /* the dear part */
		go_on(data, size);
	return 0;
}
