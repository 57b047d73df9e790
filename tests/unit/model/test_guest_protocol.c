/* SPDX-License-Identifier: Apache-2.0 */
#include "../test.h"

#include <errno.h>
#include <string.h>

#include "model/guest_protocol.h"

static struct err e;

static void frames_in_pieces_and_noise(void **state)
{
	(void)state;
	own_strbuf struct str bytes = { 0 };
	struct guest_reader r;
	struct guest_frame f;

	str_puts(&bytes, "CGF1 noise before");
	guest_frame_put(&bytes, 7, GUEST_PING, 1, NULL, 0);
	guest_frame_put(&bytes, 7, GUEST_DATA, 2, "\1hello", 6);
	size_t half = bytes.length - 3;
	guest_frame_put(&bytes, 7, GUEST_DATA, 3, "\1again", 6);
	bytes.bytes[half + 3 + GUEST_HEADER - 1] ^= 1; /* the third header is damaged */
	guest_frame_put(&bytes, 8, GUEST_PING, 4, NULL, 0);

	guest_reader_init(&r, 64);
	int seen = 0;
	uint32_t numbers[8] = { 0 };
	for (size_t i = 0; i < bytes.length; i++) {
		guest_reader_add(&r, bytes.bytes + i, 1);
		while (guest_reader_next(&r, &f)) {
			numbers[seen++] = f.number;
			if (f.number == 2) {
				assert_int_equal(f.length, 6);
				assert_memory_equal(f.payload, "\1hello", 6);
			}
		}
	}
	assert_int_equal(seen, 3);
	assert_int_equal(numbers[0], 1);
	assert_int_equal(numbers[1], 2);
	assert_int_equal(numbers[2], 4);
	assert_int_equal(r.noise_bytes, 17 + GUEST_HEADER + 6);
	guest_reader_done(&r);
}

static void too_long_is_noise(void **state)
{
	(void)state;
	own_strbuf struct str bytes = { 0 };
	struct guest_reader r;
	struct guest_frame f;
	char payload[65] = { 0 };

	guest_frame_put(&bytes, 1, GUEST_DATA, 1, payload, sizeof payload);
	guest_frame_put(&bytes, 1, GUEST_DATA, 2, payload, sizeof payload - 1);
	guest_reader_init(&r, 64);
	guest_reader_add(&r, bytes.bytes, bytes.length);
	assert_true(guest_reader_next(&r, &f));
	assert_int_equal(f.number, 2);
	assert_false(guest_reader_next(&r, &f));
	guest_reader_done(&r);
}

static void configuration_there_and_back(void **state)
{
	(void)state;
	char *partitions[] = { (char *)"p0", (char *)"p1" }, *addresses[] = { (char *)"10.0.0.2/24" };
	struct guest_volume volume = { .name = (char *)"data", .serial = (char *)"v1" };
	struct guest_interface link = { .mac = (char *)"02:00:00:00:00:01", .name = (char *)"eth0", .mtu = 1400,
					.addresses = { addresses, 1 } };
	struct guest_config in = { .partitions = { partitions, 2 }, .root = (char *)"root", .volumes = { &volume, 1 },
				   .interfaces = { &link, 1 }, .plan = { (void *)"\0plan", 5 }, .clock_ns = UINT64_MAX - 1 };
	struct guest_config out;
	own_strbuf struct str bytes = { 0 };

	guest_encode(&guest_config_shape, &in, &bytes);
	assert_int_equal(guest_decode(&guest_config_shape, bytes.bytes, bytes.length, &out, &e), 0);
	assert_int_equal(out.partitions.count, 2);
	assert_string_equal(out.partitions.items[1], "p1");
	assert_string_equal(((struct guest_volume *)out.volumes.items)->serial, "v1");
	const struct guest_interface *got = out.interfaces.items;
	assert_int_equal(got->mtu, 1400);
	assert_string_equal(got->addresses.items[0], "10.0.0.2/24");
	assert_int_equal(got->routes.count, 0);
	assert_int_equal(out.plan.length, 5);
	assert_int_equal(out.seed.length, 0);
	assert_true(out.clock_ns == in.clock_ns);
	guest_done(&guest_config_shape, &out);

	for (size_t n = 0; n < bytes.length; n++) /* cut anywhere: refused, or fewer fields, and nothing is left behind */
		if (guest_decode(&guest_config_shape, bytes.bytes, n, &out, &e) == 0)
			guest_done(&guest_config_shape, &out);
}

static void limits_hold(void **state)
{
	(void)state;
	struct guest_state out;
	own_strbuf struct str bytes = { 0 };
	struct err said = { 0 };
	struct guest_state in = { .phase = GUEST_FAILED };

	(void)err_set(&said, ERR_NOT_FOUND, "no \x1b[31mdisk\n");
	guest_error_set(&in.error, &said);
	guest_encode(&guest_state_shape, &in, &bytes);
	assert_int_equal(guest_decode(&guest_state_shape, bytes.bytes, bytes.length, &out, &e), 0);
	assert_int_equal(guest_error_get(&out.error, &e), -ENOENT);
	assert_string_equal(e.message, "no ?[31mdisk?");
	guest_done(&guest_state_shape, &out);
	guest_done(&guest_state_shape, &in);

	own_strbuf struct str twice = { 0 };
	str_add(&twice, bytes.bytes, bytes.length);
	str_add(&twice, bytes.bytes, bytes.length);
	assert_int_equal(guest_decode(&guest_state_shape, twice.bytes, twice.length, &out, &e), -EFBIG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(frames_in_pieces_and_noise),
		cmocka_unit_test(too_long_is_noise),
		cmocka_unit_test(configuration_there_and_back),
		cmocka_unit_test(limits_hold),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
