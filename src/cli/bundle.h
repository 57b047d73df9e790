/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_BUNDLE_H
#define CLI_BUNDLE_H

/* Bundles on this machine. Their bytes are read by carrel-bundle, in a sandbox; what comes back from it is ours. */

#include <jansson.h>

#include "cli/cli.h"
#include "cli/pipe.h"

/* carrel-bundle WORD FILE to its end; *ret_answer (may be NULL) is what it said. */
int bundle_ask(const char *word, const char *file, json_t **ret_answer, struct err *e) must_check;
/* The same with its output as a stream; its failure is told by bundle_close. */
int bundle_open(const char *word, const char *file, struct pipe_child *ret_child, struct err *e) must_check;
int bundle_close(struct pipe_child *c, struct err *e) must_check;

/* Digests of partitions that the other side has: of an image, of a bundle, or of a list in a file. Adds to `ret_digests`. */
int bundle_base(struct cli *cli, const char *base, json_t *ret_digests, struct err *e) must_check;

/* One transfer over a stream of the API; 0 when its other side said that all is well. `into`: what comes is written there; its
 * first `known` bytes are there already and must be the same, else ERR_PRECONDITION. `from`: a pipe whose bytes are sent;
 * `back`: what comes meanwhile is written there. -1: none. */
struct bundle_transfer {
	char *path; /* taken */
	json_t *request;
	int into, from, back;
	uint64_t known, total;
	const char *label;
};
int bundle_transfer(struct cli *cli, struct bundle_transfer *t, struct err *e) must_check;

#endif
