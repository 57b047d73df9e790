/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Nothing here reads a byte of the upload's meaning: it is written into a file of the session as it comes, and children
 * without rights (CHILD_PARSES) get that file and a pipe for answers, which are fixed structs and are checked like bytes from
 * outside. One child says what the upload is, then one for each disk writes it as a raw file and hashes it while it does so.
 *
 * An upload that is packed as a whole is unpacked into another file first, which is the upload from then on, by a child as
 * well. One that is a raw disk already is not copied: its own file becomes the partition. All files are the session's until
 * store_put_file, so whoever is killed or fails leaves nothing. Zeros are holes everywhere; a size is limited before it is
 * written, never after.
 */
#include "store/import_disk.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/packed.h"
#include "store/cancel.h"
#include "store/child.h"
#include "store/disk_unpack.h"

#define BUFFER_BYTES (1U << 20)
#define PIECE_BYTES 65536
#define UPLOAD "upload"
#define UNPACKED "unpacked"
#define MOST(how) ((how)->bytes_most ? (how)->bytes_most : UINT64_C(1) << 40)

/* --- the upload --- */

static int too_much(uint64_t most, struct err *e)
{
	return err_set(e, ERR_TOO_LARGE, "the disk has more than %llu bytes", (unsigned long long)most);
}

/* Holes where it is zero; pieces are aligned, so that what is data stays where it is. */
static int write_down(int fd, const char *bytes, size_t length, uint64_t at, struct err *e)
{
	static const char zeros[PIECE_BYTES];

	for (size_t n; length > 0; bytes += n, at += n, length -= n) {
		n = PIECE_BYTES - (size_t)(at % PIECE_BYTES);
		n = n < length ? n : length;
		if (memcmp(bytes, zeros, n) == 0)
			continue;
		for (size_t done = 0; done < n;) {
			ssize_t written = pwrite(fd, bytes + done, n - done, (off_t)(at + done));
			if (written < 0 && errno != EINTR)
				return err_errno(e, errno, "write the upload");
			done += written > 0 ? (size_t)written : 0;
		}
	}
	return 0;
}

static int receive(const struct disk_import *how, int fd, struct err *e)
{
	own_str char *buffer = mem_alloc(BUFFER_BYTES);
	uint64_t at = 0;

	for (;;) {
		struct pollfd p = { .fd = how->input_fd, .events = POLLIN };
		int r = cancel_poll(&p, 1, -1, e);
		if (r < 0)
			return r;
		ssize_t n = read(how->input_fd, buffer, BUFFER_BYTES);
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (n < 0)
			return err_errno(e, errno, "read the upload");
		if (n == 0)
			break;
		if (at + (uint64_t)n > MOST(how))
			return too_much(MOST(how), e);
		if ((r = write_down(fd, buffer, (size_t)n, at, e)) < 0)
			return r;
		at += (uint64_t)n;
		how->progress(how->data, "fetch", at, 0);
	}
	return ftruncate(fd, (off_t)at) < 0 ? err_errno(e, errno, "write the upload") : 0;
}

/* --- children --- */

struct task {
	int input_fd, output_fd, report_fd; /* output -1: none */
	bool raw;
	struct disk_part part;
	uint64_t bytes_most;
};

static int tell(void *data, const struct disk_progress *p, struct err *e)
{
	const struct task *t = data;
	return fs_write_all(t->report_fd, p, sizeof *p, e);
}

static int inspect(void *data, struct err *e)
{
	const struct task *t = data;
	struct disk_upload u = { 0 };

	cancel_in_child();
	int r = disk_inspect(t->input_fd, t->raw, &u, e);
	return r < 0 ? r : fs_write_all(t->report_fd, &u, sizeof u, e);
}

static int convert(void *data, struct err *e)
{
	const struct task *t = data;
	const struct disk_window w = { t->input_fd, t->part.offset, t->part.bytes };
	own_disk struct disk *d = NULL;

	cancel_in_child();
	int r = disk_open(&w, (enum disk_format)t->part.format, NULL, &d, e);
	if (r == 0 && disk_bytes(d) > t->bytes_most)
		r = too_much(t->bytes_most, e);
	return r < 0 ? r : disk_convert(d, t->output_fd, tell, data, e);
}

