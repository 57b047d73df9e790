/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_EXPORT_LAYER_H
#define STORE_EXPORT_LAYER_H

/* Partitions become tar streams again, in a child without rights. */

#include <stdint.h>

#include "base/err.h"
#include "base/hash.h"

enum layer_compression { LAYER_PLAIN, LAYER_GZIP, LAYER_ZSTD };

/* What the parent sees of a child at work; zeroed by the caller. */
struct layer_watch {
	void (*progress)(void *data, uint64_t plain_bytes); /* about ten times a second, and in the end */
	void *data;
	uint64_t sockets; /* left out: a tar has no form for them */
};

struct layer_source {
	const int *fds;   /* partitions, lowest first */
	size_t count;
	/* one tar of the whole stack, whiteouts applied; else count is 1 and whiteouts are those of OCI layers */
	bool whole;
	enum layer_compression compression;
	struct layer_watch *watch; /* or NULL */
};

/* What comes out, as it comes; an error ends the export. */
typedef int layer_sink_fn(void *data, const void *bytes, size_t length, struct err *e);
/* *ret_plain: digest of the tar before compression. */
int layer_export(const struct layer_source *source, layer_sink_fn *sink, void *data, struct digest *ret_plain,
		 struct err *e) must_check;

#endif
