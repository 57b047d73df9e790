/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. When the documents are there (import_source.c), each layer, in order:
 * - its partition is known (layers map): reused;
 * - else its bytes are fetched into a partial file (registry), which is locked, or are in the session (layout);
 * - it is converted by a child; two conversions run beside the next download.
 * Two imports of one layer: the second waits for the lock of the partial file and then finds the partition. While it waits it
 * holds no lock itself - its own conversions are ended first - so imports never wait for each other in a circle. At the end a
 * configuration and a manifest of our own are written, whose digests depend on nothing but content.
 */
#include "store/import_job_private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/own.h"
#include "store/cancel.h"
#include "store/import_disk.h"
#include "store/import_kernel.h"

struct job *job_new(struct store *store, struct store_session *session, const struct import_wire *request, int input_fd,
		    job_progress_fn *progress, void *data)
{
	struct job *j = mem_alloc(sizeof *j);

	*j = (struct job){ .store = store, .session = session, .request = request, .input_fd = input_fd, .report = progress,
			   .report_data = data, .progress = { .step = "resolve" } };
	for (size_t i = 0; i < CONVERSIONS; i++)
		j->slots[i].partial_fd = -1;
	return j;
}

void job_free(struct job *j)
{
	for (size_t i = 0; i < CONVERSIONS; i++) {
		if (j->slots[i].conversion)
			layer_conversion_free(j->slots[i].conversion);
		if (j->slots[i].partial_fd >= 0)
			(void)close(j->slots[i].partial_fd);
	}
	if (j->registry)
		registry_free(j->registry);
	if (j->layout)
		layout_free(j->layout);
	shape_done(&oci_config_shape, &j->config);
	pairs_done(&j->kernel_run.labels);
	free(j->layers);
	free(j);
}

void job_step(struct job *j, const char *name)
{
	j->progress.step = name;
	j->report(j->report_data, &j->progress);
}

void job_uploaded(void *job, uint64_t done_bytes)
{
	struct job *j = job;
	j->progress.done_bytes = done_bytes;
	j->report(j->report_data, &j->progress);
}

static int injected(const char *point, struct err *e)
{
	int number = fault_point(point);
	return number ? err_errno(e, number, "%s", point) : 0;
}

const char *job_architecture(const struct job *j)
{
	return j->kernel_architecture[0] ? j->kernel_architecture :
	       j->request->architecture  ? j->request->architecture :
					   oci_machine_architecture();
}

/* --- layers --- */

static void settle(struct job *j, struct job_layer *l, bool reused)
{
	j->settled_bytes += l->size_bytes;
	j->progress.done_bytes = j->settled_bytes;
	if (reused)
		j->progress.reused_bytes += l->size_bytes;
	j->report(j->report_data, &j->progress);
}

static int check_conversion(const struct job_layer *l, const struct layer_result *got, struct err *e)
{
	char a[DIGEST_TEXT_SIZE], b[DIGEST_TEXT_SIZE];

	if (l->kind == OCI_LAYER_PARTITION) {
		if (digest_eq(&got->partition, &l->digest))
			return 0;
		(void)err_set(e, ERR_CORRUPT, "the partition %s was not made by Carrel's own writer",
			      digest_text(&l->digest, a));
		return err_hint(e, "a partition from outside is accepted only when its content, written anew, gives the same "
				   "bytes");
	}
	if (!l->has_diff_id || digest_eq(&got->plain, &l->diff_id))
		return 0;
	return err_set(e, ERR_CORRUPT, "a layer has the plain digest %s, the configuration says %s",
		       digest_text(&got->plain, a), digest_text(&l->diff_id, b));
}

/* The slot's conversion has ended: its partition goes into the store. */
static int finish_conversion(struct job *j, struct slot *s, struct err *e)
{
	struct job_layer *l = s->layer;
	struct layer_result result;

	int r = layer_conversion_finish(s->conversion, &result, e);
	if (r == 0)
		r = check_conversion(l, &result, e);
	if (r == 0)
		r = injected("import-converted", e);
	if (r == 0)
		r = layer_conversion_put(s->conversion, j->session, &result, e);
	if (r >= 0) /* 1: another layer had given the same partition */
		r = injected("import-partition-put", e);
	if (r == 0 && l->size_bytes)
		r = store_layer_record(j->session, &l->digest, &result.partition, e);
	if (r == 0 && s->partial_fd >= 0)
		r = store_partial_remove(j->store, &l->digest, e);
	layer_conversion_free(TAKE(s->conversion));
	if (s->partial_fd >= 0)
		(void)close(TAKE_FD(s->partial_fd));
	if (r < 0)
		return r;
	l->partition = result.partition;
	l->partition_bytes = result.partition_bytes;
	return 0;
}

