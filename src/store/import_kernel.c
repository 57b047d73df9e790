/* SPDX-License-Identifier: Apache-2.0 */
#include "store/import_kernel.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "store/cancel.h"

#define PACKAGE_MOST (UINT64_C(2) << 30)
#define BLOCK 65536

/* It is read twice, and so must be a file. */
static int spool(int input_fd, int output_fd, import_kernel_progress_fn *progress, void *data, struct err *e)
{
	own_str char *block = mem_alloc(BLOCK);
	uint64_t done = 0;
	ssize_t n;
	int r = 0;

	while (r >= 0 && (n = read(input_fd, block, BLOCK)) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_errno(e, errno, "read the package");
		done += (uint64_t)n;
		if (done > PACKAGE_MOST)
			return err_set(e, ERR_TOO_LARGE, "the package has more than %d MiB", (int)(PACKAGE_MOST >> 20));
		r = fs_write_all(output_fd, block, (size_t)n, e);
		if (r >= 0)
			r = cancel_poll(NULL, 0, 0, e);
		progress(data, done);
	}
	return r < 0 ? r : 0;
}

int import_kernel(struct store_session *session, int input_fd, import_kernel_progress_fn *progress, void *data,
		  struct digest *ret_partition, uint64_t *ret_bytes, struct kernel_about *ret_about, struct err *e)
{
	own_fd int package = -1, partition = -1;
	struct stat st;
	struct digest d;
	int r = store_session_file(session, "package", &package, e);

	if (r >= 0)
		r = store_session_file(session, "kernel", &partition, e);
	if (r >= 0)
		r = spool(input_fd, package, progress, data, e);
	if (r >= 0)
		r = kernel_build(package, partition, e);
	if (r >= 0)
		r = kernel_describe(partition, ret_about, e);
	if (r >= 0)
		r = hash_fd(partition, &d, e);
	if (r >= 0 && fstat(partition, &st) < 0)
		r = err_errno(e, errno, "look at the partition");
	if (r >= 0)
		r = store_put_file(session, "kernel", partition, STORE_PARTITION, &d, e);
	if (r < 0)
		return r;
	*ret_partition = d;
	*ret_bytes = (uint64_t)st.st_size;
	return 0;
}

int import_kernel_recognize(struct store *store, const struct image *image, char **ret_release, struct err *e)
{
	const char *release = image->run ? pairs_get(&image->run->labels, IMAGE_LABEL_KERNEL_RELEASE) : NULL;
	const struct image_partition *partitions = image->partitions.items;
	struct kernel_about about;
	struct digest d;
	own_fd int fd = -1;

	*ret_release = NULL;
	if (!release)
		return 0;
	if (image->partitions.count != 1)
		return err_set(e, ERR_INVALID, "the image says that it is a kernel and has %zu partitions",
			       image->partitions.count);
	int r = digest_parse(partitions[0].digest, &d, e);
	if (r >= 0)
		r = store_get(store, STORE_PARTITION, &d, &fd, NULL, e);
	if (r >= 0)
		r = kernel_describe(fd, &about, e);
	if (r < 0)
		return err_wrap(e, "the image says that it is a kernel");
	if (!str_eq(about.release, release) || !str_eq(about.architecture, image->architecture))
		return err_set(e, ERR_CORRUPT, "the image says that it is the kernel %.60s for %.20s and holds %s for %s",
			       release, image->architecture, about.release, about.architecture);
	*ret_release = mem_strdup(about.release);
	return 0;
}
