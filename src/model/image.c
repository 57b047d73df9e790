/* SPDX-License-Identifier: Apache-2.0 */
#include "model/image.h"

#include <stddef.h>

#include "base/mem.h"

#define R(member) offsetof(struct image_run, member)
static const struct field run_fields[] = {
	{ "Entrypoint", FIELD_TEXTS, R(entrypoint), "program that is always run" },
	{ "Cmd", FIELD_TEXTS, R(command), "arguments of the entry point, or the command" },
	{ "Env", FIELD_TEXTS, R(environment), "environment, KEY=value" },
	{ "User", FIELD_TEXT, R(user), "user[:group]", .max = 256 },
	{ "WorkingDir", FIELD_TEXT, R(directory), "working directory" },
	{ "StopSignal", FIELD_TEXT, R(stop_signal), "signal that asks the program to end", .max = 32 },
	{ "Labels", FIELD_PAIRS, R(labels), "labels" },
	{ 0 },
};
const struct shape image_run_shape = { "image-run", sizeof(struct image_run), run_fields,
				       "What an image runs (OCI image configuration).", .open = true };

#define P(member) offsetof(struct image_partition, member)
static const struct field partition_fields[] = {
	{ "digest", FIELD_TEXT, P(digest), "SHA-256 of the plain bytes", .required = true, .max = 71 },
	{ "size", FIELD_BYTES, P(size_bytes), "bytes", .required = true },
	{ 0 },
};
const struct shape image_partition_shape = { "image-partition", sizeof(struct image_partition), partition_fields,
					     "A partition of an image." };

#define I(member) offsetof(struct image, member)
static const struct field image_fields[] = {
	{ "name", FIELD_TEXT, I(name), "name[:tag]" },
	{ "digest", FIELD_TEXT, I(digest), "digest of the manifest", .required = true, .max = 71 },
	{ "architecture", FIELD_TEXT, I(architecture), "processor, as OCI names it" },
	{ "partitions", FIELD_OBJECTS, I(partitions), "lowest first", .shape = &image_partition_shape, .max = 256 },
	{ "run", FIELD_OBJECT, I(run), "what it runs", .shape = &image_run_shape },
	{ "machine", FIELD_OBJECT, I(machine), "it is made of disks, and what these need", .shape = &image_machine_shape },
	{ "kernel", FIELD_TEXT, I(kernel), "release, when it is a kernel for machines", .max = 128 },
	{ "init", FIELD_BOOL, I(init), "brings an init for a full system" },
	{ "size", FIELD_BYTES, I(size_bytes), "bytes of all partitions" },
	{ "created", FIELD_NUMBER, I(created_ms), "time of the import, milliseconds of Unix time" },
	{ "owner", FIELD_NUMBER, I(owner_uid), "user id of the owner" },
	{ 0 },
};
const struct shape image_shape = { "image", sizeof(struct image), image_fields, "An image in the store." };

void image_done(struct image *i) { shape_done(&image_shape, i); }

struct image_run *image_run_copy(const struct image_run *run)
{
	struct image_run *copy = mem_alloc(sizeof *copy);
	json_t *json = run ? encode(&image_run_shape, run) : json_object();

	if (decode_json(json, "run", &image_run_shape, copy, NULL) < 0)
		*copy = (struct image_run){ 0 }; /* it was decoded once: this does not happen */
	json_decref(json);
	return copy;
}
