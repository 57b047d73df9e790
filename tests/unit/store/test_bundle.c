/* SPDX-License-Identifier: Apache-2.0 */
/* What is packed is what is unpacked; what is changed on the way is refused. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fill.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "model/bundle.h"
#include "store/bundle.h"

#define MIB (UINT64_C(1) << 20)

static struct err e;
static struct str sent, heads; /* chunks; and their records alone, with an end each */
static uint8_t there[8];
static size_t there_length;

static int take(void *data, const void *bytes, size_t length, struct err *why)
{
	(void)why;
	str_add(data, bytes, length);
	return 0;
}

static int give(void *data, void *bytes, size_t length, struct err *why)
{
	struct str *from = data;

	if (from->length < length)
		return err_set(why, ERR_CANCELLED, "cut off");
	memcpy(bytes, from->bytes, length);
	str_drop_front(from, length);
	return 0;
}

static int answer(void *data, const void *bytes, size_t length, struct err *why)
{
	(void)data;
	(void)why;
	assert_true(length <= sizeof there);
	memcpy(there, bytes, length);
	there_length = length;
	return 0;
}

static int new_file(uint64_t bytes)
{
	int fd = memfd_create("test", MFD_CLOEXEC);
	assert_return_code(ftruncate(fd, (off_t)bytes), 0);
	return fd;
}

static void pack(const struct bundle_file *files, size_t count, struct bundle_from from)
{
	str_done(&sent);
	assert_int_equal(bundle_pack(files, count, &from, 2, take, &sent, &e), 0);
}

/* Counts records and ends them. */
static uint64_t end_records(void)
{
	struct hash *h = hash_new();
	struct bundle_record r, end = { .kind = BUNDLE_END };
	uint8_t bytes[BUNDLE_RECORD_BYTES];

	str_done(&heads);
	for (size_t at = 0; at < sent.length; at += BUNDLE_RECORD_BYTES + r.stored_length, end.offset++) {
		assert_int_equal(bundle_record_decode((const uint8_t *)sent.bytes + at, &r, &e), 0);
		hash_add(h, sent.bytes + at, BUNDLE_RECORD_BYTES);
		str_add(&heads, sent.bytes + at, BUNDLE_RECORD_BYTES);
	}
	end.digest = hash_end(h);
	hash_free(h);
	bundle_record_encode(&end, bytes);
	str_add(&heads, (const char *)bytes, sizeof bytes);
	str_add(&sent, (const char *)bytes, sizeof bytes);
	return end.offset;
}

static struct bundle_file files[3], copies[3];

static int setup(void **unused)
{
	(void)unused;
	files[0] = (struct bundle_file){ new_file(10 * MIB + 5000), 10 * MIB + 5000 };
	files[1] = (struct bundle_file){ -1, 3 * MIB };
	files[2] = (struct bundle_file){ new_file(300), 300 };
	fill(files[0].fd, 0, 3 * MIB + 100, true);
	fill(files[0].fd, 5 * MIB + 4096, 2 * MIB, false);
	fill(files[0].fd, 10 * MIB + 4000, 1000, false);
	fill(files[2].fd, 0, 300, true);
	for (int i = 0; i < 3; i++)
		copies[i] = (struct bundle_file){ files[i].fd < 0 ? -1 : new_file(files[i].size_bytes), files[i].size_bytes };
	return 0;
}

static int teardown(void **unused)
{
	(void)unused;
	for (int i = 0; i < 3; i++) {
		own_close(&files[i].fd);
		own_close(&copies[i].fd);
	}
	str_done(&sent);
	str_done(&heads);
	return 0;
}

static int take_in(const struct str *first, const char *bytes, size_t length)
{
	own_strbuf struct str from = { 0 };
	const struct bundle_unpacking how = { give, answer, &from };

	str_add(&from, first->bytes, first->length);
	str_add(&from, bytes, length);
	int r = bundle_unpack(copies, 3, &how, &e);
	if (r == 0)
		assert_int_equal(from.length, 0);
	return r;
}

/* Into new files. */
static int unpack(void)
{
	for (int i = 0; i < 3; i++)
		if (copies[i].fd >= 0) {
			assert_return_code(ftruncate(copies[i].fd, 0), 0);
			assert_return_code(ftruncate(copies[i].fd, (off_t)copies[i].size_bytes), 0);
		}
	return take_in(&heads, sent.bytes, sent.length);
}

static void compare(void)
{
	for (int i = 0; i < 3; i += 2) {
		struct digest was, is;
		assert_int_equal(hash_fd(files[i].fd, &was, &e), 0);
		assert_int_equal(hash_fd(copies[i].fd, &is, &e), 0);
		assert_true(digest_eq(&was, &is));
	}
}

static void test_there_and_back(void **unused)
{
	(void)unused;
	pack(files, 3, (struct bundle_from){ 0 });
	assert_int_equal(end_records(), 4 + 3 + 1 + 1);
	assert_int_equal(unpack(), 0);
	for (int i = 0; i < 3; i += 2) {
		struct digest was, is;
		struct stat st;
		assert_int_equal(hash_fd(files[i].fd, &was, &e), 0);
		assert_int_equal(hash_fd(copies[i].fd, &is, &e), 0);
		assert_true(digest_eq(&was, &is));
		assert_return_code(fstat(copies[i].fd, &st), 0);
		assert_true(st.st_size == (off_t)files[i].size_bytes && st.st_blocks * 512 < (off_t)(9 * MIB));
	}
}

