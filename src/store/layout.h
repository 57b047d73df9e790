/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_LAYOUT_H
#define STORE_LAYOUT_H

/*
 * An archive of an image: a tar (plain or compressed) of an OCI image layout (github.com/opencontainers/image-spec,
 * image-layout.md) or of what `docker save` writes. It is read once, as a stream, by a child without rights; its files become
 * files of a session, each with the digest that its bytes have. Names in the archive never become names of files.
 */

#include <stdint.h>

#include "base/err.h"
#include "base/hash.h"
#include "base/str.h"
#include "store/store.h"

#define LAYOUT_FILES_MOST 4096

struct layout;

typedef void layout_progress_fn(void *data, uint64_t done_bytes);
/* Reads input_fd to its end. */
int layout_read(struct store_session *session, int input_fd, layout_progress_fn *progress, void *data,
		struct layout **ret_layout, struct err *e) must_check;
void layout_free(struct layout *l);
static inline void layout_free_at(struct layout **l)
{
	if (*l)
		layout_free(*l);
}
#define own_layout __attribute__((cleanup(layout_free_at)))

struct layout_file {
	char *name;   /* in the archive: "blobs/sha256/HEX", "index.json" */
	char *target; /* a link: name of the file it means; else NULL */
	char *file;   /* name in the session; NULL: a link */
	uint64_t size_bytes;
	struct digest digest;
};

/* NULL: not there. Links are followed (docker save links equal layers). */
const struct layout_file *layout_find(const struct layout *l, const char *name);
/* The file blobs/sha256/HEX; its bytes have this digest. */
int layout_blob(const struct layout *l, const struct digest *d, const struct layout_file **ret_file, struct err *e) must_check;
int layout_open(const struct layout *l, const struct layout_file *f, int *ret_fd, struct err *e) must_check;
/* The whole content of a small file. */
int layout_document(const struct layout *l, const struct layout_file *f, struct str *ret_bytes, struct err *e) must_check;

/* What the child runs: the records of an archive (layout.c) on output_fd. */
int layout_unpack(int input_fd, int output_fd, struct err *e) must_check;

#endif
