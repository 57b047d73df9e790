/* SPDX-License-Identifier: Apache-2.0 */
/* A bundle of anybody's, as a file that is whole, as one that is not, and as chunks on their way into a volume. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "store/bundle.h"
#include "store/bundle_reader.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define VOLUME_BYTES ((UINT64_C(1) << 20) + 8192)

struct source {
	const uint8_t *bytes;
	size_t left;
};

static int receive(void *data, void *bytes, size_t length, struct err *e)
{
	struct source *s = data;

	if (s->left < length)
		return err_set(e, ERR_CORRUPT, "cut off");
	memcpy(bytes, s->bytes, length);
	s->bytes += length;
	s->left -= length;
	return 0;
}

static int answer(void *data, const void *bytes, size_t length, struct err *e)
{
	(void)data;
	(void)bytes;
	(void)length;
	(void)e;
	return 0;
}

static int file_of(const uint8_t *data, size_t size)
{
	int fd = memfd_create("bundle", MFD_CLOEXEC);

	if (fd < 0 || (size && write(fd, data, size) != (ssize_t)size))
		abort();
	return fd;
}

static void read_file(const uint8_t *data, size_t size, bool whole)
{
	static uint8_t plain[BUNDLE_CHUNK_BYTES];
	struct bundle_reader *r = NULL;
	uint64_t length = 0;
	int fd = file_of(data, size);

	if (bundle_reader_open(fd, whole, &r, NULL) == 0) {
		if (!whole && bundle_reader_recover(r, &length, NULL) == 0 && length > size)
			abort();
		for (size_t i = 0; i < bundle_reader_chunks(r); i++)
			(void)!bundle_reader_plain(r, i, plain, NULL);
		bundle_reader_free(r);
	}
	(void)close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct source source = { data, size };
	const struct bundle_unpacking how = { receive, answer, &source };
	const struct bundle_file files[] = { { memfd_create("volume", MFD_CLOEXEC), VOLUME_BYTES }, { -1, 0 } };

	read_file(data, size, true);
	read_file(data, size, false);
	if (bundle_unpack(files, 2, &how, NULL) == 0 && lseek(files[0].fd, 0, SEEK_END) > (off_t)VOLUME_BYTES)
		abort();
	(void)close(files[0].fd);
	return 0;
}