static int unpack(void *data, struct err *e)
{
	const struct task *t = data;

	cancel_in_child();
	return disk_unpack_file(t->input_fd, t->output_fd, t->bytes_most, tell, data, e);
}

/* The next answer of a child, which is `size` bytes. 0: there is none. */
static int hear(int fd, void *answer, size_t size, struct err *e)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	int r = cancel_poll(&p, 1, -1, e);

	if (r < 0)
		return r;
	ssize_t n = read(fd, answer, size); /* answers are written at once, and smaller than what a pipe takes at once */
	if (n < 0)
		return err_errno(e, errno, "read from the reader of disk images");
	if (n != 0 && (size_t)n != size)
		return err_set(e, ERR_CORRUPT, "the reader of disk images gave an answer that cannot be");
	return n > 0;
}

static int start(child_fn *fn, struct task *t, struct child *ret_child, int *ret_report, struct err *e)
{
	const int fds[] = { t->input_fd, t->output_fd };
	int all[3], pair[2];
	size_t count = 0;

	if (pipe2(pair, O_CLOEXEC) < 0)
		return err_errno(e, errno, "make a pipe");
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		if (fds[i] >= 0)
			all[count++] = fds[i];
	t->report_fd = all[count++] = pair[1];
	int r = child_start("the reader of disk images", CHILD_PARSES, fn, t, all, count, ret_child, e);
	(void)close(pair[1]);
	if (r < 0) {
		(void)close(pair[0]);
		return r;
	}
	*ret_report = pair[0];
	return 0;
}

/* Its own error says more than that it said nothing. */
static int finish(struct child *c, int r, bool complete, struct err *e)
{
	struct err theirs;

	if (r < 0) {
		child_kill(c);
		return r;
	}
	r = child_finish(c, &theirs);
	if (r < 0) {
		*e = theirs;
		return r;
	}
	return complete ? 0 : err_set(e, ERR_INTERNAL, "the reader of disk images ended without an answer");
}

static int look(const struct disk_import *how, int upload, struct disk_upload *ret_upload, struct err *e)
{
	struct task t = { .input_fd = upload, .output_fd = -1, .raw = how->raw };
	struct disk_window w;
	struct child c;
	own_fd int report = -1;
	int r = disk_window_of(upload, &w, e);

	if (r == 0)
		r = start(inspect, &t, &c, &report, e);
	if (r < 0)
		return r;
	r = hear(report, ret_upload, sizeof *ret_upload, e);
	r = finish(&c, r, r > 0, e);
	return r < 0 ? r : disk_check_upload(ret_upload, w.bytes, e);
}


static int make(const struct disk_import *how, child_fn *fn, struct task *t, struct disk_progress *ret_last, struct err *e)
{
	struct disk_progress p = { 0 };
	struct child c;
	own_fd int report = -1;
	int r = start(fn, t, &c, &report, e);

	if (r < 0)
		return r;
	while ((r = hear(report, &p, sizeof p, e)) > 0 && !p.complete)
		how->progress(how->data, fn == unpack ? "unpack" : "convert", p.done_bytes, p.total_bytes);
	r = finish(&c, r, p.complete, e);
	if (r < 0)
		return r;
	if (p.firmware > FIRMWARE_UEFI || p.total_bytes > MOST(how))
		return err_set(e, ERR_CORRUPT, "the reader of disk images gave an answer that cannot be");
	*ret_last = p;
	return 0;
}

/* *upload and *name become those of what was in it. */
static int unpack_upload(const struct disk_import *how, int *upload, const char **name, struct err *e)
{
	struct disk_progress last = { 0 };
	own_fd int plain = -1;
	char head[16];
	ssize_t n = pread(*upload, head, sizeof head, 0);

	if (n < 0)
		return err_errno(e, errno, "read the upload");
	if (!packed_is(head, (size_t)n))
		return 0;
	int r = store_session_file(how->session, UNPACKED, &plain, e);
	if (r < 0)
		return r;
	struct task t = { .input_fd = *upload, .output_fd = plain, .bytes_most = MOST(how) };
	if ((r = make(how, unpack, &t, &last, e)) < 0)
		return r;
	if (ftruncate(*upload, 0) < 0) /* its room is given back */
		return err_errno(e, errno, "empty the upload");
	own_close(upload);
	*upload = TAKE_FD(plain);
	*name = UNPACKED;
	return 0;
}

