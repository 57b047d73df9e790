/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. What must be equal and what may be more is the whole of memory_check. A device state of QEMU's is read by the same
 * version (across versions QEMU promises it for versioned machine types, but nobody tests all pairs: a refusal that can be
 * lifted later beats a guest with a broken device). A processor may have more than the state needs, never less.
 */
#include "model/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "base/str.h"
#include "model/name.h"
#include "model/spec.h"

static const char *const kind_names[] = { "qemu", "criu", NULL };

static int check_file_name(const char *text, struct err *e)
{
	if (!*text || strchr(text, '/') || *text == '.' || str_eq(text, MEMORY_MANIFEST) || str_ends(text, MEMORY_PACKED))
		return err_set(e, ERR_INVALID, "\"%s\" is no name of a file of a memory state", text);
	return 0;
}

static int check_digest(const char *text, struct err *e)
{
	struct digest d;
	return digest_parse(text, &d, e);
}

#define F(member) offsetof(struct memory_file, member)
static const struct field file_fields[] = {
	{ "name", FIELD_TEXT, F(name), "in the folder", .required = true, .max = 64, .check = check_file_name },
	{ "length", FIELD_NUMBER, F(length), "bytes, holes counted", .required = true },
	{ "digest", FIELD_TEXT, F(digest), "SHA-256 of its bytes", .check = check_digest },
	{ "sparse-digest", FIELD_TEXT, F(sparse), "SHA-256 over the SHA-256 of each chunk that is not zeros",
	  .check = check_digest },
	{ "packed", FIELD_TEXT, F(packed), "digest of its packed form, which is there in its place", .check = check_digest },
	{ "stored", FIELD_NUMBER, F(stored), "bytes of the packed form" },
	{ 0 },
};
static const struct shape file_shape = { "memory-file", sizeof(struct memory_file), file_fields, "A file of a memory state." };

#define V(member) offsetof(struct memory_volume, member)
static const struct field volume_fields[] = {
	{ "name", FIELD_TEXT, V(name), "of the volume", .required = true, .check = name_check },
	{ "size", FIELD_NUMBER, V(size_bytes), "bytes", .required = true },
	{ "generation", FIELD_NUMBER, V(generation), "restores when it was suspended" },
	{ 0 },
};
static const struct shape volume_shape = { "memory-volume", sizeof(struct memory_volume), volume_fields,
					   "A volume that the memory goes with." };

#define M(member) offsetof(struct memory_manifest, member)
static const struct field manifest_fields[] = {
	{ "format", FIELD_NUMBER, M(format), "of this manifest", .required = true, .min = MEMORY_FORMAT, .max = MEMORY_FORMAT },
	{ "kind", FIELD_ENUM, M(kind), "who wrote the files", .required = true, .names = kind_names },
	{ "engine", FIELD_ENUM, M(engine), "what it ran under", .required = true, .names = spec_engine_names },
	{ "workspace", FIELD_TEXT, M(workspace), "id", .required = true, .max = ID_LENGTH },
	{ "run", FIELD_NUMBER, M(run), "number of the run", .required = true },
	{ "paused", FIELD_BOOL, M(paused), "it was paused" },
	{ "taken", FIELD_NUMBER, M(taken_ms), "milliseconds of Unix time", .required = true },
	{ "architecture", FIELD_TEXT, M(architecture), "of the processor", .required = true, .max = 32 },
	{ "program", FIELD_TEXT, M(program), "that wrote the state", .required = true, .max = 64 },
	{ "version", FIELD_TEXT, M(version), "of the program", .required = true, .max = 64 },
	{ "machine", FIELD_TEXT, M(machine), "QEMU's machine type, with its version", .max = 64 },
	{ "processor", FIELD_TEXT, M(processor), "QEMU's processor model", .max = 1024 },
	{ "features", FIELD_TEXTS, M(features), "of the processor that must be there", .max = 1024 },
	{ "kernel", FIELD_TEXT, M(kernel), "kernel partition, or release of the host's kernel", .max = 128 },
	{ "processors", FIELD_NUMBER, M(processors), "of the machine" },
	{ "memory", FIELD_NUMBER, M(memory_bytes), "of the machine, bytes" },
	{ "layout", FIELD_TEXT, M(layout), "SHA-256 of the devices and their places", .check = check_digest },
	{ "partitions", FIELD_TEXTS, M(partitions), "of the image, lowest first", .check = check_digest },
	{ "volumes", FIELD_OBJECTS, M(volumes), "that the memory goes with", .max = 256, .shape = &volume_shape },
	{ "files", FIELD_OBJECTS, M(files), "of the state", .required = true, .max = 4096, .shape = &file_shape },
	{ 0 },
};

