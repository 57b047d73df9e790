/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/mem.h"
#include "service/routes.h"
#include "service/service.h"

/* Fills params; false when the path has another form. */
static bool match(const char *pattern, const struct uri *u, const char *params[])
{
	size_t at = 0, param = 0;

	while (*pattern) {
		size_t length = strcspn(++pattern, "/");
		if (at == u->segment_count)
			return false;
		const char *segment = u->segments[at++];
		if (*pattern == '{')
			params[param++] = segment;
		else if (strlen(segment) != length || memcmp(segment, pattern, length) != 0)
			return false;
		pattern += length;
	}
	return at == u->segment_count;
}

static int check_permission(const struct request *r, struct err *e)
{
	const struct identity *who = &r->who;
	bool may = who->admin;

	if (r->route->need == NEED_READ)
		may = who->user || who->viewer;
	else if (r->route->need == NEED_CHANGE)
		may = who->user;
	else if (r->route->need == NEED_HOST)
		may = who->uid == 0;
	if (may)
		return 0;
	const struct config *c = config_of(r);
	if (!who->user && !who->viewer) {
		(void)err_set(e, ERR_DENIED, "user %u may not use this service", who->uid);
		return err_hint(e, "an administrator can add you to the group '%s'; log in again afterwards", c->user_group);
	}
	if (r->route->need == NEED_CHANGE)
		return err_set(e, ERR_DENIED, "user %u may look but not change (member of '%s')", who->uid, c->viewer_group);
	if (r->route->need == NEED_HOST)
		return err_set(e, ERR_DENIED, "only a host's agent may use this address");
	(void)err_set(e, ERR_DENIED, "only administrators may do this");
	return err_hint(e, "administrators are root and the members of the group '%s'", c->admin_group);
}

static int check_query(const struct request *r, struct err *e)
{
	const char *names[16];
	size_t count = 0;

	for (const struct parameter *p = r->route->query; p && p->name; p++)
		names[count++] = p->name;
	for (size_t i = 0; i < r->uri.query.count; i++) {
		const char *given = r->uri.query.items[i].key;
		bool known = false;
		for (size_t j = 0; j < count; j++)
			known |= str_eq(names[j], given);
		if (known)
			continue;
		(void)err_set(e, ERR_INVALID, "unknown query parameter '%.100s'", given);
		const char *near = str_nearest(given, names, count);
		return near ? err_hint(e, "did you mean '%s'?", near) : -e->number;
	}
	return 0;
}

/* Fills r->allow; false: no route has this path. */
static bool find_methods(struct request *r)
{
	for (const struct route *t = routes; t->method; t++) {
		if (!match(t->path, &r->uri, r->params))
			continue;
		str_printf(&r->methods, "%s, ", t->method);
		if (str_eq(t->method, "GET"))
			str_puts(&r->methods, "HEAD, ");
	}
	if (!r->methods.length)
		return false;
	str_puts(&r->methods, "OPTIONS");
	r->allow = r->methods.bytes;
	return true;
}

int routes_find(struct request *r, const char *method, struct err *e)
{
	r->head = str_eq(method, "HEAD");
	for (const struct route *t = routes; t->method && r->uri.segment_count; t++) {
		if (!match(t->path, &r->uri, r->params) || !str_eq(t->method, r->head ? "GET" : method))
			continue;
		r->route = t;
		int result = check_permission(r, e);
		return result < 0 ? result : check_query(r, e);
	}
	if (!r->uri.segment_count || !find_methods(r))
		return err_set(e, ERR_NOT_FOUND, "no such address; see /v1/openapi.json");
	if (str_eq(method, "OPTIONS"))
		return 1;
	(void)err_set(e, ERR_METHOD, "this address does not take %.20s", method);
	return err_hint(e, "it takes %s", r->allow);
}

static int decode_body(struct request *r, struct err *e)
{
	const struct route *t = r->route;
	const char *text = r->body.length ? r->body.bytes : "{}";

	if (!t->request) {
		if (r->body.length)
			return err_set(e, ERR_INVALID, "%s %s takes no body", t->method, t->path);
		return 0;
	}
	if (!r->body.length && !(t->flags & ROUTE_OPTIONAL))
		return err_set(e, ERR_INVALID, "the body is missing: %s", t->request->doc);
	void *value = mem_alloc(t->request->size);
	int result = decode_text(text, r->body.length ? r->body.length : 2, "request body", t->request, value, e);
	if (result < 0) {
		free(value);
		return result;
	}
	r->value = value;
	return 0;
}

int routes_call(struct request *r, struct err *e)
{
	bool upgrade = r->route->flags & ROUTE_WEBSOCKET;

	if (upgrade && !request_is_upgrade(r)) {
		(void)err_set(e, ERR_INVALID, "this address speaks WebSocket");
		return err_hint(e, "send Upgrade: websocket (RFC 6455), or use the carrel command");
	}
	int result = decode_body(r, e);
	return result < 0 ? result : r->route->handle(r, e);
}

void routes_done(struct request *r)
{
	if (r->value) {
		shape_done(r->route->request, r->value);
		free(r->value);
	}
	str_done(&r->methods);
}
