/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The calls of the public header that ask and answer in JSON; carrel_stream.c has those that stream. Each clears the error of
 * the handle, makes one call of client.c and leaves what went wrong there, so a program asks for it after the fact; a handle
 * whose address was wrong has no client, and every call says so. Internal calls that take `path` or `body` free them whatever
 * happens. What is given out is the caller's, and goes back by carrel_free, as programs may have another allocator.
 */
#include "carrel/carrel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/own.h"
#include "client/carrel_private.h"
#include "model/spec.h"

const char *carrel_version(void) { return CARREL_VERSION; }

int carrel_open(const char *address, struct carrel **ret_carrel)
{
	struct carrel *c = mem_alloc(sizeof *c);

	*ret_carrel = c;
	return client_new(address, &c->client, &c->error);
}

void carrel_close(struct carrel *c)
{
	if (!c)
		return;
	if (c->client)
		client_free(c->client);
	free(c);
}

void carrel_free(void *text) { free(text); }

const char *carrel_error_kind(const struct carrel *c) { return err_kind_name(c->error.kind); }
const char *carrel_error_message(const struct carrel *c) { return c->error.message; }
const char *carrel_error_hint(const struct carrel *c) { return c->error.hint; }
int carrel_error_exit_code(const struct carrel *c) { return err_kind_exit_code(c->error.kind); }

int carrel_begin(struct carrel *c)
{
	err_clear(&c->error);
	return c->client ? 0 : err_set(&c->error, ERR_INVALID, "the connection was not opened");
}

static void give_json(json_t *json, char **ret_json)
{
	if (ret_json)
		*ret_json = json_dumps(json, JSON_COMPACT | JSON_ENCODE_ANY);
	json_decref(json);
}

/* `body` is taken. */
static int ask(struct carrel *c, const char *method, char *path, json_t *body, char **ret_json)
{
	json_t *answer = NULL;
	int r = carrel_begin(c);

	if (r == 0)
		r = client_call(c->client, method, path, body, &answer, &c->error);
	if (r == 0)
		give_json(answer, ret_json);
	json_decref(body);
	free(path);
	return r;
}

static int give_operation(struct carrel *c, json_t *answer, char **ret_operation)
{
	const char *id = client_operation_id(answer);
	int r = id ? 0 : err_set(&c->error, ERR_CORRUPT, "the service's answer names no operation");

	if (r == 0 && ret_operation)
		*ret_operation = mem_strdup(id);
	json_decref(answer);
	return r;
}

/* Takes `path` and `body`. */
static int begin_operation(struct carrel *c, const char *method, char *path, json_t *body, char **ret_operation)
{
	json_t *answer = NULL;
	int r = carrel_begin(c);

	if (r == 0)
		r = client_call(c->client, method, path, body, &answer, &c->error);
	if (r == 0)
		r = give_operation(c, answer, ret_operation);
	json_decref(body);
	free(path);
	return r;
}

int carrel_call(struct carrel *c, const char *method, const char *path, const char *json, char **ret_json)
{
	json_error_t where;
	json_t *body = NULL;

	if (json && !(body = json_loads(json, JSON_DECODE_ANY, &where))) {
		err_clear(&c->error);
		return err_set(&c->error, ERR_INVALID, "the request is not JSON: %s", where.text);
	}
	return ask(c, method, mem_strdup(path), body, ret_json);
}

int carrel_deploy(struct carrel *c, const char *text, unsigned flags, char **ret_json)
{
	struct spec spec;
	int r = carrel_begin(c);

	if (r == 0)
		r = spec_parse(text, strlen(text), "spec", &spec, &c->error);
	if (r < 0)
		return r;
	json_t *body = json_pack("{s:o, s:b}", "spec", encode(&spec_shape, &spec), "held", (flags & CARREL_DEPLOY_HELD) != 0);
	spec_done(&spec);
	return ask(c, "POST", mem_strdup(flags & CARREL_DEPLOY_DRY_RUN ? "/v1/workspaces?dry-run=1" : "/v1/workspaces"), body,
		   ret_json);
}

static int list(struct carrel *c, const char *path, char **ret_json)
{
	json_t *items = NULL;
	int r = carrel_begin(c);

	if (r == 0)
		r = client_list(c->client, path, &items, &c->error);
	if (r == 0)
		give_json(items, ret_json);
	return r;
}

int carrel_list(struct carrel *c, char **ret_json) { return list(c, "/v1/workspaces" CLIENT_PAGE, ret_json); }
int carrel_images(struct carrel *c, char **ret_json) { return list(c, "/v1/images" CLIENT_PAGE, ret_json); }

int carrel_show(struct carrel *c, const char *ref, char **ret_json)
{
	return ask(c, "GET", client_path("/v1/workspaces/%s", ref), NULL, ret_json);
}

int carrel_why(struct carrel *c, const char *ref, char **ret_json)
{
	return ask(c, "GET", client_path("/v1/workspaces/%s/why", ref), NULL, ret_json);
}

