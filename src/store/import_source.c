/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. A registry and a layout are one kind of source: both give documents and blobs by digest. From the root document the
 * way is index -> manifest -> configuration -> layers; the archive of `docker save` names configuration and layers at once.
 */
#include "store/import_job_private.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "model/registry_login.h"

#define NESTED_INDEXES_MOST 3

/* --- documents --- */

static int source_manifest(struct job *j, const struct digest *d, struct str *ret_bytes, struct err *e)
{
	const struct layout_file *f;

	if (j->registry)
		return registry_manifest(j->registry, d, ret_bytes, e);
	int r = layout_blob(j->layout, d, &f, e);
	return r == 0 ? layout_document(j->layout, f, ret_bytes, e) : r;
}

static int source_config(struct job *j, const struct digest *d, uint64_t size_bytes, struct str *ret_bytes, struct err *e)
{
	const struct layout_file *f;

	if (j->registry)
		return registry_document(j->registry, d, size_bytes, ret_bytes, e);
	int r = layout_blob(j->layout, d, &f, e);
	if (r == 0 && f->size_bytes != size_bytes)
		r = err_set(e, ERR_CORRUPT, "%s has %llu bytes, the manifest says %llu", f->name,
			    (unsigned long long)f->size_bytes, (unsigned long long)size_bytes);
	return r == 0 ? layout_document(j->layout, f, ret_bytes, e) : r;
}

static int read_chosen(struct job *j, const struct oci_descriptor *chosen, struct oci_document *ret_document, struct err *e)
{
	own_strbuf struct str bytes = { 0 };
	struct digest d;

	int r = digest_parse(chosen->digest, &d, e);
	if (r == 0)
		r = source_manifest(j, &d, &bytes, e);
	if (r == 0 && bytes.length != chosen->size_bytes)
		r = err_set(e, ERR_CORRUPT, "the manifest %s has %zu bytes, the index says %llu", chosen->digest, bytes.length,
			    (unsigned long long)chosen->size_bytes);
	return r == 0 ? oci_read_document(&bytes, "manifest", ret_document, e) : r;
}

/* Replaces an index by the manifest in it, as often as they are nested. `tagged`: the first one is that of a layout. */
static int descend(struct job *j, struct oci_document *d, bool tagged, struct err *e)
{
	for (int depth = 0; oci_is_index(d); depth++) {
		const struct oci_descriptor *chosen;
		struct oci_document next = { 0 };
		if (depth == NESTED_INDEXES_MOST)
			return err_set(e, ERR_INVALID, "more than %d indexes are nested", NESTED_INDEXES_MOST);
		int r = tagged && depth == 0 ? oci_select_tag(d, j->request->reference, &chosen, e) :
					       oci_select(d, job_architecture(j), &chosen, e);
		if (r == 0)
			r = read_chosen(j, chosen, &next, e);
		if (r < 0)
			return r;
		shape_done(&oci_document_shape, d);
		*d = next;
	}
	return 0;
}

/* --- what the manifest says --- */

static int check_architecture(struct job *j, struct err *e)
{
	const char *wanted = job_architecture(j);
	const char *slash = strchr(wanted, '/');
	size_t length = slash ? (size_t)(slash - wanted) : strlen(wanted);

	if (strlen(j->config.architecture) == length && memcmp(j->config.architecture, wanted, length) == 0)
		return 0;
	(void)err_set(e, ERR_INVALID, "the image is for %.60s, not for %.60s", j->config.architecture, wanted);
	return err_hint(e, "to import it nevertheless, ask for the architecture %.60s", j->config.architecture);
}

static int take_config(struct job *j, const struct str *bytes, size_t layer_count, struct err *e)
{
	int r = oci_read_config(bytes, "configuration", &j->config, e);

	if (r == 0)
		r = check_architecture(j, e);
	if (r < 0)
		return r;
	if (j->config.rootfs->diff_ids.count != layer_count)
		return err_set(e, ERR_CORRUPT, "the image has %zu layers, its configuration names %zu", layer_count,
			       j->config.rootfs->diff_ids.count);
	j->layers = mem_alloc_array(layer_count, sizeof *j->layers);
	j->layer_count = layer_count;
	for (size_t i = 0; r == 0 && i < layer_count; i++) {
		j->layers[i].has_diff_id = true;
		r = digest_parse(j->config.rootfs->diff_ids.items[i], &j->layers[i].diff_id, e);
	}
	return r;
}

