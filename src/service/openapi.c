/* SPDX-License-Identifier: Apache-2.0 */
/* The OpenAPI 3.1 file, from the routes and the shapes they name. */
#include <ctype.h>
#include <string.h>

#include "base/mem.h"
#include "base/own.h"
#include "service/operation.h"
#include "service/routes.h"
#include "service/views.h"

static void add_shape(json_t *schemas, const struct shape *shape)
{
	if (!shape || json_object_get(schemas, shape->name))
		return;
	(void)json_object_set_new(schemas, shape->name, shape_schema(shape));
	for (const struct field *f = shape->fields; f->key; f++)
		add_shape(schemas, f->shape);
}

static json_t *reference(const struct shape *shape)
{
	return json_pack("{s:s+}", "$ref", "#/components/schemas/", shape->name);
}

static json_t *list_of(const struct shape *shape)
{
	return json_pack("{s:s, s:[s], s:{s:{s:s, s:o}, s:{s:s, s:s}}}", "type", "object", "required", "items", "properties",
			 "items", "type", "array", "items", reference(shape), "next", "type", "string", "description",
			 "cursor of the next page, for ?after; absent on the last page");
}

static json_t *success(const struct route *t)
{
	json_t *answer = json_pack("{s:s}", "description", "success");
	json_t *schema;

	if (t->flags & ROUTE_TEXT)
		(void)json_object_set_new(answer, "content", json_pack("{s:{}}", "*/*"));
	if (!t->response || t->flags & (ROUTE_TEXT | ROUTE_WEBSOCKET))
		return answer;
	schema = t->flags & ROUTE_LIST ? list_of(t->response) : reference(t->response);
	(void)json_object_set_new(answer, "content", json_pack("{s:{s:o}}", "application/json", "schema", schema));
	return answer;
}

static json_t *responses(const struct route *t)
{
	own_str char *status = mem_printf("%d", t->flags & ROUTE_WEBSOCKET ? 101 : t->status ? t->status : 200);
	return json_pack("{s:o, s:{s:s, s:{s:{s:{s:s, s:[s], s:{s:{s:s}}}}}}}", status, success(t), "default", "description",
			 "refusal or failure", "content", "application/json", "schema", "type", "object", "required", "error",
			 "properties", "error", "$ref", "#/components/schemas/error");
}

static json_t *add_parameter(json_t *list, const char *name, const char *in, const char *doc, bool required, const char *type)
{
	json_t *schema = json_pack("{s:s}", "type", type);

	(void)json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:b, s:o}", "name", name, "in", in, "description", doc,
						    "required", required, "schema", schema));
	return schema;
}

static void add_query(json_t *list, const struct parameter *q)
{
	json_t *schema = add_parameter(list, q->name, "query", q->doc, false, q->number ? "integer" : "string");

	if (!q->most)
		return;
	(void)json_object_set_new(schema, "minimum", json_integer(q->least));
	(void)json_object_set_new(schema, "maximum", json_integer(q->most));
	(void)json_object_set_new(schema, "default", json_integer(q->preset));
}

static json_t *parameters(const struct route *t)
{
	json_t *list = json_array();

	for (const char *p = strchr(t->path, '{'); p; p = strchr(p + 1, '{')) {
		own_str char *name = mem_strndup(p + 1, strcspn(p + 1, "}"));
		(void)add_parameter(list, name, "path", "name or id", true, "string");
	}
	for (const struct parameter *q = t->query; q && q->name; q++)
		add_query(list, q);
	if (t->flags & ROUTE_KEY)
		(void)add_parameter(list, "Idempotency-Key", "header",
				    "a request that is sent again with the same key is done once", false, "string");
	if (t->flags & ROUTE_TAG)
		(void)add_parameter(list, t->need == NEED_READ ? "If-None-Match" : "If-Match", "header",
				    "an ETag that was seen before", false, "string");
	return list;
}

static json_t *operation(const struct route *t)
{
	static const char *const needs[] = { "read", "change", "admin", "host" };
	own_str char *id = mem_printf("%s%s", t->method, t->path);
	json_t *json;

	for (char *p = id; *p; p++)
		*p = isalnum((unsigned char)*p) ? (char)tolower((unsigned char)*p) : '-';
	json = json_pack("{s:s, s:s, s:s, s:o, s:o}", "operationId", id, "summary", t->summary, "x-role", needs[t->need],
			 "parameters", parameters(t), "responses", responses(t));
	if (t->request)
		(void)json_object_set_new(json, "requestBody",
					  json_pack("{s:b, s:{s:{s:o}}}", "required", !(t->flags & ROUTE_OPTIONAL), "content",
						    "application/json", "schema", reference(t->request)));
	return json;
}

json_t *openapi_document(void)
{
	json_t *paths = json_object(), *schemas = json_object();

	add_shape(schemas, &error_shape);
	add_shape(schemas, &suspend_check_shape);
	for (const struct route *t = routes; t->method; t++) {
		own_str char *method = mem_strdup(t->method);
		json_t *path = json_object_get(paths, t->path);
		if (!path) {
			path = json_object();
			(void)json_object_set_new(paths, t->path, path);
		}
		for (char *p = method; *p; p++)
			*p = (char)tolower((unsigned char)*p);
		(void)json_object_set_new(path, method, operation(t));
		add_shape(schemas, t->request);
		add_shape(schemas, t->response);
	}
	return json_pack("{s:s, s:{s:s, s:s, s:s}, s:o, s:{s:o}}", "openapi", "3.1.0", "info", "title", "Carrel", "version",
			 CARREL_VERSION, "description",
			 "Workspaces on any machine of a pool. Local access: the unix socket; the peer's credentials decide.",
			 "paths", paths, "components", "schemas", schemas);
}
