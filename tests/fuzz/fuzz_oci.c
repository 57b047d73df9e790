/* SPDX-License-Identifier: Apache-2.0 */
/* Manifests, indexes, configurations and docker save's list, and the choices made from them. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "store/oci.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static void document(const char *bytes, size_t length)
{
	struct oci_document d = { 0 };
	const struct oci_descriptor *chosen;
	enum oci_layer_kind kind;
	struct err e;

	if (oci_parse_document(bytes, length, "fuzz", &d, &e) < 0)
		return;
	if (oci_is_index(&d)) {
		if (oci_select(&d, "arm/v7", &chosen, &e) == 0 && !chosen->digest)
			abort();
		if (oci_select_tag(&d, "latest", &chosen, &e) == 0 && !chosen->digest)
			abort();
	}
	for (size_t i = 0; i < d.layers.count; i++)
		if (oci_layer_kind((struct oci_descriptor *)d.layers.items + i, &kind, &e) < 0 && !e.message[0])
			abort();
	shape_done(&oci_document_shape, &d);
}

/* What was accepted can be written, and is read again. */
static void config(const char *bytes, size_t length)
{
	struct oci_config c = { 0 }, again = { 0 };
	struct digest none = { { 0 } };
	struct err e;

	if (oci_parse_config(bytes, length, "fuzz", &c, &e) < 0)
		return;
	char *text = oci_write_config(c.architecture, c.run, &none, 1);
	if (oci_parse_config(text, strlen(text), "again", &again, &e) < 0)
		abort();
	free(text);
	shape_done(&oci_config_shape, &c);
	shape_done(&oci_config_shape, &again);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
	struct oci_saved saved = { 0 };

	document((const char *)bytes, length);
	config((const char *)bytes, length);
	if (oci_parse_saved((const char *)bytes, length, "fuzz", &saved, NULL) == 0)
		shape_done(&oci_saved_shape, &saved);
	return 0;
}