static int take_manifest(struct job *j, const struct oci_document *d, struct err *e)
{
	own_strbuf struct str bytes = { 0 };
	const struct oci_descriptor *layers = d->layers.items;
	struct digest config;

	int r = digest_parse(d->config->digest, &config, e);
	if (r == 0 && d->layers.count == 0)
		r = err_set(e, ERR_INVALID, "the image has no layers");
	if (r == 0)
		r = source_config(j, &config, d->config->size_bytes, &bytes, e);
	if (r == 0)
		r = take_config(j, &bytes, d->layers.count, e);
	r = r < 0 ? r : oci_read_machine(&d->annotations, &j->machine, e);
	for (size_t i = 0; r == 0 && i < d->layers.count; i++) {
		struct job_layer *l = &j->layers[i];
		l->size_bytes = layers[i].size_bytes;
		j->progress.total_bytes += l->size_bytes;
		r = oci_layer_kind(&layers[i], &l->kind, e);
		if (r == 0)
			r = digest_parse(layers[i].digest, &l->digest, e);
		if (r == 0 && i && (l->kind == OCI_LAYER_DISK) != j->of_disks)
			r = err_set(e, ERR_UNSUPPORTED, "the image has disks and layers of a file system");
		j->of_disks = l->kind == OCI_LAYER_DISK;
	}
	return r;
}

static int resolve(struct job *j, const struct str *root, bool tagged, struct err *e)
{
	struct oci_document d = { 0 };

	int r = oci_read_document(root, tagged ? "index.json" : "manifest", &d, e);
	if (r == 0)
		r = descend(j, &d, tagged, e);
	if (r == 0)
		r = take_manifest(j, &d, e);
	shape_done(&oci_document_shape, &d);
	return r;
}

/* --- docker save --- */

static int take_saved_image(struct job *j, const struct oci_saved_image *image, struct err *e)
{
	own_strbuf struct str bytes = { 0 };
	const struct layout_file *f = layout_find(j->layout, image->config);

	int r = f ? layout_document(j->layout, f, &bytes, e) : err_set(e, ERR_CORRUPT, "the archive has no %s", image->config);
	if (r == 0)
		r = take_config(j, &bytes, image->layers.count, e);
	for (size_t i = 0; r == 0 && i < image->layers.count; i++) {
		f = layout_find(j->layout, image->layers.items[i]);
		if (!f)
			return err_set(e, ERR_CORRUPT, "the archive has no %s", image->layers.items[i]);
		j->layers[i].file = f->name;
		j->layers[i].digest = f->digest;
		j->layers[i].size_bytes = f->size_bytes;
		j->progress.total_bytes += f->size_bytes;
	}
	return r;
}

static int resolve_saved(struct job *j, const struct layout_file *manifest, struct err *e)
{
	own_strbuf struct str bytes = { 0 };
	struct oci_saved saved = { 0 };
	const struct oci_saved_image *image;

	int r = layout_document(j->layout, manifest, &bytes, e);
	if (r == 0)
		r = oci_read_saved(&bytes, "manifest.json", &saved, e);
	if (r == 0)
		r = oci_choose_saved(&saved, j->request->reference, &image, e);
	if (r == 0)
		r = take_saved_image(j, image, e);
	shape_done(&oci_saved_shape, &saved);
	return r;
}

/* --- the two sources --- */

static int find_login(struct job *j, const char *host, struct registry_login *ret_login, struct err *e)
{
	own_strbuf struct str file = { 0 };

	if (j->request->user) {
		ret_login->user = mem_strdup(j->request->user);
		ret_login->password = mem_strdup(j->request->password ? j->request->password : "");
		return 0;
	}
	if (!j->request->auth_file)
		return 0;
	int r = fs_read_file(AT_FDCWD, j->request->auth_file, 1 << 20, &file, e);
	if (r == 0)
		r = registry_login_find(str_text(&file), file.length, host, ret_login, e);
	if (file.bytes)
		explicit_bzero(file.bytes, file.length);
	return r;
}

int job_open_registry(struct job *j, struct err *e)
{
	own_strbuf struct str root = { 0 };
	struct registry_reference reference;
	struct registry_login login = { 0 };

	if (!j->request->reference)
		return err_set(e, ERR_INVALID, "an import from a registry needs a reference");
	int r = registry_reference_parse(j->request->reference, &reference, e);
	if (r == 0)
		r = find_login(j, reference.host, &login, e);
	if (r == 0)
		r = registry_open(&reference, login.user, login.password, &j->registry, e);
	if (r == 0)
		r = registry_manifest(j->registry, NULL, &root, e);
	if (r == 0)
		r = resolve(j, &root, false, e);
	registry_login_done(&login);
	return r;
}

int job_open_layout(struct job *j, struct err *e)
{
	own_strbuf struct str root = { 0 };

	job_step(j, "fetch");
	int r = layout_read(j->session, j->input_fd, job_uploaded, j, &j->layout, e);
	if (r < 0)
		return r;
	j->progress.done_bytes = 0;
	const struct layout_file *index = layout_find(j->layout, "index.json"),
				 *saved = layout_find(j->layout, "manifest.json");
	if (!index && saved)
		return resolve_saved(j, saved, e);
	if (!index) {
		(void)err_set(e, ERR_INVALID,
			      "the archive is no image: it has neither index.json nor manifest.json at its top");
		return err_hint(e, "a tar of a file system is imported with the format tar");
	}
	r = layout_document(j->layout, index, &root, e);
	return r == 0 ? resolve(j, &root, true, e) : r;
}