int carrel_start(struct carrel *c, const char *ref, char **ret_operation)
{
	return begin_operation(c, "POST", client_path("/v1/workspaces/%s/start", ref), NULL, ret_operation);
}

int carrel_stop(struct carrel *c, const char *ref, unsigned long timeout_ms, char **ret_operation)
{
	own_str char *timeout = mem_printf("%lums", timeout_ms);
	json_t *body = timeout_ms ? json_pack("{s:s}", "timeout", timeout) : NULL;
	return begin_operation(c, "POST", client_path("/v1/workspaces/%s/stop", ref), body, ret_operation);
}

int carrel_restart(struct carrel *c, const char *ref, char **ret_operation)
{
	return begin_operation(c, "POST", client_path("/v1/workspaces/%s/restart", ref), NULL, ret_operation);
}

int carrel_pause(struct carrel *c, const char *ref, char **ret_operation)
{
	return begin_operation(c, "POST", client_path("/v1/workspaces/%s/pause", ref), NULL, ret_operation);
}

int carrel_resume(struct carrel *c, const char *ref, char **ret_operation)
{
	return begin_operation(c, "POST", client_path("/v1/workspaces/%s/resume", ref), NULL, ret_operation);
}

int carrel_suspend(struct carrel *c, const char *ref, char **ret_operation)
{
	return begin_operation(c, "POST", client_path("/v1/workspaces/%s/suspend", ref), NULL, ret_operation);
}

int carrel_suspend_check(struct carrel *c, const char *ref, char **ret_json)
{
	return ask(c, "POST", client_path("/v1/workspaces/%s/suspend?check=1", ref), NULL, ret_json);
}

int carrel_move(struct carrel *c, const char *ref, const char *engine, char **ret_operation)
{
	json_t *body = json_pack("{s:s}", "engine", engine);
	int r = begin_operation(c, "POST", client_path("/v1/workspaces/%s/move", ref), body, ret_operation);

	return r;
}

int carrel_remove(struct carrel *c, const char *ref, int force, char **ret_operation)
{
	char *path = client_path(force ? "/v1/workspaces/%s?force=1" : "/v1/workspaces/%s", ref);
	return begin_operation(c, "DELETE", path, NULL, ret_operation);
}

/* --- operations and events --- */

struct relay {
	carrel_json_fn *call;
	void *data;
};

static int relay_json(void *data, const json_t *json)
{
	const struct relay *to = data;
	own_str char *text = json_dumps(json, JSON_COMPACT | JSON_ENCODE_ANY);
	return text ? to->call(to->data, text) : 0;
}

static void relay_progress(void *data, const json_t *json) { (void)relay_json(data, json); }

int carrel_wait(struct carrel *c, const char *operation, carrel_json_fn *progress, void *data, char **ret_json)
{
	struct relay to = { progress, data };
	json_t *answer = NULL;
	int r = carrel_begin(c);

	if (r == 0)
		r = client_wait(c->client, operation, progress ? relay_progress : NULL, &to, &answer, &c->error);
	if (r == 0)
		give_json(answer, ret_json);
	return r;
}

int carrel_cancel(struct carrel *c, const char *operation)
{
	return ask(c, "POST", client_path("/v1/operations/%s/cancel", operation), NULL, NULL);
}

int carrel_events(struct carrel *c, long long after, carrel_json_fn *event, void *data)
{
	struct relay to = { event, data };
	int r = carrel_begin(c);

	return r < 0 ? r : client_follow_events(c->client, after, relay_json, &to, &c->error);
}

/* --- images --- */

int carrel_image_show(struct carrel *c, const char *name, char **ret_json)
{
	return ask(c, "GET", client_path("/v1/images/%s", name), NULL, ret_json);
}

int carrel_image_import(struct carrel *c, const char *name, const char *format, carrel_read_fn *read, void *data,
			char **ret_operation)
{
	own_str char *path = client_path("/v1/images?name=%s&format=%s", name, format);
	json_t *answer = NULL;
	int r = carrel_begin(c);

	if (r == 0)
		r = client_upload(c->client, path, read, data, &answer, &c->error);
	return r < 0 ? r : give_operation(c, answer, ret_operation);
}

int carrel_image_fetch(struct carrel *c, const char *name, const char *source, char **ret_operation)
{
	json_t *body = json_pack("{s:s, s:s}", "name", name, "source", source);
	return begin_operation(c, "POST", mem_strdup("/v1/images"), body, ret_operation);
}

int carrel_image_export(struct carrel *c, const char *name, const char *format, carrel_write_fn *write, void *data)
{
	own_str char *path = client_path("/v1/images/%s/export?format=%s", name, format);
	int r = carrel_begin(c);

	return r < 0 ? r : client_download(c->client, path, &(struct client_sink){ .write = write, .data = data }, &c->error);
}

int carrel_image_remove(struct carrel *c, const char *name)
{
	return ask(c, "DELETE", client_path("/v1/images/%s", name), NULL, NULL);
}
