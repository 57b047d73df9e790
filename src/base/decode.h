/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_DECODE_H
#define BASE_DECODE_H

/*
 * One table per struct ("shape") says how it is written: the strict decoder, the JSON encoder, the JSON schema of the API file,
 * the key list in the manual and the release of memory all follow from it.
 *
 * An unknown key is an error that names file, line, column and the nearest known key. A missing optional key leaves the preset:
 * NULL for texts, lists and objects, `preset` for numbers.
 */

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/doc.h"
#include "base/err.h"

enum field_type {
	FIELD_TEXT,     /* char * */
	FIELD_BOOL,     /* bool */
	FIELD_NUMBER,   /* uint64_t within min..max */
	FIELD_BYTES,    /* uint64_t, written "512M" or as a number */
	FIELD_RATE,     /* uint64_t bits a second, written "10M", "10Mbit" (powers of 1000) or as a number */
	FIELD_DURATION, /* uint64_t milliseconds, written "1.5s", "10m", "2h", "1d" or as a number of seconds */
	FIELD_MILLI,    /* uint64_t thousandths, written "1.5" (CPUs) */
	FIELD_ENUM,     /* unsigned, an index into names */
	FIELD_TEXTS,    /* struct texts */
	FIELD_PAIRS,    /* struct pairs */
	FIELD_OBJECT,   /* a pointer to shape->size bytes, NULL when absent */
	FIELD_OBJECTS,  /* struct objects */
	FIELD_JSON,     /* json_t *, anything (for API envelopes only) */
};

struct texts {
	char **items;
	size_t count;
};
struct pair {
	char *key, *value;
};
struct pairs { /* in the order of the source */
	struct pair *items;
	size_t count;
};
struct objects {
	void *items; /* array of the shape's struct */
	size_t count;
};

struct shape;

struct field {
	const char *key;
	enum field_type type;
	size_t offset;
	const char *doc; /* one sentence for manual and API file */
	bool required;
	/* numbers, bytes, durations, thousandths (max 0: no limit); texts: longest length; lists: most elements */
	uint64_t min, max;
	uint64_t preset;   /* numbers, enums and booleans: value when absent */
	const char *const *names; /* FIELD_ENUM: NULL-terminated */
	const struct shape *shape; /* FIELD_OBJECT, FIELD_OBJECTS */
	/* More rules for a text, an element, or a pair's key. */
	int (*check)(const char *text, struct err *e);
	const char *example; /* as written in YAML */
};

struct shape {
	const char *name; /* "workspace-spec" */
	size_t size;
	const struct field *fields; /* ends with a NULL key */
	const char *doc;
	/* Rules that join several fields; NULL for none. */
	int (*check)(const void *value, struct err *e);
	/* Unknown keys are ignored: for formats of others that demand it (OCI), and for messages between versions of our
	 * processes. */
	bool open;
};

#define FIELD_NO_PRESET UINT64_MAX /* a preset that says "not given" */

/* Fills *ret_value (shape->size bytes, must be zeroed; on failure it is zeroed again). */
int decode(const struct doc *d, const struct shape *shape, const char *source, void *ret_value, struct err *e) must_check;
/* doc_parse and decode in one. */
int decode_text(const char *bytes, size_t length, const char *source, const struct shape *shape, void *ret_value,
		struct err *e) must_check;
/* The same for a value that is JSON already (API, database). */
int decode_json(json_t *json, const char *source, const struct shape *shape, void *ret_value, struct err *e) must_check;
/* A new reference. Absent optional fields and presets are left out. */
json_t *encode(const struct shape *shape, const void *value);
/* Frees what the fields own and zeroes the struct; not the struct itself. */
void shape_done(const struct shape *shape, void *value);
/* JSON Schema (draft 2020-12) of the shape; nested shapes are "$ref": "#/components/schemas/NAME". */
json_t *shape_schema(const struct shape *shape);

/* "250ms", "10s", "1.5h", "2d", "30" (seconds): milliseconds. -EINVAL or -ERANGE. */
int decode_duration(const char *text, uint64_t *ret_ms) must_check;

void texts_add(struct texts *list, const char *text);
void texts_done(struct texts *list);
const char *pairs_get(const struct pairs *p, const char *key); /* NULL: not there */
void pairs_set(struct pairs *p, const char *key, const char *value);
void pairs_done(struct pairs *p);

#endif
