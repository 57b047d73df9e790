/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. OCI demands that unknown keys are ignored, so the shapes are open. Bytes go through jansson first, which refuses what
 * is not JSON (a YAML reader alone would take more), and are then decoded by the field tables. A document that is manifest and
 * index at once is refused: readers that disagree about its kind could be shown two different images under one digest
 * (CVE-2021-41190).
 */
#include "store/oci.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "base/doc.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"

#define D(member) offsetof(struct oci_descriptor, member)
#define P(member) offsetof(struct oci_platform, member)
static const struct field platform_fields[] = {
	{ "architecture", FIELD_TEXT, P(architecture), "processor", .max = 64 },
	{ "os", FIELD_TEXT, P(os), "operating system", .max = 64 },
	{ "variant", FIELD_TEXT, P(variant), "variant of the processor", .max = 64 },
	{ 0 },
};
static const struct shape platform_shape = { "oci-platform", sizeof(struct oci_platform), platform_fields, "OCI platform.",
					     .open = true };

static int check_digest(const char *text, struct err *e)
{
	struct digest d;
	return digest_parse(text, &d, e);
}

static const struct field descriptor_fields[] = {
	{ "mediaType", FIELD_TEXT, D(media_type), "media type", .required = true, .max = 255 },
	{ "digest", FIELD_TEXT, D(digest), "digest", .required = true, .max = 200, .check = check_digest },
	{ "size", FIELD_NUMBER, D(size_bytes), "bytes", .required = true, .max = OCI_LAYER_BYTES_MOST },
	{ "platform", FIELD_OBJECT, D(platform), "platform", .shape = &platform_shape },
	{ "annotations", FIELD_PAIRS, D(annotations), "annotations" },
	{ 0 },
};
static const struct shape descriptor_shape = { "oci-descriptor", sizeof(struct oci_descriptor), descriptor_fields,
					       "OCI descriptor.", .open = true };

#define M(member) offsetof(struct oci_document, member)
static const struct field document_fields[] = {
	{ "schemaVersion", FIELD_NUMBER, M(schema), "always 2", .required = true, .max = 1000 },
	{ "mediaType", FIELD_TEXT, M(media_type), "media type", .max = 255 },
	{ "config", FIELD_OBJECT, M(config), "configuration", .shape = &descriptor_shape },
	{ "layers", FIELD_OBJECTS, M(layers), "layers", .shape = &descriptor_shape, .max = OCI_LAYERS_MOST },
	{ "manifests", FIELD_OBJECTS, M(manifests), "manifests of an index", .shape = &descriptor_shape, .max = 1024 },
	{ "annotations", FIELD_PAIRS, M(annotations), "annotations" },
	{ 0 },
};
const struct shape oci_document_shape = { "oci-document", sizeof(struct oci_document), document_fields,
					  "OCI manifest or index.", .open = true };

#define F(member) offsetof(struct oci_rootfs, member)
static const struct field rootfs_fields[] = {
	{ "type", FIELD_TEXT, F(type), "layers", .max = 32 },
	{ "diff_ids", FIELD_TEXTS, F(diff_ids), "digests of the plain layers", .max = OCI_LAYERS_MOST, .check = check_digest },
	{ 0 },
};
static const struct shape rootfs_shape = { "oci-rootfs", sizeof(struct oci_rootfs), rootfs_fields, "OCI rootfs.",
					   .open = true };

#define C(member) offsetof(struct oci_config, member)
static const struct field config_fields[] = {
	{ "architecture", FIELD_TEXT, C(architecture), "processor", .required = true, .max = 64 },
	{ "os", FIELD_TEXT, C(os), "operating system", .required = true, .max = 64 },
	{ "variant", FIELD_TEXT, C(variant), "variant of the processor", .max = 64 },
	{ "config", FIELD_OBJECT, C(run), "what it runs", .shape = &image_run_shape },
	{ "rootfs", FIELD_OBJECT, C(rootfs), "layers", .required = true, .shape = &rootfs_shape },
	{ 0 },
};
const struct shape oci_config_shape = { "oci-config", sizeof(struct oci_config), config_fields, "OCI image configuration.",
					.open = true };