static void test_going_on_gives_the_rest(void **unused)
{
	(void)unused;
	pack(files, 3, (struct bundle_from){ 0 });
	own_str char *whole = mem_dup(sent.bytes, sent.length);
	size_t length = sent.length;
	struct bundle_record r;
	for (size_t at = 0; at < length; at += BUNDLE_RECORD_BYTES + r.stored_length) {
		assert_int_equal(bundle_record_decode((const uint8_t *)whole + at, &r, &e), 0);
		size_t next = at + BUNDLE_RECORD_BYTES + r.stored_length;
		pack(files, 3, (struct bundle_from){ r.stream, r.offset + BUNDLE_CHUNK_BYTES });
		assert_int_equal(sent.length, length - next);
		assert_memory_equal(str_text(&sent), whole + next, sent.length);
	}
}

static void test_what_is_changed_is_refused(void **unused)
{
	(void)unused;
	pack(files, 3, (struct bundle_from){ 0 });
	(void)end_records();
	for (size_t at = 0; at < sent.length; at += at < 200 ? 1 : 9973) {
		sent.bytes[at] ^= 4;
		assert_true(unpack() < 0);
		sent.bytes[at] ^= 4;
	}
	for (size_t at = 0; at < heads.length; at += 41) {
		heads.bytes[at] ^= 4;
		assert_true(unpack() < 0);
		heads.bytes[at] ^= 4;
	}
	sent.length -= BUNDLE_RECORD_BYTES; /* no end */
	assert_true(unpack() < 0);
}

static void end_of(const struct str *records, uint64_t count, struct str *out)
{
	struct bundle_record end = { .kind = BUNDLE_END, .offset = count,
				     .digest = hash_bytes(records->bytes, records->length) };
	uint8_t bytes[BUNDLE_RECORD_BYTES];

	bundle_record_encode(&end, bytes);
	str_add(out, (const char *)bytes, sizeof bytes);
}

/* Cut anywhere, and with what is there changed: what is asked for is what is not there, and then all is. */
static void test_an_import_goes_on(void **unused)
{
	struct bundle_record r;

	(void)unused;
	pack(files, 3, (struct bundle_from){ 0 });
	uint64_t count = end_records();
	for (size_t cut = 0; cut < sent.length; cut += 900001) {
		own_strbuf struct str rest = { 0 }, records = { 0 }, whole = { 0 };
		uint64_t missing = 0, number = 0;
		str_add(&whole, sent.bytes, sent.length);
		sent.length = cut;
		assert_int_equal(unpack(), -ECANCELED);
		str_done(&sent);
		str_add(&sent, whole.bytes, whole.length);
		if (cut > sent.length / 2) /* not believed because it is there */
			assert_int_equal(pwrite(copies[0].fd, "other", 5, 0), 5);
		for (uint64_t at = 8; at < 10; at++) /* where this one has zeros: what an import of another one has left */
			assert_int_equal(pwrite(copies[0].fd, "other", 5, (off_t)(at * MIB + 4010)), 5);
		assert_int_equal(take_in(&heads, NULL, 0), -ECANCELED);
		for (size_t at = 0; number < count; at += BUNDLE_RECORD_BYTES + r.stored_length, number++) {
			assert_int_equal(bundle_record_decode((const uint8_t *)sent.bytes + at, &r, &e), 0);
			if (there[number / 8] & 1U << number % 8)
				continue;
			str_add(&records, sent.bytes + at, BUNDLE_RECORD_BYTES);
			str_add(&rest, sent.bytes + at, BUNDLE_RECORD_BYTES + r.stored_length);
			missing++;
		}
		assert_true(missing > 0 && (cut < sent.length / 2 || missing < count));
		end_of(&records, missing, &rest);
		assert_int_equal(take_in(&heads, rest.bytes, rest.length), 0);
		compare();
		own_strbuf struct str nothing = { 0 }, none = { 0 };
		end_of(&nothing, 0, &none);
		assert_int_equal(take_in(&heads, none.bytes, none.length), 0); /* all is there */
	}
	assert_int_equal(there_length, (count + 7) / 8);
}

static void test_chunks_out_of_place_are_refused(void **unused)
{
	struct bundle_record good = { .stream = 1, .offset = MIB, .plain_length = MIB, .stored_length = 5,
				      .codec = BUNDLE_ZSTD }, bad = good;

	(void)unused;
	assert_int_equal(bundle_record_check(&good, NULL, 2 * MIB, &e), 0);
	assert_true(bundle_record_check(&good, NULL, 2 * MIB - 1, &e) < 0);
	assert_true(bundle_record_check(&good, &good, 2 * MIB, &e) < 0);
	bad.stream = 2;
	assert_true(bundle_record_check(&good, &bad, 2 * MIB, &e) < 0);
	bad = good;
	bad.offset = 4096;
	assert_true(bundle_record_check(&bad, NULL, 4 * MIB, &e) < 0);
	bad.offset = UINT64_MAX - MIB + 1;
	assert_true(bundle_record_check(&bad, NULL, 4 * MIB, &e) < 0);
	bad = good;
	bad.plain_length = 100;
	assert_true(bundle_record_check(&bad, NULL, 2 * MIB, &e) < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_there_and_back, setup, teardown),
		cmocka_unit_test_setup_teardown(test_going_on_gives_the_rest, setup, teardown),
		cmocka_unit_test_setup_teardown(test_what_is_changed_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_an_import_goes_on, setup, teardown),
		cmocka_unit_test(test_chunks_out_of_place_are_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