/* Of a file (not of a pipe, whose writer counts itself) the descriptor that the converter shares tells how far it is. */
static void report_position(struct job *j)
{
	off_t at = j->request->format == IMPORT_TAR && j->progress.total_bytes ? lseek(j->input_fd, 0, SEEK_CUR) : -1;

	if (at < 0)
		return;
	j->progress.done_bytes = (uint64_t)at;
	j->report(j->report_data, &j->progress);
}

/* Waits for one conversion, or a moment; 0 when none runs. */
static int await_one(struct job *j, struct err *e)
{
	struct pollfd fds[CONVERSIONS];
	size_t running = 0;

	for (size_t i = 0; i < CONVERSIONS; i++) {
		fds[i] = (struct pollfd){ .fd = -1, .events = POLLIN };
		if (j->slots[i].conversion) {
			fds[i].fd = layer_conversion_fd(j->slots[i].conversion);
			running++;
		}
	}
	if (running == 0)
		return 0;
	int r = cancel_poll(fds, CONVERSIONS, 100, e);
	report_position(j);
	for (size_t i = 0; r >= 0 && i < CONVERSIONS; i++)
		if (fds[i].fd >= 0 && fds[i].revents)
			r = finish_conversion(j, &j->slots[i], e);
	return r < 0 ? r : 1;
}

static int await_all(struct job *j, struct err *e)
{
	int r = 1;
	while (r > 0)
		r = await_one(j, e);
	return r;
}

static int free_slot(struct job *j, struct slot **ret_slot, struct err *e)
{
	for (;;) {
		for (size_t i = 0; i < CONVERSIONS; i++) {
			if (!j->slots[i].conversion) {
				*ret_slot = &j->slots[i];
				return 0;
			}
		}
		int r = await_one(j, e);
		if (r < 0)
			return r;
	}
}

static void disk_progress(void *data, const char *name, uint64_t done_bytes, uint64_t total_bytes)
{
	struct job *j = data;

	j->progress.step = name;
	j->progress.done_bytes = done_bytes;
	j->progress.total_bytes = total_bytes;
	j->report(j->report_data, &j->progress);
}

static struct disk_import how_disk(struct job *j, int input_fd, bool raw)
{
	return (struct disk_import){ j->session, input_fd, raw, j->request->limits.layer_bytes, disk_progress, j };
}

/* One that came as a layer of an image: its bytes are the partition's. */
static int take_disk(struct job *j, struct job_layer *l, const char *name, int input_fd, struct err *e)
{
	const struct disk_import how = how_disk(j, input_fd, true);
	int r = disk_import_raw(&how, name, &l->digest, &l->partition_bytes, e);

	l->partition = l->digest;
	return r;
}

static int convert(struct job *j, struct job_layer *l, int input_fd, int partial_fd, struct err *e)
{
	own_fd int partial = partial_fd;
	struct slot *s;
	char name[32];

	(void)snprintf(name, sizeof name, "partition-%zu", (size_t)(l - j->layers));
	if (l->kind == OCI_LAYER_DISK) {
		int taken = take_disk(j, l, name, input_fd, e);
		return taken == 0 && partial >= 0 ? store_partial_remove(j->store, &l->digest, e) : taken;
	}

	int r = free_slot(j, &s, e);
	if (r == 0)
		r = injected("import-before-convert", e);
	if (r < 0)
		return r;
	r = layer_conversion_start(j->session, name, input_fd, l->kind == OCI_LAYER_PARTITION, &j->request->limits,
				   &s->conversion, e);
	if (r < 0)
		return r;
	s->layer = l;
	s->partial_fd = TAKE_FD(partial);
	return 0;
}

static bool same_is_running(const struct job *j, const struct job_layer *l)
{
	for (size_t i = 0; i < CONVERSIONS; i++)
		if (j->slots[i].conversion && digest_eq(&j->slots[i].layer->digest, &l->digest))
			return true;
	return false;
}

/* 1: the layer's partition was there. */
static int reuse(struct job *j, struct job_layer *l, struct err *e)
{
	int r = same_is_running(j, l) ? await_all(j, e) : 0;

	if (r == 0)
		r = store_layer_find(j->session, &l->digest, &l->partition, &l->partition_bytes, e);
	if (r == 0 && l->kind != OCI_LAYER_TAR) { /* it is a partition, which something else may have brought */
		l->partition = l->digest;
		r = store_partition_find(j->session, &l->digest, &l->partition_bytes, e);
	}
	if (r == 1) {
		settle(j, l, true);
		r = store_partial_drop(j->store, &l->digest, e) < 0 ? -e->number : 1;
	}
	return r;
}

static void fetch_progress(void *data, uint64_t done_bytes, uint64_t resumed_bytes)
{
	struct job *j = data;
	j->resumed_bytes = resumed_bytes;
	j->progress.done_bytes = j->settled_bytes + done_bytes;
	j->report(j->report_data, &j->progress);
}