#define S(member) offsetof(struct oci_saved_image, member)
static const struct field saved_image_fields[] = {
	{ "Config", FIELD_TEXT, S(config), "file of the configuration", .required = true, .max = 200 },
	{ "RepoTags", FIELD_TEXTS, S(tags), "names" },
	{ "Layers", FIELD_TEXTS, S(layers), "files of the layers", .required = true, .max = OCI_LAYERS_MOST },
	{ 0 },
};
static const struct shape saved_image_shape = { "docker-saved-image", sizeof(struct oci_saved_image), saved_image_fields,
						"One image of docker save.", .open = true };
static const struct field saved_fields[] = {
	{ "images", FIELD_OBJECTS, offsetof(struct oci_saved, images), "images", .required = true,
	  .shape = &saved_image_shape },
	{ 0 },
};
const struct shape oci_saved_shape = { "docker-saved", sizeof(struct oci_saved), saved_fields,
				       "manifest.json of docker save." };

/* --- reading --- */

static const struct doc_limits limits = { .bytes = 4 * OCI_DOCUMENT_BYTES_MOST, .nodes = 200000, .depth = 32 };

static json_t *load(const char *bytes, size_t length, const char *source, struct err *e)
{
	json_error_t why;

	if (length > OCI_DOCUMENT_BYTES_MOST) {
		(void)err_set(e, ERR_TOO_LARGE, "%s has %zu bytes, at most 4 MiB are read", source, length);
		return NULL;
	}
	json_t *json = json_loadb(bytes, length, JSON_REJECT_DUPLICATES, &why);
	if (!json)
		(void)err_set(e, ERR_CORRUPT, "%s is not JSON: line %d: %s", source, why.line, why.text);
	return json;
}

static int decode_loaded(json_t *json, const char *source, const struct shape *shape, void *ret_value, struct err *e)
{
	own_doc struct doc *d = NULL;
	own_str char *text = json_dumps(json, JSON_COMPACT);

	int r = text ? doc_parse(text, strlen(text), source, &limits, &d, e) :
		       err_set(e, ERR_CORRUPT, "%s is not UTF-8 text", source);
	if (r == 0)
		r = decode(d, shape, source, ret_value, e);
	return r;
}

static int parse(const char *bytes, size_t length, const char *source, const struct shape *shape, void *ret_value,
		 struct err *e)
{
	json_t *json = load(bytes, length, source, e);
	int r = json ? decode_loaded(json, source, shape, ret_value, e) : -EBADMSG;

	json_decref(json);
	return r;
}

static int check_document(const struct oci_document *d, const char *source, struct err *e)
{
	if (d->schema == 1) {
		(void)err_set(e, ERR_UNSUPPORTED, "%s has the old schema 1, which has no digests of its layers", source);
		return err_hint(e, "push the image again with a newer tool: docker, podman or skopeo write schema 2 and OCI");
	}
	if (d->schema != 2)
		return err_set(e, ERR_UNSUPPORTED, "%s has schemaVersion %llu, 2 is known", source,
			       (unsigned long long)d->schema);
	if (d->config && d->manifests.items)
		return err_set(e, ERR_CORRUPT, "%s is a manifest and an index at once", source);
	if (!d->config && d->layers.items)
		return err_set(e, ERR_CORRUPT, "%s has layers but no configuration", source);
	bool index = d->media_type && (str_eq(d->media_type, MEDIA_OCI_INDEX) || str_eq(d->media_type, MEDIA_DOCKER_INDEX));
	bool manifest = d->media_type &&
			(str_eq(d->media_type, MEDIA_OCI_MANIFEST) || str_eq(d->media_type, MEDIA_DOCKER_MANIFEST));
	if (d->media_type && !index && !manifest)
		return err_set(e, ERR_UNSUPPORTED, "%s has the media type %.100s, which is no image", source, d->media_type);
	if ((index && d->config) || (manifest && !d->config))
		return err_set(e, ERR_CORRUPT, "%s is not what its media type %s says", source, d->media_type);
	if (!d->config && !d->manifests.items)
		return err_set(e, ERR_CORRUPT, "%s is neither a manifest nor an index", source);
	return 0;
}

