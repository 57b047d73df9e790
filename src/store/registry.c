/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A registry is one fetch (a child with the network and no files) and the patience with it: what may be better a moment later
 * is asked for four times, and each attempt that brought bytes begins the count anew, so that a slow and shaky line ends with
 * the whole blob.
 *
 * A blob is hashed while it is written, and what an earlier import left of it is hashed first; the file is therefore believed
 * only as far as the digest says so at the end. A resumed file with a wrong digest is begun once more from nothing, as the old
 * part may be at fault; a fresh one is the registry's fault. Documents are small and kept in memory.
 */
#include "store/registry.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "store/cancel.h"
#include "store/fetch.h"
#include "store/oci.h"

#define ATTEMPTS 4

struct registry {
	struct registry_reference reference;
	struct fetch *fetch;
};

int registry_open(const struct registry_reference *reference, const char *user, const char *password,
		  struct registry **ret_registry, struct err *e)
{
	struct fetch_server server = { .user = user, .password = password };
	struct fetch *fetch;

	registry_reference_base(reference, server.base, sizeof server.base);
	int r = fetch_start(&server, &fetch, e);
	if (r < 0)
		return r;
	struct registry *registry = mem_alloc(sizeof *registry);
	*registry = (struct registry){ *reference, fetch };
	*ret_registry = registry;
	return 0;
}

void registry_free(struct registry *r)
{
	fetch_free(r->fetch);
	free(r);
}

/* Again after 0.5, 1 and 2 seconds when that may help. Progress between two attempts starts the count anew. */
static int fetch_with_patience(struct registry *r, struct fetch_request *request, const struct fetch_sink *sink,
			       uint64_t (*have)(void *data), struct err *e)
{
	int delay_ms = 500;

	for (int attempt = 1;; attempt++) {
		uint64_t before = have ? have(sink->data) : 0;
		request->offset = before;
		int result = fetch_do(r->fetch, request, sink, e);
		if (result == 0 || !e || (e->kind != ERR_UNAVAILABLE && e->kind != ERR_TIMEOUT))
			return result;
		if (have && have(sink->data) > before) {
			attempt = 1;
			delay_ms = 500;
		}
		if (attempt == ATTEMPTS)
			return result;
		struct err cancelled;
		if (cancel_poll(NULL, 0, delay_ms, &cancelled) < 0) {
			*e = cancelled;
			return -e->number;
		}
		delay_ms *= 2;
	}
}

/* --- documents --- */

struct document {
	struct str bytes;
	char media_type[128];
};

static int document_begin(void *data, const struct fetch_head *head, struct err *e)
{
	struct document *d = data;

	(void)e;
	str_clear(&d->bytes);
	memcpy(d->media_type, head->media_type, sizeof d->media_type);
	return 0;
}

static int document_write(void *data, const void *bytes, size_t length, struct err *e)
{
	struct document *d = data;

	(void)e;
	str_add(&d->bytes, bytes, length);
	return 0;
}

static int fetch_document(struct registry *r, struct fetch_request *request, struct document *d, struct err *e)
{
	const struct fetch_sink sink = { document_begin, document_write, d };
	request->timeout_ms = 120000;
	return fetch_with_patience(r, request, &sink, NULL, e);
}

static int check_digest(const char *what, const struct digest *wanted, const struct digest *got, struct err *e)
{
	char a[DIGEST_TEXT_SIZE], b[DIGEST_TEXT_SIZE];

	if (digest_eq(wanted, got))
		return 0;
	return err_set(e, ERR_CORRUPT, "the registry sent %s with the digest %s instead of %s", what, digest_text(got, b),
		       digest_text(wanted, a));
}

static bool manifest_type(const char *media_type)
{
	static const char *const types[] = { MEDIA_OCI_MANIFEST, MEDIA_OCI_INDEX, MEDIA_DOCKER_MANIFEST, MEDIA_DOCKER_INDEX,
					     /* what plain file servers say */
					     "application/json", "application/octet-stream", "" };
	for (size_t i = 0; i < ARRAY_SIZE(types); i++)
		if (str_eq(media_type, types[i]))
			return true;
	return false;
}

static int check_manifest_type(const char *media_type, struct err *e)
{
	if (manifest_type(media_type))
		return 0;
	if (str_starts(media_type, "application/vnd.docker.distribution.manifest.v1"))
		return err_set(e, ERR_UNSUPPORTED,
			       "the registry has only the old schema 1 of this image, which has no digests of its layers");
	(void)err_set(e, ERR_UNSUPPORTED, "the registry answers with '%.100s', which is no image manifest", media_type);
	return err_hint(e, "is the address that of a registry, and is this an image?");
}

int registry_manifest(struct registry *r, const struct digest *wanted, struct str *ret_bytes, struct err *e)
{
	struct fetch_request request = { .most_bytes = OCI_DOCUMENT_BYTES_MOST,
					 .accept = MEDIA_OCI_MANIFEST ", " MEDIA_OCI_INDEX ", " MEDIA_DOCKER_MANIFEST
								      ", " MEDIA_DOCKER_INDEX };
	struct document d = { 0 };
	char text[DIGEST_TEXT_SIZE];

	if (!wanted && r->reference.has_digest)
		wanted = &r->reference.digest;
	(void)snprintf(request.path, sizeof request.path, "/v2/%s/manifests/%s", r->reference.repository,
		       wanted ? digest_text(wanted, text) : r->reference.tag);
	int result = fetch_document(r, &request, &d, e);
	if (result == 0)
		result = check_manifest_type(d.media_type, e);
	if (result == 0 && wanted) {
		struct digest got = hash_bytes(str_text(&d.bytes), d.bytes.length);
		result = check_digest("a manifest", wanted, &got, e);
	}
	if (result < 0) {
		str_done(&d.bytes);
		return err_wrap(e, "%s/%s:%s", r->reference.host, r->reference.repository, wanted ? text : r->reference.tag);
	}
	*ret_bytes = d.bytes;
	return 0;
}