/* 1: *ret_fd is the locked file of the download. 0: another import had it and has brought the layer meanwhile. */
static int lock_download(struct job *j, struct job_layer *l, int *ret_fd, struct err *e)
{
	int r = store_partial_open(j->store, &l->digest, ret_fd, e);

	if (r == 0)
		r = await_all(j, e); /* hold no lock while waiting for one */
	else if (r > 0)
		return 1;
	while (r == 0) {
		r = store_partial_open(j->store, &l->digest, ret_fd, e);
		if (r == 0)
			r = cancel_poll(NULL, 0, 100, e);
	}
	if (r < 0)
		return r;
	r = reuse(j, l, e);
	if (r == 0)
		return 1;
	if (r > 0 && store_partial_remove(j->store, &l->digest, e) < 0)
		r = -EIO;
	(void)close(TAKE_FD(*ret_fd));
	return r < 0 ? r : 0;
}

static void forget_download(struct job *j, const struct job_layer *l) /* who cancels wants nothing to be left */
{
	struct err e;
	if (store_partial_remove(j->store, &l->digest, &e) < 0)
		log_error(&e, "cancel");
}

static int fetch_layer(struct job *j, struct job_layer *l, struct err *e)
{
	own_fd int fd = -1;

	int r = lock_download(j, l, &fd, e);
	if (r <= 0)
		return r;
	r = registry_blob(j->registry, &l->digest, l->size_bytes, fd, fetch_progress, j, e);
	if (r == 0)
		r = injected("import-fetched", e);
	if (r == -ECANCELED)
		forget_download(j, l);
	if (r < 0)
		return r;
	j->progress.reused_bytes += j->resumed_bytes;
	settle(j, l, false);
	own_fd int input = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (input < 0 || lseek(input, 0, SEEK_SET) < 0)
		return err_errno(e, errno, "read the download");
	return convert(j, l, input, TAKE_FD(fd), e);
}

static int unpack_layer(struct job *j, struct job_layer *l, struct err *e)
{
	const struct layout_file *f = l->file ? layout_find(j->layout, l->file) : NULL;
	own_fd int fd = -1;

	int r = l->file ? 0 : layout_blob(j->layout, &l->digest, &f, e);
	if (r == 0 && f->size_bytes != l->size_bytes)
		return err_set(e, ERR_CORRUPT, "%s has %llu bytes, the manifest says %llu", f->name,
			       (unsigned long long)f->size_bytes, (unsigned long long)l->size_bytes);
	if (r == 0)
		r = layout_open(j->layout, f, &fd, e);
	if (r < 0)
		return r;
	settle(j, l, false);
	return convert(j, l, fd, -1, e);
}

static int bring_layers(struct job *j, struct err *e)
{
	int r = 0;

	job_step(j, "fetch");
	for (size_t i = 0; r >= 0 && i < j->layer_count; i++) {
		struct job_layer *l = &j->layers[i];
		r = reuse(j, l, e);
		if (r == 0)
			r = j->registry ? fetch_layer(j, l, e) : unpack_layer(j, l, e);
	}
	if (r >= 0)
		job_step(j, "convert");
	r = r < 0 ? r : await_all(j, e);
	for (size_t i = 0; r == -ECANCELED && i < CONVERSIONS; i++)
		if (j->slots[i].partial_fd >= 0)
			forget_download(j, j->slots[i].layer);
	return r;
}

static void one_layer(struct job *j) { j->layers = mem_alloc_array(j->layer_count = 1, sizeof *j->layers); }

/* A bare tar is one layer; it is converted as it arrives. */
static int bring_tar(struct job *j, struct err *e)
{
	struct stat st;

	one_layer(j);
	if (fstat(j->input_fd, &st) == 0 && S_ISREG(st.st_mode))
		j->progress.total_bytes = (uint64_t)st.st_size;
	job_step(j, "convert");
	int r = convert(j, j->layers, j->input_fd, -1, e);
	return r == 0 ? await_all(j, e) : r;
}

/* --- disks --- */

static bool is_disk(const struct job *j)
{
	return j->of_disks || j->request->format == IMPORT_DISK || j->request->format == IMPORT_RAW;
}

static int bring_disk(struct job *j, struct err *e)
{
	const struct disk_import how = how_disk(j, j->input_fd, j->request->format == IMPORT_RAW);
	struct disk_imported disks;
	int r = disk_import(&how, &disks, e);
	if (r < 0)
		return r;
	j->layer_count = disks.count;
	j->layers = mem_alloc_array(disks.count, sizeof *j->layers);
	for (size_t i = 0; i < disks.count; i++) {
		j->layers[i].partition = disks.partitions[i].digest;
		j->layers[i].partition_bytes = disks.partitions[i].bytes;
	}
	j->machine = disks.machine;
	disk_import_override(&j->machine, j->request->machine);
	return 0;
}

