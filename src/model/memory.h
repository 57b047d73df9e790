/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MODEL_MEMORY_H
#define MODEL_MEMORY_H

/*
 * A memory state: what a suspended workspace keeps besides its volumes (docs/formats/memory.md). It is a folder with files and,
 * written last, `manifest.json`: without that the state does not exist. The manifest binds what the bytes depend on - program
 * and version, machine, processor, partitions, volumes - so that a host that differs in one of them refuses before it has
 * touched anything.
 */

#include "base/decode.h"
#include "model/memory_place.h"

#define MEMORY_FORMAT 1

enum memory_kind { MEMORY_QEMU, MEMORY_CRIU };

struct memory_file {
	char *name;       /* in the folder; no slash */
	uint64_t length;
	char *digest;     /* "sha256:HEX" of its bytes, or NULL */
	/* the same of base/sparse.h, or NULL. Neither: only the length is known yet (docs/formats/memory.md) */
	char *sparse;
	/* "sha256:HEX" that stands for a packed file (docs/formats/memory-pack.md), which is there in its place; NULL: none */
	char *packed;
	uint64_t stored;  /* bytes of that */
};

struct memory_volume {
	char *name;          /* "root", or as in the spec */
	uint64_t size_bytes;
	uint64_t generation; /* restores of the workspace when it was suspended: a restore in between makes the state useless */
};

struct memory_manifest {
	uint64_t format;       /* MEMORY_FORMAT */
	unsigned kind;         /* enum memory_kind */
	unsigned engine;       /* enum spec_engine that it ran under */
	char *workspace;       /* id */
	uint64_t run;
	bool paused;           /* it was paused, not running */
	uint64_t taken_ms;     /* Unix time */
	char *architecture;    /* "amd64", as images have it */
	char *program;         /* "qemu-system-x86_64", "criu" */
	char *version;         /* "7.2.22" */
	char *machine;         /* "pc-q35-7.2"; NULL: no machine */
	char *processor;       /* QEMU's word for the model; NULL: the host's own */
	struct texts features; /* the processor must have, as /proc/cpuinfo names them */
	char *kernel;          /* digest of the kernel partition; NULL: none, or the host's kernel counts (criu: its release) */
	uint64_t processors, memory_bytes;
	char *layout;          /* digest of the devices and their places: QEMU's words; NULL: none */
	struct texts partitions; /* digests, lowest first */
	struct objects volumes;  /* struct memory_volume */
	struct objects files;    /* struct memory_file */
};

/* What a host can resume. Lists are NULL-terminated; NULL: nothing of the kind. */
struct memory_host {
	const char *architecture;
	const char *program, *version;       /* of the manifest's kind here; NULL: it has none */
	const char *const *machines;         /* types that QEMU knows */
	const char *const *features;         /* of the processor, or of what the emulator makes of it */
	const char *kernel;                  /* as the manifest's */
};

/* What a host tells of itself in its facts ("resume"), so that it can be asked elsewhere whether a state would go on there. */
struct memory_program {
	char *name, *version;  /* as in a manifest */
	struct texts machines; /* types that it knows */
};
struct memory_facts {
	char *architecture;    /* of its processor */
	struct texts features; /* and its maker, as a manifest has them */
	struct objects programs; /* struct memory_program */
};
/* What a state needs of a host: of a manifest, what memory_check looks at. */
struct memory_needs {
	char *architecture, *program, *version, *machine, *kernel;
	struct texts features;
};
extern const struct shape memory_facts_shape, memory_needs_shape;
json_t *memory_needs_encode(const struct memory_manifest *m);
/* memory_check against another host's facts; a newer CRIU reads what an older one wrote. */
int memory_check_facts(const struct memory_needs *needs, const struct memory_facts *f, struct err *e) must_check;

int memory_manifest_decode(const char *bytes, size_t length, const char *source, struct memory_manifest *ret_manifest,
			   struct err *e) must_check;
char *memory_manifest_encode(const struct memory_manifest *m); /* JSON text; the caller frees */
void memory_manifest_done(struct memory_manifest *m);

/* Whether this host can go on with it; pure. ERR_UNSUPPORTED names the first thing that differs, and the hint where it could be
 * resumed. */
int memory_check(const struct memory_manifest *m, const struct memory_host *h, struct err *e) must_check;
/* Whether it belongs to this workspace as it is now; `partitions` as the manifest's, `restores` so far. ERR_CONFLICT. */
int memory_check_workspace(const struct memory_manifest *m, const char *workspace, const struct texts *partitions,
			   uint64_t restores, struct err *e) must_check;
const struct memory_file *memory_manifest_file(const struct memory_manifest *m, const char *name); /* NULL: none */
uint64_t memory_manifest_bytes(const struct memory_manifest *m); /* of all files, as they are stored */
/* What it is called in the folder, and its length there. */
char *memory_file_place(const struct memory_file *f); /* the caller frees */
uint64_t memory_file_stored(const struct memory_file *f);

#endif
