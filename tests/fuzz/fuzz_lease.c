/* SPDX-License-Identifier: Apache-2.0 */
/* DHCP frames as they pass a port; the first byte says which way. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "network/lease.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct lease_said said;

	if (!size)
		return 0;
	lease_read(data + 1, size - 1, data[0] & 1, &said);
	bool towards = data[0] & 1;
	if (said.word > LEASE_RETURNED || (said.word == LEASE_RETURNED && towards) ||
	    (said.word != LEASE_NOTHING && said.word != LEASE_RETURNED && !towards))
		abort();
	struct lease_held held;
	struct lease_holder port = { .held = &held, .count = 1 };
	memcpy(port.mac, said.sender, sizeof port.mac);
	memcpy(held.address, said.address, sizeof held.address);
	if (lease_counts(&said, &port) &&
	    (said.word == LEASE_NOTHING || (!towards && memcmp(said.mac, said.sender, sizeof said.mac) != 0)))
		abort();
	return 0;
}