int oci_parse_document(const char *bytes, size_t length, const char *source, struct oci_document *ret_document, struct err *e)
{
	int r = parse(bytes, length, source, &oci_document_shape, ret_document, e);
	if (r == 0 && (r = check_document(ret_document, source, e)) < 0)
		shape_done(&oci_document_shape, ret_document);
	return r;
}

static void drop_empty(char **text)
{
	if (*text && !**text) {
		free(*text);
		*text = NULL;
	}
}

int oci_parse_config(const char *bytes, size_t length, const char *source, struct oci_config *ret_config, struct err *e)
{
	int r = parse(bytes, length, source, &oci_config_shape, ret_config, e);

	if (r < 0)
		return r;
	if (!str_eq(ret_config->os, "linux")) {
		r = err_set(e, ERR_UNSUPPORTED, "%s is for the operating system '%.60s', not linux", source, ret_config->os);
		shape_done(&oci_config_shape, ret_config);
		return r;
	}
	if (ret_config->run) { /* tools write "" for what is not given */
		drop_empty(&ret_config->run->user);
		drop_empty(&ret_config->run->directory);
		drop_empty(&ret_config->run->stop_signal);
	}
	return 0;
}

int oci_parse_saved(const char *bytes, size_t length, const char *source, struct oci_saved *ret_saved, struct err *e)
{
	json_t *list = load(bytes, length, source, e);
	if (!list)
		return -EBADMSG;
	json_t *wrapped = json_pack("{s:o}", "images", list);
	int r = decode_loaded(wrapped, source, &oci_saved_shape, ret_saved, e);
	json_decref(wrapped);
	return r;
}

/* --- choosing --- */

const char *oci_machine_architecture(void)
{
	static const char *const names[][2] = { { "x86_64", "amd64" },	 { "aarch64", "arm64" }, { "armv7l", "arm/v7" },
						{ "armv6l", "arm/v6" },	 { "i686", "386" },	 { "i386", "386" },
						{ "ppc64le", "ppc64le" }, { "s390x", "s390x" },	 { "riscv64", "riscv64" },
						{ "loongarch64", "loong64" } };
	struct utsname machine;

	if (uname(&machine) == 0)
		for (size_t i = 0; i < ARRAY_SIZE(names); i++)
			if (str_eq(machine.machine, names[i][0]))
				return names[i][1];
	return "amd64";
}

/* 2: architecture and variant; 1: the architecture, no variant asked or given; 0: another. */
static int platform_rank(const struct oci_platform *p, const char *architecture)
{
	const char *slash = strchr(architecture, '/');
	size_t length = slash ? (size_t)(slash - architecture) : strlen(architecture);

	if (!p || !str_eq(p->os, "linux") || !p->architecture || strlen(p->architecture) != length ||
	    memcmp(p->architecture, architecture, length) != 0)
		return 0;
	if (slash && p->variant)
		return str_eq(p->variant, slash + 1) ? 2 : 0;
	return 1;
}

static int none_for(const struct oci_document *index, const char *architecture, struct err *e)
{
	own_strbuf struct str all = { 0 };
	const struct oci_descriptor *m = index->manifests.items;

	for (size_t i = 0; i < index->manifests.count && all.length < 300; i++)
		if (m[i].platform && m[i].platform->os && m[i].platform->architecture && !str_eq(m[i].platform->os, "unknown"))
			str_printf(&all, "%s%s/%s%s%s", all.length ? ", " : "", m[i].platform->os, m[i].platform->architecture,
				   m[i].platform->variant ? "/" : "", m[i].platform->variant ? m[i].platform->variant : "");
	(void)err_set(e, ERR_NOT_FOUND, "there is no image for linux/%.60s in the index", architecture);
	return err_hint(e, "there are: %s", all.length ? all.bytes : "none");
}

