/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libyaml's events become a tree in one pass, and everything that could make it larger than its source is refused at the
 * event: anchors and aliases above all. Recursion is as deep as the limit on depth. Whether a key stands twice is found by
 * walking the map's entries, which the limit on nodes keeps affordable.
 *
 * Scalars stay texts: what a plain word means (a number, a size, true) the table of the reader decides (base/decode.c), not
 * YAML's rules.
 */
#include "base/doc.h"

#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "base/mem.h"
#include "base/str.h"

static const struct doc_limits default_limits = { .bytes = 1 << 20, .nodes = 20000, .depth = 32 };

struct reader {
	yaml_parser_t parser;
	const char *source;
	const struct doc_limits *limits;
	size_t nodes;
};

void doc_free(struct doc *d)
{
	while (d) {
		struct doc *next = d->next;
		doc_free(d->first); /* depth is limited by the reader */
		free(d->key);
		free(d->text);
		free(d);
		d = next;
	}
}

const struct doc *doc_get(const struct doc *map, const char *key)
{
	if (!map || map->kind != DOC_MAP)
		return NULL;
	for (const struct doc *d = map->first; d; d = d->next)
		if (strcmp(d->key, key) == 0)
			return d;
	return NULL;
}

static int fail_at(struct reader *r, const yaml_mark_t *mark, struct err *e, const char *what)
{
	return err_set(e, ERR_INVALID, "%s:%zu:%zu: %s", r->source, mark->line + 1, mark->column + 1, what);
}

static int next_event(struct reader *r, yaml_event_t *event, struct err *e)
{
	if (yaml_parser_parse(&r->parser, event))
		return 0;
	const char *problem = r->parser.problem ? r->parser.problem : "not a YAML or JSON document";
	return fail_at(r, &r->parser.problem_mark, e, problem);
}

static int read_node(struct reader *r, yaml_event_t *event, int depth, struct doc **ret_doc, struct err *e);

static int read_scalar(struct reader *r, yaml_event_t *event, struct doc *d, struct err *e)
{
	if (memchr(event->data.scalar.value, 0, event->data.scalar.length))
		return fail_at(r, &event->start_mark, e, "a NUL character is not allowed");
	d->kind = DOC_SCALAR;
	d->text = mem_strndup((const char *)event->data.scalar.value, event->data.scalar.length);
	d->quoted = event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
	return 0;
}

static int read_key(struct reader *r, const struct doc *map, yaml_event_t *event, char **ret_key, struct err *e)
{
	if (event->type != YAML_SCALAR_EVENT)
		return fail_at(r, &event->start_mark, e, "a key must be a plain word");
	const char *key = (const char *)event->data.scalar.value;
	if (memchr(key, 0, event->data.scalar.length))
		return fail_at(r, &event->start_mark, e, "a NUL character is not allowed");
	if (strcmp(key, "<<") == 0)
		return fail_at(r, &event->start_mark, e, "merge keys are not allowed");
	if (doc_get(map, key))
		return err_set(e, ERR_INVALID, "%s:%zu:%zu: key '%.80s' stands here a second time", r->source,
			       event->start_mark.line + 1, event->start_mark.column + 1, key);
	*ret_key = mem_strdup(key);
	return 0;
}

static int read_children(struct reader *r, struct doc *d, yaml_event_type_t end, int depth, struct err *e)
{
	struct doc **tail = &d->first;
	int result = 0;

	for (bool done = false; !done && result == 0;) {
		yaml_event_t event;
		char *key = NULL;
		int key_line = 0, key_column = 0;
		result = next_event(r, &event, e);
		if (result < 0)
			return result;
		done = event.type == end;
		if (!done && d->kind == DOC_MAP) {
			result = read_key(r, d, &event, &key, e);
			key_line = (int)event.start_mark.line + 1;
			key_column = (int)event.start_mark.column + 1;
			yaml_event_delete(&event);
			if (result == 0)
				result = next_event(r, &event, e);
			if (result < 0) {
				free(key);
				return result;
			}
		}
		if (!done)
			result = read_node(r, &event, depth + 1, tail, e);
		yaml_event_delete(&event);
		if (result == 0 && !done) {
			(*tail)->key = key;
			(*tail)->key_line = key_line;
			(*tail)->key_column = key_column;
			tail = &(*tail)->next;
		} else {
			free(key);
		}
	}
	return result;
}

