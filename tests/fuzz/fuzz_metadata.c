/* SPDX-License-Identifier: Apache-2.0 */
/* Requests to the metadata address, and the answers to those that are read. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "network/metadata.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct metadata_key key = { { 1 } };
	static json_t *identity;
	struct metadata_request r;
	struct str response = { 0 };

	if (!identity)
		identity = json_pack("{s:s, s:s, s:i, s:[{s:s, s:s, s:s}], s:[s], s:s}", "id", "a", "hostname", "b", "which", 0,
				     "interfaces", "mac", "02:00:00:00:00:01", "device", "eth0", "ipv4", "10.0.0.1", "ssh-keys",
				     "k", "user-data", "u");
	if (metadata_parse((const char *)data, size, &r, NULL) != 1)
		return 0;
	metadata_answer(&r, identity, 7, &key, 1000, &response);
	if (response.length < 20 || memcmp(response.bytes, "HTTP/1.1 ", 9) != 0)
		abort();
	str_done(&response);
	return 0;
}
