/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_SOURCE_H
#define CLI_SOURCE_H

/* Where an image comes from, as a stream of bytes: a folder, an archive, an OCI layout, or a Debian that is built here. */

#include <stdint.h>

#include "cli/cli.h"
#include "cli/pipe.h"
#include "cli/progress.h"

struct source {
	const char *format;     /* "tar", "oci", "disk", "raw" */
	int fd;
	uint64_t total_bytes;   /* 0: not known */
	struct str head;        /* was read to look at it; comes first */
	struct pipe_child child; /* makes the stream; pidfd -1: none */
	struct progress *progress;
	uint64_t done_bytes;
	struct err failure;
};
#define SOURCE_NONE { .fd = -1, .child = PIPE_NONE }

struct source_options {
	const char *format;  /* NULL: look */
	const char *include, *variant, *mirror; /* debian: only; NULL: none */
	const char *architecture; /* of a Debian; NULL: this machine's */
	/* debian: take nothing but this package of a kernel, and the one it depends on; NULL: a whole Debian */
	const char *kernel;
};

/* Opens what `text` names: "-", a path, "debian:SUITE". */
int source_open(struct source *s, const char *text, const struct source_options *options, struct progress *progress,
		struct err *e) must_check;
/* For client_upload; `data` is the source. Ends with -ECANCELED when cli_interrupted is set. */
long source_read(void *data, char *buffer, size_t size);
/* After the upload: the child's result. */
int source_finish(struct source *s, struct err *e) must_check;
void source_done(struct source *s);
#define own_source __attribute__((cleanup(source_done)))

#endif