static int check_files(const void *value, struct err *e)
{
	const struct memory_manifest *m = value;
	const struct memory_file *files = m->files.items;

	for (size_t i = 0; i < m->files.count; i++)
		if (!files[i].packed != !files[i].stored)
			return err_set(e, ERR_INVALID, "the file \"%s\" is packed, or it is not", files[i].name);
	for (size_t i = 0; i < m->files.count; i++)
		for (size_t k = 0; k < i; k++)
			if (str_eq(files[i].name, files[k].name))
				return err_set(e, ERR_INVALID, "the file \"%s\" is named twice", files[i].name);
	return 0;
}

static const struct shape manifest_shape = { "memory-manifest", sizeof(struct memory_manifest), manifest_fields,
					     "The memory of a suspended workspace.", check_files };

int memory_manifest_decode(const char *bytes, size_t length, const char *source, struct memory_manifest *ret_manifest,
			   struct err *e)
{
	return decode_text(bytes, length, source, &manifest_shape, ret_manifest, e);
}

char *memory_manifest_encode(const struct memory_manifest *m)
{
	json_t *json = encode(&manifest_shape, m);
	char *text = json_dumps(json, JSON_INDENT(1));

	json_decref(json);
	return text;
}

void memory_manifest_done(struct memory_manifest *m) { shape_done(&manifest_shape, m); }

static bool has(const char *const *list, const char *text)
{
	for (; list && *list; list++)
		if (str_eq(*list, text))
			return true;
	return false;
}

static int differs(const char *what, const char *wanted, const char *have, struct err *e)
{
	(void)err_set(e, ERR_UNSUPPORTED, "the memory state is of %s %s, this host has %s", what, wanted, have ? have : "none");
	return err_hint(e, "resume it on a host that has %s %s, or start without it: carrel stop --discard-memory", what,
			wanted);
}

static int check_features(const struct memory_manifest *m, const struct memory_host *h, struct err *e)
{
	for (size_t i = 0; i < m->features.count; i++)
		if (!has(h->features, m->features.items[i]))
			return differs("a processor with", m->features.items[i], "one without", e);
	return 0;
}

int memory_check(const struct memory_manifest *m, const struct memory_host *h, struct err *e)
{
	if (!h->architecture || !str_eq(m->architecture, h->architecture))
		return differs("architecture", m->architecture, h->architecture, e);
	if (!h->program || !str_eq(m->program, h->program))
		return differs("program", m->program, h->program, e);
	if (!h->version || !str_eq(m->version, h->version))
		return differs(m->program, m->version, h->version, e);
	if (m->machine && !has(h->machines, m->machine))
		return differs("machine", m->machine, "others", e);
	if (m->kernel && (!h->kernel || !str_eq(m->kernel, h->kernel)))
		return differs("kernel", m->kernel, h->kernel ? h->kernel : "none", e);
	return check_features(m, h, e);
}

/* --- other hosts --- */

#define P(member) offsetof(struct memory_program, member)
static const struct field program_fields[] = {
	{ "name", FIELD_TEXT, P(name), "of the program", .required = true, .max = 64 },
	{ "version", FIELD_TEXT, P(version), "of the program", .required = true, .max = 64 },
	{ "machines", FIELD_TEXTS, P(machines), "types that it knows", .max = 4096 },
	{ 0 },
};
static const struct shape program_shape = { "memory-program", sizeof(struct memory_program), program_fields,
					    "What writes and reads memory." };

#define H(member) offsetof(struct memory_facts, member)
static const struct field facts_fields[] = {
	{ "architecture", FIELD_TEXT, H(architecture), "of the processor", .required = true, .max = 32 },
	{ "features", FIELD_TEXTS, H(features), "of the processor, and its maker", .max = 4096 },
	{ "programs", FIELD_OBJECTS, H(programs), "that write and read memory", .max = 64, .shape = &program_shape },
	{ 0 },
};
const struct shape memory_facts_shape = { "memory-facts", sizeof(struct memory_facts), facts_fields,
					  "What memory goes on here." };

