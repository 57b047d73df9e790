/* SPDX-License-Identifier: Apache-2.0 */
#include "../test.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "store/oci_reader.h"

static struct err e;

#define HEX  "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define DESCRIPTOR(type) "{\"mediaType\":\"" type "\",\"digest\":\"sha256:" HEX "\",\"size\":1"
#define MANIFEST                                                                                                               \
	"{\"schemaVersion\":2,\"mediaType\":\"" MEDIA_OCI_MANIFEST "\",\"config\":" DESCRIPTOR(MEDIA_OCI_CONFIG) "},"          \
	"\"layers\":[" DESCRIPTOR(MEDIA_OCI_LAYER "+gzip") "}],\"annotations\":{\"x\":\"\\ud83d\\ude00\"}}"

static int read_text(const char *text, struct oci_document *ret)
{
	struct str bytes = { (char *)(uintptr_t)text, strlen(text), 0 };
	return oci_read_document(&bytes, "manifest", ret, &e);
}

static void test_manifest(void **state)
{
	struct oci_document d = { 0 };
	enum oci_layer_kind kind;

	(void)state;
	assert_ok(read_text(MANIFEST, &d), &e);
	assert_false(oci_is_index(&d));
	assert_int_equal(d.layers.count, 1);
	assert_ok(oci_layer_kind(d.layers.items, &kind, &e), &e);
	assert_int_equal(kind, OCI_LAYER_TAR);
	shape_done(&oci_document_shape, &d);
}

static void test_bad_documents(void **state)
{
	struct oci_document d = { 0 };
	static const char both[] = "{\"schemaVersion\":2,\"config\":" DESCRIPTOR("x") "},\"layers\":[],\"manifests\":[]}";

	(void)state;
	assert_fails(read_text("", &d), &e, ERR_CORRUPT, "not JSON");
	assert_fails(read_text("schemaVersion: 2", &d), &e, ERR_CORRUPT, "not JSON"); /* YAML is no answer of a registry */
	assert_fails(read_text("{\"schemaVersion\":2}", &d), &e, ERR_CORRUPT, "neither");
	assert_fails(read_text("{\"schemaVersion\":1}", &d), &e, ERR_UNSUPPORTED, "schema 1");
	assert_fails(read_text(both, &d), &e, ERR_CORRUPT, "at once");
	assert_fails(read_text("{\"schemaVersion\":2,\"schemaVersion\":2}", &d), &e, ERR_CORRUPT, "duplicate");
	assert_fails(read_text("{\"schemaVersion\":2,\"mediaType\":\"" MEDIA_OCI_INDEX "\",\"config\":" DESCRIPTOR("x") "}}",
			       &d), &e, ERR_CORRUPT, "not what its media type");
	assert_fails(read_text("{\"schemaVersion\":2,\"mediaType\":\"text/html\",\"manifests\":[]}", &d), &e, ERR_UNSUPPORTED,
		     "text/html");
	assert_fails(
		read_text("{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":\"a\",\"digest\":\"sha256:12\",\"size\":1}]}",
			  &d),
		&e, ERR_INVALID, "hex");
	assert_fails(read_text("{\"schemaVersion\":2,\"manifests\":[" DESCRIPTOR("a") "},5]}", &d), &e, ERR_INVALID, "map");
	assert_fails(read_text("{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":\"a\",\"digest\":\"sha256:" HEX
			       "\",\"size\":-1}]}",
			       &d),
		     &e, ERR_INVALID, "size");
}

static void test_huge_documents(void **state)
{
	struct oci_document d = { 0 };
	own_strbuf struct str deep = { 0 }, wide = { 0 };

	(void)state;
	for (int i = 0; i < 3000; i++)
		str_puts(&deep, "{\"a\":");
	assert_fails(read_text(str_text(&deep), &d), &e, ERR_CORRUPT, "not JSON");
	str_reserve(&wide, 5 << 20);
	memset(wide.bytes, ' ', 5 << 20);
	wide.length = 5 << 20;
	assert_fails(oci_read_document(&wide, "manifest", &d, &e), &e, ERR_TOO_LARGE, "4 MiB");
}


static const char index_text[] =
	"{\"schemaVersion\":2,\"manifests\":["
	DESCRIPTOR("a") ",\"platform\":{\"os\":\"windows\",\"architecture\":\"amd64\"}},"
	DESCRIPTOR("b") ",\"platform\":{\"os\":\"linux\",\"architecture\":\"amd64\"}},"
	DESCRIPTOR("c") ",\"platform\":{\"os\":\"linux\",\"architecture\":\"arm\",\"variant\":\"v6\"}},"
	DESCRIPTOR("d") ",\"platform\":{\"os\":\"linux\",\"architecture\":\"arm\",\"variant\":\"v7\"}},"
	DESCRIPTOR("e") ",\"platform\":{\"os\":\"unknown\",\"architecture\":\"unknown\"},\"annotations\":{\"org.opencontainers.image.ref.name\":\"t\"}}]}";