int oci_select(const struct oci_document *index, const char *architecture, const struct oci_descriptor **ret_chosen,
	       struct err *e)
{
	const struct oci_descriptor *m = index->manifests.items, *best = NULL;
	int best_rank = 0;

	for (size_t i = 0; i < index->manifests.count; i++) {
		int rank = platform_rank(m[i].platform, architecture);
		if (rank > best_rank) {
			best_rank = rank;
			best = &m[i];
		}
	}
	/* an index of one manifest need not say for which platform: the configuration does */
	if (!best && index->manifests.count == 1 && !m[0].platform)
		best = &m[0];
	if (!best)
		return none_for(index, architecture, e);
	*ret_chosen = best;
	return 0;
}

#define REF_NAME "org.opencontainers.image.ref.name"

int oci_select_tag(const struct oci_document *index, const char *tag, const struct oci_descriptor **ret_chosen, struct err *e)
{
	const struct oci_descriptor *m = index->manifests.items;
	own_strbuf struct str all = { 0 };

	if (!tag && index->manifests.count == 1) {
		*ret_chosen = &m[0];
		return 0;
	}
	for (size_t i = 0; i < index->manifests.count; i++) {
		const char *name = pairs_get(&m[i].annotations, REF_NAME);
		if (tag && name && str_eq(name, tag)) {
			*ret_chosen = &m[i];
			return 0;
		}
		if (all.length < 300)
			str_printf(&all, "%s%s", all.length ? ", " : "", name ? name : m[i].digest);
	}
	if (tag)
		(void)err_set(e, ERR_NOT_FOUND, "the layout has no image '%.100s'", tag);
	else
		(void)err_set(e, ERR_INVALID, "the layout has %zu images; say which", index->manifests.count);
	return err_hint(e, "there are: %s", all.length ? all.bytes : "none");
}

int oci_choose_saved(const struct oci_saved *saved, const char *tag, const struct oci_saved_image **ret_image, struct err *e)
{
	const struct oci_saved_image *images = saved->images.items;

	if (!tag && saved->images.count == 1) {
		*ret_image = &images[0];
		return 0;
	}
	for (size_t i = 0; tag && i < saved->images.count; i++) {
		for (size_t k = 0; k < images[i].tags.count; k++) {
			if (str_eq(images[i].tags.items[k], tag)) {
				*ret_image = &images[i];
				return 0;
			}
		}
	}
	return tag ? err_set(e, ERR_NOT_FOUND, "the archive has no image '%.100s'", tag) :
		     err_set(e, ERR_INVALID, "the archive has %zu images; say which", saved->images.count);
}

int oci_layer_kind(const struct oci_descriptor *layer, enum oci_layer_kind *ret_kind, struct err *e)
{
	static const char *const tars[] = {
		MEDIA_OCI_LAYER,
		MEDIA_OCI_LAYER "+gzip",
		MEDIA_OCI_LAYER "+zstd",
		"application/vnd.docker.image.rootfs.diff.tar",
		"application/vnd.docker.image.rootfs.diff.tar.gzip",
		"application/vnd.docker.image.rootfs.diff.tar.zstd",
	};

	if (str_eq(layer->media_type, MEDIA_PARTITION_EROFS)) {
		*ret_kind = OCI_LAYER_PARTITION;
		return 0;
	}
	if (str_eq(layer->media_type, MEDIA_PARTITION_RAW)) {
		*ret_kind = OCI_LAYER_DISK;
		return 0;
	}
	for (size_t i = 0; i < ARRAY_SIZE(tars); i++) {
		if (str_eq(layer->media_type, tars[i])) {
			*ret_kind = OCI_LAYER_TAR;
			return 0;
		}
	}
	(void)err_set(e, ERR_UNSUPPORTED, "a layer has the media type '%.120s', which is no layer of a file system",
		      layer->media_type);
	return err_hint(e,
			"foreign (nondistributable) and encrypted layers and artifacts that are no images cannot be imported");
}

/* --- writing --- */

static char *dump(json_t *json)
{
	char *text = json_dumps(json, JSON_COMPACT | JSON_SORT_KEYS);
	json_decref(json);
	if (!text)
		abort(); /* only without memory: every text in it was decoded as UTF-8 */
	return text;
}