#define N(member) offsetof(struct memory_needs, member)
static const struct field needs_fields[] = {
	{ "architecture", FIELD_TEXT, N(architecture), "of the processor", .required = true, .max = 32 },
	{ "program", FIELD_TEXT, N(program), "that reads it", .required = true, .max = 64 },
	{ "version", FIELD_TEXT, N(version), "of the program", .required = true, .max = 64 },
	{ "machine", FIELD_TEXT, N(machine), "type of QEMU's", .max = 64 },
	{ "kernel", FIELD_TEXT, N(kernel), "of the host", .max = 128 },
	{ "features", FIELD_TEXTS, N(features), "of the processor", .max = 1024 },
	{ 0 },
};
const struct shape memory_needs_shape = { "memory-needs", sizeof(struct memory_needs), needs_fields,
					  "What memory needs of a host." };

json_t *memory_needs_encode(const struct memory_manifest *m)
{
	const struct memory_needs needs = { m->architecture, m->program, m->version, m->machine, m->kernel, m->features };
	return encode(&memory_needs_shape, &needs);
}

static bool is_newer_criu(const char *program, const char *have, const char *wanted)
{
	unsigned a[3] = { 0 }, b[3] = { 0 };

	if (!str_eq(program, "criu") || sscanf(have, "%u.%u.%u", &a[0], &a[1], &a[2]) < 1 ||
	    sscanf(wanted, "%u.%u.%u", &b[0], &b[1], &b[2]) < 1)
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(a); i++)
		if (a[i] != b[i])
			return a[i] > b[i];
	return true;
}

int memory_check_facts(const struct memory_needs *n, const struct memory_facts *f, struct err *e)
{
	const struct memory_manifest m = { .architecture = n->architecture, .program = n->program, .version = n->version,
					   .machine = n->machine, .kernel = n->kernel, .features = n->features };
	const struct memory_program *programs = f->programs.items, *found = NULL;
	struct texts features = { 0 }, machines = { 0 };

	for (size_t i = 0; i < f->programs.count && !found; i++)
		found = str_eq(programs[i].name, n->program) ? &programs[i] : NULL;
	for (size_t i = 0; i < f->features.count; i++)
		texts_add(&features, f->features.items[i]);
	texts_add(&features, NULL);
	for (size_t i = 0; found && i < found->machines.count; i++)
		texts_add(&machines, found->machines.items[i]);
	texts_add(&machines, NULL);
	bool newer = found && is_newer_criu(n->program, found->version, n->version);
	/* an emulator makes other processors than the host's */
	const struct memory_host host = { .architecture = found && n->machine ? n->architecture : f->architecture,
					  .program = found ? found->name : NULL,
					  .version = newer ? n->version : found ? found->version : NULL, .kernel = n->kernel,
					  .machines = (const char *const *)machines.items,
					  .features = (const char *const *)features.items };
	int r = memory_check(&m, &host, e);
	texts_done(&features);
	texts_done(&machines);
	return r;
}

static bool same_texts(const struct texts *a, const struct texts *b)
{
	if (a->count != b->count)
		return false;
	for (size_t i = 0; i < a->count; i++)
		if (!str_eq(a->items[i], b->items[i]))
			return false;
	return true;
}

int memory_check_workspace(const struct memory_manifest *m, const char *workspace, const struct texts *partitions,
			   uint64_t restores, struct err *e)
{
	const struct memory_volume *volumes = m->volumes.items;

	if (!str_eq(m->workspace, workspace))
		return err_set(e, ERR_CONFLICT, "the memory state is of workspace %s, not of %s", m->workspace, workspace);
	if (!same_texts(&m->partitions, partitions))
		return err_set(e, ERR_CONFLICT, "the memory state is of another image");
	for (size_t i = 0; i < m->volumes.count; i++)
		if (volumes[i].generation != restores)
			return err_set(e, ERR_CONFLICT, "volume %s was restored since the workspace was suspended",
				       volumes[i].name);
	return 0;
}

const struct memory_file *memory_manifest_file(const struct memory_manifest *m, const char *name)
{
	const struct memory_file *files = m->files.items;

	for (size_t i = 0; i < m->files.count; i++)
		if (str_eq(files[i].name, name))
			return &files[i];
	return NULL;
}

uint64_t memory_manifest_bytes(const struct memory_manifest *m)
{
	const struct memory_file *files = m->files.items;
	uint64_t sum = 0;

	for (size_t i = 0; i < m->files.count; i++)
		sum += memory_file_stored(&files[i]);
	return sum;
}

char *memory_file_place(const struct memory_file *f) { return mem_printf("%s%s", f->name, f->packed ? MEMORY_PACKED : ""); }

uint64_t memory_file_stored(const struct memory_file *f) { return f->packed ? f->stored : f->length; }
