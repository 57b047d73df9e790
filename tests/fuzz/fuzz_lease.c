/* SPDX-License-Identifier: Apache-2.0 */
/* DHCP frames as they pass a port; the first byte says which way. */
#include <stdint.h>
#include <stdlib.h>

#include "network/lease.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct lease_said said;

	if (!size)
		return 0;
	lease_read(data + 1, size - 1, data[0] & 1, &said);
	bool towards = data[0] & 1;
	if (said.word > LEASE_RETURNED || (said.word == LEASE_RETURNED && towards) || (said.word != LEASE_NOTHING && said.word != LEASE_RETURNED && !towards))
		abort();
	return 0;
}