char *oci_write_config(const char *architecture, const struct image_run *run, const struct digest *diff_ids, size_t count)
{
	char text[DIGEST_TEXT_SIZE];
	json_t *ids = json_array(), *config = json_object();
	const char *slash = strchr(architecture, '/');

	for (size_t i = 0; i < count; i++)
		(void)json_array_append_new(ids, json_string(digest_text(&diff_ids[i], text)));
	(void)json_object_set_new(config, "architecture",
				  json_stringn(architecture, slash ? (size_t)(slash - architecture) : strlen(architecture)));
	if (slash)
		(void)json_object_set_new(config, "variant", json_string(slash + 1));
	(void)json_object_set_new(config, "os", json_string("linux"));
	(void)json_object_set_new(config, "config", run ? encode(&image_run_shape, run) : json_object());
	(void)json_object_set_new(config, "rootfs", json_pack("{s:s,s:o}", "type", "layers", "diff_ids", ids));
	return dump(config);
}

static json_t *descriptor(const char *media_type, const struct digest *d, uint64_t size_bytes)
{
	char text[DIGEST_TEXT_SIZE];
	return json_pack("{s:s,s:s,s:I}", "mediaType", media_type, "digest", digest_text(d, text), "size",
			 (json_int_t)size_bytes);
}

#define MACHINE_PREFIX "vnd.carrel.machine."

int oci_read_machine(const struct pairs *annotations, struct image_machine *ret_machine, struct err *e)
{
	json_t *fields = json_object();

	for (size_t i = 0; i < annotations->count; i++) {
		const char *key = annotations->items[i].key, *text = annotations->items[i].value;
		if (!str_starts(key, MACHINE_PREFIX))
			continue;
		json_t *value = json_loads(text, JSON_DECODE_ANY, NULL);
		(void)json_object_set_new(fields, key + strlen(MACHINE_PREFIX),
					  json_is_number(value) ? json_incref(value) : json_string(text));
		json_decref(value);
	}
	own_str char *text = dump(fields);
	return decode_text(text, strlen(text), "manifest", &image_machine_shape, ret_machine, e);
}

/* Annotations are texts: each field of `machine` as its JSON has it, under a name of our own. */
static json_t *machine_annotations(const struct image_machine *machine)
{
	json_t *fields = encode(&image_machine_shape, machine), *annotations = json_object(), *value;
	const char *key;

	json_object_foreach(fields, key, value) {
		own_str char *name = mem_printf(MACHINE_PREFIX "%s", key);
		own_str char *text = json_is_string(value) ? mem_strdup(json_string_value(value)) :
							     json_dumps(value, JSON_ENCODE_ANY);
		(void)json_object_set_new(annotations, name, json_string(text));
	}
	json_decref(fields);
	return annotations;
}

char *oci_write_manifest(const struct digest *config, size_t config_bytes, const struct oci_layer *layers, size_t count,
			 const struct image_machine *machine)
{
	json_t *list = json_array(), *manifest;

	for (size_t i = 0; i < count; i++)
		(void)json_array_append_new(list, descriptor(layers[i].media_type, &layers[i].digest, layers[i].size_bytes));
	manifest = json_pack("{s:i,s:s,s:o,s:o}", "schemaVersion", 2, "mediaType", MEDIA_OCI_MANIFEST, "config",
			     descriptor(MEDIA_OCI_CONFIG, config, config_bytes), "layers", list);
	if (machine)
		(void)json_object_set_new(manifest, "annotations", machine_annotations(machine));
	return dump(manifest);
}

char *oci_write_index(const struct digest *manifest, size_t manifest_bytes, const char *tag)
{
	json_t *one = descriptor(MEDIA_OCI_MANIFEST, manifest, manifest_bytes);

	if (tag)
		(void)json_object_set_new(one, "annotations", json_pack("{s:s}", REF_NAME, tag));
	return dump(json_pack("{s:i,s:s,s:[o]}", "schemaVersion", 2, "mediaType", MEDIA_OCI_INDEX, "manifests", one));
}
