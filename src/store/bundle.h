/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_BUNDLE_H
#define STORE_BUNDLE_H

/*
 * The chunks of a bundle (model/bundle.h): made from files, and written into files. Both ends are functions of bytes, so that
 * they are tried without sockets; the program carrel-bundle runs them in a sandbox for the agent.
 */

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define BUNDLE_SOCKET_FD 3 /* where carrel-bundle has the stream: frames of a channel byte and up to 65,535 bytes */
#define BUNDLE_PREFIX_FD 4 /* pack: what comes before the first chunk */
#define BUNDLE_FIRST_FD  5 /* then the files */

struct bundle_file {
	int fd; /* -1: left out */
	uint64_t size_bytes;
};

/* Chunks of the files in order, after (from_stream, from_offset), with holes and zeros left out, as records with their bytes.
 * `send` gets them in order. Compresses with `threads` threads besides the caller's. */
struct bundle_from {
	uint32_t stream;
	uint64_t offset;
};
typedef int bundle_send_fn(void *data, const void *bytes, size_t length, struct err *e);
int bundle_pack(const struct bundle_file *files, size_t count, const struct bundle_from *from, unsigned threads,
		bundle_send_fn *send, void *data, struct err *e) must_check;

/* Takes the records of all chunks without their bytes up to an END record; answers with a bit for each, lowest first, whether
 * the file has it already, with the right checksum; then takes the others with their bytes up to a second END record. Checks
 * everything. So an import that broke off goes on. `receive` fills all of `length` bytes, or fails. */
struct bundle_unpacking {
	int (*receive)(void *data, void *bytes, size_t length, struct err *e);
	int (*answer)(void *data, const void *bytes, size_t length, struct err *e);
	void *data;
};
int bundle_unpack(const struct bundle_file *files, size_t count, const struct bundle_unpacking *how, struct err *e) must_check;

#endif
