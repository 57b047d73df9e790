/* SPDX-License-Identifier: Apache-2.0 */
/* Specs from outside: document reader, decoder, and that what was accepted survives encoding. */
#include <stdint.h>
#include <stdlib.h>

#include "model/spec.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
	struct spec spec, again = { 0 };
	struct err e;

	if (spec_parse((const char *)bytes, length, "fuzz", &spec, &e) < 0)
		return 0;
	json_t *json = encode(&spec_shape, &spec);
	if (decode_json(json, "again", &spec_shape, &again, &e) < 0)
		abort();
	json_t *json_again = encode(&spec_shape, &again);
	if (!json_equal(json, json_again))
		abort();
	json_decref(json);
	json_decref(json_again);
	spec_done(&spec);
	spec_done(&again);
	return 0;
}
