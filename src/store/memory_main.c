/* SPDX-License-Identifier: Apache-2.0 */
/*
 * carrel-memory pack TAKEN-MS          descriptor 3, a memory file, into descriptor 4, which goes on where it was ended:
 *                                      {"bytes":N,"digest":"sha256:HEX","sparse":"sha256:HEX","kept":N}
 * carrel-memory pack TAKEN-MS now      as fast as it can, because somebody waits; the file was never sealed: no "sparse". It
 *                                      begins at a byte on descriptor 5: nobody changes the file from then on
 * carrel-memory unpack DIGEST LENGTH   descriptor 3, a packed memory whose digest and plain length are these, into descriptor
 * 4. When all is
 *                                      there, and was what its checksums say, a byte goes to descriptor 5
 * carrel-memory check DIGEST LENGTH    the same without writing
 *
 * The answer is one line of JSON on standard output, of an error too. Nothing is opened: after the arguments everything happens
 * in the sandbox.
 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/err_json.h"
#include "base/fault.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/sandbox.h"
#include "base/str.h"
#include "store/memory_pack.h"

#define FROM 3
#define TO 4
#define WHOLE 5 /* told by who unpacks */
#define GO 5	/* told to who packs now */
#define NICE 10 /* packing is nobody's hurry */

static unsigned threads(void)
{
	long processors = sysconf(_SC_NPROCESSORS_ONLN);
	return processors < 1 ? 1 : (unsigned)processors;
}

static int wait_for_go(struct err *e)
{
	char byte;
	ssize_t n;

	while ((n = read(GO, &byte, 1)) < 0 && errno == EINTR)
		;
	return n == 1 ? 0 : err_set(e, ERR_CANCELLED, "the memory was not to be packed after all");
}

static int pack(char **argv, json_t **ret_answer, struct err *e)
{
	bool now = argv[3] != NULL;
	struct memory_pack_how how = { .sparse = !now, .level = now ? MEMORY_PACK_LEVEL_NOW : MEMORY_PACK_LEVEL,
				       .threads = threads() };
	char digest[DIGEST_TEXT_SIZE], sparse[DIGEST_TEXT_SIZE];
	struct memory_pack_made made;

	if (str_to_u64(argv[2], UINT64_MAX, &how.taken_ms) < 0 || (now && !str_eq(argv[3], "now")))
		return err_set(e, ERR_INVALID, "use: carrel-memory pack TAKEN-MS [now]");
	if (!now)
		(void)setpriority(PRIO_PROCESS, 0, NICE);
	(void)fault_point("memory.pack");
	int r = sandbox_enter(SANDBOX_THREADS, NULL, e);
	if (r == 0 && now)
		r = wait_for_go(e);
	if (r == 0)
		r = memory_pack_write(FROM, TO, &how, &made, e);
	if (r == 0)
		*ret_answer = json_pack("{s:I, s:s, s:s*, s:I}", "bytes", (json_int_t)made.bytes, "digest",
					digest_text(&made.digest, digest), "sparse",
					now ? NULL : digest_text(&made.sparse, sparse), "kept", (json_int_t)made.kept);
	return r;
}

static int unpack(char **argv, int to, struct err *e)
{
	own_memory_pack struct memory_pack *p = NULL;
	struct digest wanted;
	uint64_t length = 0;
	unsigned count = threads();

	if (!argv[3] || str_to_u64(argv[3], UINT64_MAX, &length) < 0 || digest_parse(argv[2], &wanted, e) < 0)
		return err_set(e, ERR_INVALID, "use: carrel-memory unpack|check DIGEST LENGTH");
	(void)fault_point("memory.unpack");
	int r = sandbox_enter(SANDBOX_THREADS, NULL, e);
	if (r == 0)
		r = memory_pack_open(FROM, &p, e);
	if (r < 0)
		return r;
	if (!digest_eq(memory_pack_digest(p), &wanted) || memory_pack_start(p)->length != length)
		return err_set(e, ERR_CORRUPT, "the packed memory is not the one that belongs to the manifest");
	if ((r = memory_pack_read(p, to, count, e)) == 0 && to >= 0 && write(WHOLE, "", 1) != 1)
		r = err_errno(e, errno, "tell that the memory is whole");
	return r;
}

int main(int argc, char **argv)
{
	struct err e = { 0 };
	json_t *answer = NULL;
	int r;

	if (argc >= 3 && str_eq(argv[1], "pack"))
		r = pack(argv, &answer, &e);
	else if (argc == 4 && (str_eq(argv[1], "unpack") || str_eq(argv[1], "check")))
		r = unpack(argv, str_eq(argv[1], "unpack") ? TO : -1, &e);
	else
		r = err_set(&e, ERR_INVALID, "use: carrel-memory pack|unpack|check ...");
	if (r < 0)
		answer = json_pack("{s:o}", "error", err_to_json(&e));
	else if (!answer)
		answer = json_object();
	char *text = json_dumps(answer, JSON_COMPACT);
	(void)printf("%s\n", text ? text : "{}");
	free(text);
	json_decref(answer);
	return r < 0;
}
