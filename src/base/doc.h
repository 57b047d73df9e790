/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_DOC_H
#define BASE_DOC_H

/*
 * A YAML or JSON document as a tree that remembers where each value stood. JSON is read by the same parser (YAML 1.2 contains
 * it). Refused: aliases and anchors, tags, several documents, duplicate keys, keys that are not scalars, bytes that are not
 * UTF-8, and anything past the limits - so the tree is never larger than its source by more than a constant factor.
 */

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

enum doc_kind { DOC_SCALAR, DOC_LIST, DOC_MAP };

struct doc {
	enum doc_kind kind;
	int line, column;    /* from 1 */
	int key_line, key_column; /* in a map: where the key stands */
	char *key;           /* in a map: this entry's key, else NULL */
	char *text;          /* DOC_SCALAR: without NUL bytes inside */
	bool quoted;         /* DOC_SCALAR: was quoted, so it is a text whatever it looks like */
	struct doc *first, *next; /* children, in the order of the source */
};

struct doc_limits {
	size_t bytes, nodes;
	int depth;
};

/* `source` names the text in errors ("web.yaml", "request body"): "web.yaml:3:5: ...". `limits` NULL: 1 MiB, 20,000 nodes, 32
 * deep. */
int doc_parse(const char *bytes, size_t length, const char *source, const struct doc_limits *limits, struct doc **ret_doc,
	      struct err *e) must_check;
void doc_free(struct doc *d);
const struct doc *doc_get(const struct doc *map, const char *key); /* NULL: not there */

static inline void doc_free_at(struct doc **d) { doc_free(*d); }
#define own_doc __attribute__((cleanup(doc_free_at)))

#endif