static int bring_kernel(struct job *j, struct err *e)
{
	struct kernel_about about;

	one_layer(j);
	job_step(j, "convert");
	int r = import_kernel(j->session, j->input_fd, job_uploaded, j, &j->layers->partition, &j->layers->partition_bytes,
			      &about, e);
	if (r >= 0) {
		memcpy(j->kernel_architecture, about.architecture, sizeof j->kernel_architecture);
		pairs_set(&j->kernel_run.labels, IMAGE_LABEL_KERNEL_RELEASE, about.release);
	}
	return r;
}

/* --- the image --- */

static int put_documents(struct job *j, const struct image_run *run, struct digest *ret_manifest, struct err *e)
{
	own_str struct digest *ids = mem_alloc_array(j->layer_count, sizeof *ids);
	own_str struct oci_layer *layers = mem_alloc_array(j->layer_count, sizeof *layers);
	struct digest config;

	for (size_t i = 0; i < j->layer_count; i++) {
		ids[i] = j->layers[i].partition;
		layers[i] = (struct oci_layer){ is_disk(j) ? MEDIA_PARTITION_RAW : MEDIA_PARTITION_EROFS,
						j->layers[i].partition, j->layers[i].partition_bytes };
	}
	own_str char *config_text = oci_write_config(job_architecture(j), run, ids, j->layer_count);
	int r = store_put_bytes(j->session, STORE_BLOB, config_text, strlen(config_text), &config, e);
	if (r < 0)
		return r;
	own_str char *manifest = oci_write_manifest(&config, strlen(config_text), layers, j->layer_count,
						    is_disk(j) ? &j->machine : NULL);
	return store_put_bytes(j->session, STORE_BLOB, manifest, strlen(manifest), ret_manifest, e);
}

static int find_init(struct job *j, bool *ret_init, struct err *e)
{
	own_str int *fds = mem_alloc_array(j->layer_count, sizeof *fds);
	size_t opened = 0;
	int r = 0;

	if (j->request->init != IMPORT_INIT_DETECT) {
		*ret_init = j->request->init == IMPORT_INIT_YES;
		return 0;
	}
	for (; r == 0 && opened < j->layer_count; opened++)
		if ((r = store_get(j->store, STORE_PARTITION, &j->layers[opened].partition, &fds[opened], NULL, e)) < 0)
			break;
	if (r == 0)
		r = layer_stack_has_init(fds, opened, ret_init, e);
	while (opened > 0)
		(void)close(fds[--opened]);
	return r;
}

static int describe(struct job *j, const struct image_run *run, const struct digest *manifest, struct image *ret_image,
		    struct err *e)
{
	char text[DIGEST_TEXT_SIZE];
	struct image image = { .digest = mem_strdup(digest_text(manifest, text)),
			       .architecture = mem_strdup(job_architecture(j)), .run = image_run_copy(run) };
	struct image_partition *partitions = mem_alloc_array(j->layer_count, sizeof *partitions);

	for (size_t i = 0; i < j->layer_count; i++) {
		partitions[i] = (struct image_partition){ mem_strdup(digest_text(&j->layers[i].partition, text)),
							  j->layers[i].partition_bytes };
		image.size_bytes += j->layers[i].partition_bytes;
	}
	image.partitions = (struct objects){ partitions, j->layer_count };
	if (is_disk(j))
		image.machine = mem_dup(&j->machine, sizeof j->machine);
	int r = is_disk(j) ? 0 : import_kernel_recognize(j->store, &image, &image.kernel, e);
	if (r >= 0 && !image.kernel && !is_disk(j))
		r = find_init(j, &image.init, e);
	if (r < 0) {
		image_done(&image);
		return r;
	}
	*ret_image = image;
	return 0;
}

int job_run(struct job *j, struct image *ret_image, struct err *e)
{
	struct digest manifest;
	int r;

	job_step(j, "resolve");
	if (j->request->format == IMPORT_TAR)
		r = bring_tar(j, e);
	else if (j->request->format == IMPORT_DISK || j->request->format == IMPORT_RAW)
		r = bring_disk(j, e);
	else if (j->request->format == IMPORT_KERNEL)
		r = bring_kernel(j, e);
	else {
		r = j->request->format == IMPORT_REGISTRY ? job_open_registry(j, e) : job_open_layout(j, e);
		if (r == 0)
			r = bring_layers(j, e);
	}
	if (r < 0)
		return r;
	job_step(j, "finish");
	bool tar = j->request->format == IMPORT_TAR, kernel = j->request->format == IMPORT_KERNEL;
	const struct image_run *run = kernel ? &j->kernel_run : tar ? j->request->run : j->config.run;
	r = put_documents(j, run, &manifest, e);
	return r == 0 ? describe(j, run, &manifest, ret_image, e) : r;
}