static void test_selection(void **state)
{
	struct oci_document d = { 0 };
	const struct oci_descriptor *chosen;

	(void)state;
	assert_ok(read_text(index_text, &d), &e);
	assert_ok(oci_select(&d, "amd64", &chosen, &e), &e);
	assert_string_equal(chosen->media_type, "b");
	assert_ok(oci_select(&d, "arm", &chosen, &e), &e);
	assert_string_equal(chosen->media_type, "c");
	assert_ok(oci_select(&d, "arm/v7", &chosen, &e), &e);
	assert_string_equal(chosen->media_type, "d");
	assert_fails(oci_select(&d, "riscv64", &chosen, &e), &e, ERR_NOT_FOUND, "riscv64");
	assert_string_equal(e.hint, "there are: windows/amd64, linux/amd64, linux/arm/v6, linux/arm/v7");
	assert_ok(oci_select_tag(&d, "t", &chosen, &e), &e);
	assert_string_equal(chosen->media_type, "e");
	assert_fails(oci_select_tag(&d, "u", &chosen, &e), &e, ERR_NOT_FOUND, "'u'");
	assert_fails(oci_select_tag(&d, NULL, &chosen, &e), &e, ERR_INVALID, "5 images");
	shape_done(&oci_document_shape, &d);
}

static void test_layer_kinds(void **state)
{
	enum oci_layer_kind kind;
	struct oci_descriptor d = { .media_type = (char *)(uintptr_t)MEDIA_PARTITION_EROFS };

	(void)state;
	assert_ok(oci_layer_kind(&d, &kind, &e), &e);
	assert_int_equal(kind, OCI_LAYER_PARTITION);
	d.media_type = (char *)(uintptr_t)"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
	assert_fails(oci_layer_kind(&d, &kind, &e), &e, ERR_UNSUPPORTED, "foreign");
	d.media_type = (char *)(uintptr_t)"application/vnd.in-toto+json";
	assert_fails(oci_layer_kind(&d, &kind, &e), &e, ERR_UNSUPPORTED, "in-toto");
}

static int read_config(const char *text, struct oci_config *ret)
{
	struct str bytes = { (char *)(uintptr_t)text, strlen(text), 0 };
	return oci_read_config(&bytes, "config", ret, &e);
}

static void test_config(void **state)
{
	struct oci_config c = { 0 };
	struct digest d = hash_bytes("", 0);

	(void)state;
	assert_ok(read_config("{\"architecture\":\"amd64\",\"os\":\"linux\",\"history\":[{}],\"config\":{\"Env\":[\"A=b\"],\"Cmd\":[\"sh\"],"
			      "\"Entrypoint\":null,\"User\":\"\",\"Labels\":null,\"ExposedPorts\":{\"80/tcp\":{}}},"
			      "\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"sha256:" HEX "\"]}}",
			      &c),
		  &e);
	assert_null(c.run->user);
	assert_string_equal(c.run->command.items[0], "sh");
	own_str char *text = oci_write_config("amd64", c.run, &d, 1);
	assert_string_equal(text,
			    "{\"architecture\":\"amd64\",\"config\":{\"Cmd\":[\"sh\"],\"Env\":[\"A=b\"]},\"os\":\"linux\","
			    "\"rootfs\":{\"diff_ids\":[\"sha256:" HEX "\"],\"type\":\"layers\"}}");
	shape_done(&oci_config_shape, &c);
	assert_ok(read_config(text, &c), &e);
	shape_done(&oci_config_shape, &c);
	assert_fails(read_config("{\"architecture\":\"amd64\",\"os\":\"windows\",\"rootfs\":{}}", &c), &e, ERR_UNSUPPORTED,
		     "windows");
	assert_fails(read_config("{\"os\":\"linux\"}", &c), &e, ERR_INVALID, "missing");
}

static void test_written_manifest_is_read(void **state)
{
	struct digest d = hash_bytes("", 0);
	struct oci_layer layer = { MEDIA_PARTITION_EROFS, d, 4096 };
	own_str char *text = oci_write_manifest(&d, 7, &layer, 1, NULL), *index = oci_write_index(&d, 9, "web:1");
	struct oci_document m = { 0 }, i = { 0 };
	const struct oci_descriptor *chosen;

	(void)state;
	assert_ok(read_text(text, &m), &e);
	assert_int_equal(((struct oci_descriptor *)m.layers.items)->size_bytes, 4096);
	assert_ok(read_text(index, &i), &e);
	assert_ok(oci_select_tag(&i, "web:1", &chosen, &e), &e);
	assert_int_equal(chosen->size_bytes, 9);
	shape_done(&oci_document_shape, &m);
	shape_done(&oci_document_shape, &i);
}

static void test_saved(void **state)
{
	static const char text[] = "[{\"Config\":\"a.json\",\"RepoTags\":[\"x:1\"],\"Layers\":[\"b/layer.tar\"]}]";
	struct str bytes = { (char *)(uintptr_t)text, sizeof text - 1, 0 };
	struct oci_saved s = { 0 };

	(void)state;
	assert_ok(oci_read_saved(&bytes, "manifest.json", &s, &e), &e);
	assert_int_equal(s.images.count, 1);
	assert_string_equal(((struct oci_saved_image *)s.images.items)->layers.items[0], "b/layer.tar");
	shape_done(&oci_saved_shape, &s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_manifest),    cmocka_unit_test(test_bad_documents), cmocka_unit_test(test_huge_documents),
		cmocka_unit_test(test_selection),   cmocka_unit_test(test_layer_kinds),	  cmocka_unit_test(test_config),
		cmocka_unit_test(test_written_manifest_is_read), cmocka_unit_test(test_saved),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