static bool is_upload_itself(const struct disk_upload *u)
{
	return u->count == 1 && u->parts[0].format == DISK_RAW && u->parts[0].offset == 0;
}

static int take_part(const struct disk_import *how, int upload, const char *upload_name, const struct disk_upload *u,
		     size_t number, struct disk_imported *out, struct err *e)
{
	bool itself = is_upload_itself(u);
	struct task t = { .input_fd = upload, .output_fd = -1, .part = u->parts[number], .bytes_most = MOST(how) };
	struct disk_progress last = { 0 };
	own_fd int output = -1;
	char numbered[32];
	int r = 0, fault;

	(void)snprintf(numbered, sizeof numbered, "disk-%zu", number);
	const char *name = itself ? upload_name : numbered;
	if (!itself && (r = store_session_file(how->session, name, &output, e)) < 0)
		return r;
	t.output_fd = output;
	if ((r = make(how, convert, &t, &last, e)) < 0)
		return u->count > 1 ? err_wrap(e, "disk %zu", number) : r;
	if (itself && ftruncate(upload, (off_t)last.total_bytes) < 0) /* to whole sectors */
		return err_errno(e, errno, "write the disk");
	if ((fault = fault_point("import-disk-made")) > 0)
		return err_errno(e, fault, "import-disk-made");
	if ((r = store_put_file(how->session, name, itself ? upload : output, STORE_PARTITION, &last.digest, e)) < 0)
		return r;
	out->partitions[out->count++] = (struct disk_partition){ last.digest, last.total_bytes };
	if (number == 0 && !out->machine.firmware)
		out->machine.firmware = last.firmware;
	return 0;
}

int disk_import(const struct disk_import *how, struct disk_imported *ret_imported, struct err *e)
{
	struct disk_imported out = { 0 };
	struct disk_upload u = { 0 };
	const char *name = UPLOAD;
	own_fd int upload = -1;
	int r = store_session_file(how->session, UPLOAD, &upload, e);

	how->progress(how->data, "fetch", 0, 0);
	if (r == 0)
		r = receive(how, upload, e);
	if (r == 0)
		r = unpack_upload(how, &upload, &name, e);
	if (r == 0)
		r = look(how, upload, &u, e);
	out.machine = u.machine;
	for (size_t i = 0; r == 0 && i < u.count; i++)
		r = take_part(how, upload, name, &u, i, &out, e);
	if (r < 0)
		return r;
	*ret_imported = out;
	return 0;
}

int disk_import_raw(const struct disk_import *how, const char *name, const struct digest *wanted, uint64_t *ret_bytes,
		    struct err *e)
{
	char is[DIGEST_TEXT_SIZE], should[DIGEST_TEXT_SIZE];
	struct disk_progress last = { 0 };
	struct disk_window w;
	own_fd int output = -1;
	int r = disk_window_of(how->input_fd, &w, e);

	if (r == 0)
		r = store_session_file(how->session, name, &output, e);
	if (r < 0)
		return r;
	struct task t = { .input_fd = how->input_fd, .output_fd = output, .raw = true, .bytes_most = MOST(how),
			  .part = { .format = DISK_RAW, .bytes = w.bytes } };
	r = make(how, convert, &t, &last, e);
	if (r == 0 && !digest_eq(&last.digest, wanted))
		r = err_set(e, ERR_CORRUPT, "a disk has the digest %s, and should have %s", digest_text(&last.digest, is),
			    digest_text(wanted, should));
	if (r == 0)
		r = store_put_file(how->session, name, output, STORE_PARTITION, &last.digest, e);
	if (r < 0)
		return r;
	*ret_bytes = last.total_bytes;
	return 0;
}

void disk_import_override(struct image_machine *m, const struct image_machine *wish)
{
	if (!wish)
		return;
	m->firmware = wish->firmware ? wish->firmware : m->firmware;
	m->disk_bus = wish->disk_bus ? wish->disk_bus : m->disk_bus;
	m->nic = wish->nic ? wish->nic : m->nic;
	m->cpu_milli = wish->cpu_milli ? wish->cpu_milli : m->cpu_milli;
	m->memory_bytes = wish->memory_bytes ? wish->memory_bytes : m->memory_bytes;
}
