/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/qemu/machine_plan.h"

#include <string.h>

#define P(member) offsetof(struct machine_plan, member)
#define BYTES_MOST (4u << 20)
#define WORDS_MOST 4096

static const struct guest_field fields[] = {
	{ 1, GUEST_BYTES, P(host), BYTES_MOST, NULL },
	{ 2, GUEST_BYTES, P(config), BYTES_MOST, NULL },
	{ 3, GUEST_TEXTS, P(argv), WORDS_MOST, NULL },
	{ 4, GUEST_TEXTS, P(places), WORDS_MOST, NULL },
	{ 5, GUEST_TEXT, P(kernel), 4096, NULL },
	{ 6, GUEST_TEXT, P(initramfs), 4096, NULL },
	{ 7, GUEST_NUMBER, P(disks), 0, NULL },
	{ 8, GUEST_NUMBER, P(id), 0, NULL },
	{ 9, GUEST_NUMBER, P(kvm), 0, NULL },
	{ 10, GUEST_NUMBER, P(boot_ms), 0, NULL },
	{ 11, GUEST_NUMBER, P(queues), 0, NULL },
	{ 12, GUEST_NUMBER, P(vhost), 0, NULL },
	{ 13, GUEST_TEXT, P(memory), 4096, NULL },
	{ 14, GUEST_NUMBER, P(private_memory), 0, NULL },
	{ 15, GUEST_NUMBER, P(resumes), 0, NULL },
	{ 25, GUEST_NUMBER, P(waits), 0, NULL },
	{ 16, GUEST_TEXT, P(private_shim), 4096, NULL },
	{ 17, GUEST_NUMBER, P(template), 0, NULL },
	{ 18, GUEST_BYTES, P(identity), BYTES_MOST, NULL },
	{ 19, GUEST_NUMBER, P(travels), 0, NULL },
	{ 24, GUEST_NUMBER, P(arrives), 0, NULL },
	{ 20, GUEST_NUMBER, P(boots_disk), 0, NULL },
	{ 21, GUEST_NUMBER, P(e1000), 0, NULL },
	{ 22, GUEST_NUMBER, P(display), 0, NULL },
	{ 23, GUEST_NUMBER, P(fixed_links), 0, NULL },
	{ 26, GUEST_TEXT, P(processors), 4096, NULL },
	{ 0 },
};
static const struct guest_shape shape = { sizeof(struct machine_plan), fields };

void machine_plan_encode(const struct machine_plan *p, struct str *out)
{
	const uint64_t magic = MACHINE_MAGIC;

	str_add(out, &magic, sizeof magic);
	guest_encode(&shape, p, out);
}

bool machine_plan_is(const void *bytes, size_t length)
{
	uint64_t magic;

	if (length < sizeof magic)
		return false;
	memcpy(&magic, bytes, sizeof magic);
	return magic == MACHINE_MAGIC;
}

int machine_plan_decode(const void *bytes, size_t length, struct machine_plan *ret_plan, struct err *e)
{
	const size_t magic = sizeof(uint64_t);

	if (!machine_plan_is(bytes, length))
		return err_set(e, ERR_INVALID, "this is not a machine's plan");
	return guest_decode(&shape, (const char *)bytes + magic, length - magic, ret_plan, e);
}

void machine_plan_done(struct machine_plan *p) { guest_done(&shape, p); }