static bool has_extras(const yaml_event_t *event)
{
	switch (event->type) {
	case YAML_SCALAR_EVENT:
		return event->data.scalar.anchor || event->data.scalar.tag;
	case YAML_SEQUENCE_START_EVENT:
		return event->data.sequence_start.anchor || event->data.sequence_start.tag;
	case YAML_MAPPING_START_EVENT:
		return event->data.mapping_start.anchor || event->data.mapping_start.tag;
	default:
		return event->type == YAML_ALIAS_EVENT;
	}
}

static int read_node(struct reader *r, yaml_event_t *event, int depth, struct doc **ret_doc, struct err *e)
{
	if (depth > r->limits->depth)
		return fail_at(r, &event->start_mark, e, "nested too deeply");
	if (++r->nodes > r->limits->nodes)
		return fail_at(r, &event->start_mark, e, "too many values in one document");
	if (has_extras(event))
		return fail_at(r, &event->start_mark, e, "anchors, aliases and tags are not allowed");

	struct doc *d = mem_alloc(sizeof *d);
	d->line = (int)event->start_mark.line + 1;
	d->column = (int)event->start_mark.column + 1;
	int result;
	if (event->type == YAML_SCALAR_EVENT) {
		result = read_scalar(r, event, d, e);
	} else if (event->type == YAML_SEQUENCE_START_EVENT) {
		d->kind = DOC_LIST;
		result = read_children(r, d, YAML_SEQUENCE_END_EVENT, depth, e);
	} else if (event->type == YAML_MAPPING_START_EVENT) {
		d->kind = DOC_MAP;
		result = read_children(r, d, YAML_MAPPING_END_EVENT, depth, e);
	} else {
		result = fail_at(r, &event->start_mark, e, "a value was expected");
	}
	if (result < 0) {
		doc_free(d);
		return result;
	}
	*ret_doc = d;
	return 0;
}

/* stream start, document start, the value, document end, stream end. */
static int read_document(struct reader *r, struct doc **ret_doc, struct err *e)
{
	yaml_event_t event;
	struct doc *d = NULL;
	int result = 0;

	for (bool done = false; !done && result == 0;) {
		result = next_event(r, &event, e);
		if (result < 0)
			break;
		switch (event.type) {
		case YAML_STREAM_START_EVENT:
		case YAML_DOCUMENT_END_EVENT:
			break;
		case YAML_STREAM_END_EVENT:
			done = true;
			break;
		case YAML_DOCUMENT_START_EVENT:
			if (d)
				result = fail_at(r, &event.start_mark, e, "only one document is allowed");
			break;
		default:
			result = read_node(r, &event, 1, &d, e);
		}
		yaml_event_delete(&event);
	}
	if (result == 0 && !d)
		result = err_set(e, ERR_INVALID, "%s: the document is empty", r->source);
	if (result < 0) {
		doc_free(d);
		return result;
	}
	*ret_doc = d;
	return 0;
}

int doc_parse(const char *bytes, size_t length, const char *source, const struct doc_limits *limits, struct doc **ret_doc,
	      struct err *e)
{
	struct reader r = { .source = source, .limits = limits ? limits : &default_limits };

	if (length > r.limits->bytes)
		return err_set(e, ERR_TOO_LARGE, "%s: %zu bytes, at most %zu are allowed", source, length, r.limits->bytes);
	if (!yaml_parser_initialize(&r.parser))
		abort(); /* out of memory */
	yaml_parser_set_input_string(&r.parser, (const unsigned char *)bytes, length);
	int result = read_document(&r, ret_doc, e);
	yaml_parser_delete(&r.parser);
	return result;
}