static void blob_path(const struct registry *r, const struct digest *d, struct fetch_request *request)
{
	char text[DIGEST_TEXT_SIZE];
	(void)snprintf(request->path, sizeof request->path, "/v2/%s/blobs/%s", r->reference.repository, digest_text(d, text));
}

int registry_document(struct registry *r, const struct digest *wanted, uint64_t size_bytes, struct str *ret_bytes,
		      struct err *e)
{
	struct fetch_request request = { .most_bytes = size_bytes, .exact = true };
	struct document d = { 0 };

	if (size_bytes > OCI_DOCUMENT_BYTES_MOST)
		return err_set(e, ERR_TOO_LARGE, "the image's configuration has %llu bytes, at most 4 MiB are read",
			       (unsigned long long)size_bytes);
	blob_path(r, wanted, &request);
	int result = fetch_document(r, &request, &d, e);
	if (result == 0) {
		struct digest got = hash_bytes(str_text(&d.bytes), d.bytes.length);
		result = check_digest("a configuration", wanted, &got, e);
	}
	if (result < 0) {
		str_done(&d.bytes);
		return err_wrap(e, "%s/%s: configuration", r->reference.host, r->reference.repository);
	}
	*ret_bytes = d.bytes;
	return 0;
}

/* --- blobs --- */

struct blob {
	int fd;
	struct hash *hash; /* of the first have_bytes of the file */
	uint64_t have_bytes, resumed_bytes;
	registry_progress_fn *progress;
	void *data;
};

static uint64_t blob_have(void *data) { return ((struct blob *)data)->have_bytes; }

static int blob_restart(struct blob *b, struct err *e)
{
	if (ftruncate(b->fd, 0) < 0 || lseek(b->fd, 0, SEEK_SET) < 0)
		return err_errno(e, errno, "empty the file of the download");
	(void)hash_end(b->hash);
	b->have_bytes = b->resumed_bytes = 0;
	return 0;
}

static int blob_begin(void *data, const struct fetch_head *head, struct err *e)
{
	struct blob *b = data;
	return head->offset == b->have_bytes ? 0 : blob_restart(b, e);
}

static int blob_write(void *data, const void *bytes, size_t length, struct err *e)
{
	struct blob *b = data;
	int r = fs_write_all(b->fd, bytes, length, e);

	if (r < 0)
		return err_wrap(e, "store the download");
	hash_add(b->hash, bytes, length);
	b->have_bytes += length;
	b->progress(b->data, b->have_bytes, b->resumed_bytes);
	return 0;
}

/* Hashes what an earlier import left. */
static int blob_resume(struct blob *b, uint64_t size_bytes, struct err *e)
{
	enum { block = 1 << 18 };
	own_str char *buffer = mem_alloc(block);
	struct stat st;

	if (fstat(b->fd, &st) < 0 || lseek(b->fd, 0, SEEK_SET) < 0)
		return err_errno(e, errno, "look at the file of the download");
	if ((uint64_t)st.st_size > size_bytes)
		return blob_restart(b, e);
	for (ssize_t n; (n = read(b->fd, buffer, block)) != 0;) {
		if (n < 0)
			return err_errno(e, errno, "read the file of the download");
		hash_add(b->hash, buffer, (size_t)n);
		b->have_bytes += (uint64_t)n;
	}
	b->resumed_bytes = b->have_bytes;
	b->progress(b->data, b->have_bytes, b->resumed_bytes);
	return 0;
}

/* Not a byte is asked for when all are there. */
static int blob_complete(struct registry *r, struct blob *b, const struct digest *wanted, uint64_t size_bytes, struct err *e)
{
	struct fetch_request request = { .most_bytes = size_bytes, .exact = true };
	const struct fetch_sink sink = { blob_begin, blob_write, b };

	blob_path(r, wanted, &request);
	int result = b->have_bytes < size_bytes || size_bytes == 0 ? fetch_with_patience(r, &request, &sink, blob_have, e) : 0;
	if (result < 0)
		return result;
	if (b->have_bytes != size_bytes)
		return err_set(e, ERR_CORRUPT, "the registry sent %llu bytes, the manifest says %llu",
			       (unsigned long long)b->have_bytes, (unsigned long long)size_bytes);
	struct digest got = hash_end(b->hash);
	result = check_digest("a layer", wanted, &got, e);
	if (result < 0 && blob_restart(b, NULL) < 0)
		b->have_bytes = 0;
	return result;
}

int registry_blob(struct registry *r, const struct digest *wanted, uint64_t size_bytes, int fd, registry_progress_fn *progress,
		  void *data, struct err *e)
{
	own_hash struct hash *hash = hash_new();
	struct blob b = { .fd = fd, .hash = hash, .progress = progress, .data = data };
	char text[DIGEST_TEXT_SIZE];

	int result = blob_resume(&b, size_bytes, e);
	bool resumed = b.resumed_bytes > 0;
	if (result == 0)
		result = blob_complete(r, &b, wanted, size_bytes, e);
	/* what an earlier import left may have been damaged since: once more, from the first byte */
	if (result == -EBADMSG && resumed && (result = blob_restart(&b, e)) == 0)
		result = blob_complete(r, &b, wanted, size_bytes, e);
	return result < 0 ?
		       err_wrap(e, "%s/%s: layer %s", r->reference.host, r->reference.repository, digest_text(wanted, text)) :
		       0;
}
