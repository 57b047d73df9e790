/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A request as the API meets it: "METHOD TARGET\n" and a body. It is sent by three callers in turn - a viewer, a user, an
 * administrator - to a service with a database of its own, and goes the whole way: address, permission, decoding, handler,
 * commit, answer. Left out is what would start programs (imports, exports) or wait for somebody (?wait); there is no host, so
 * nothing leaves the process.
 *
 * Beside crashes: every request is answered, a viewer changes nothing, and a user finds nothing of others.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "db/host.h"
#include "db/image.h"
#include "service/handlers.h"
#include "service/host.h"
#include "service/operation.h"
#include "service/routes.h"
#include "service/server.h"
#include "service/workspace.h"

#define USER 1000
#define DIGEST "sha256:0000000000000000000000000000000000000000000000000000000000000000"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static char folder[64];

static void must(int result, const struct err *e)
{
	if (result >= 0)
		return;
	(void)fprintf(stderr, "%s\n", e->message);
	abort();
}

static void remove_folder(void) { (void)!fs_remove_tree(AT_FDCWD, folder, NULL); }

/* --- the service --- */

static void stop(void *data) { loop_stop(data); }

/* What was submitted is committed, and what follows from that has happened. */
static void settle(struct service *s)
{
	struct err e;

	must(db_commit(s->db, db_batch_new(), &e), &e);
	loop_post(s->loop, stop, s->loop);
	must(loop_run(s->loop, &e), &e);
}

static void request_by(struct service *s, struct identity who, const char *method, const char *target, const char *body,
		       size_t length)
{
	struct request *r = mem_alloc(sizeof *r);
	struct err e;

	r->service = s;
	r->who = who;
	int result = uri_parse(target, &r->uri, &e);
	if (result == 0)
		result = routes_find(r, method, &e);
	const struct route *route = result == 0 ? r->route : NULL;
	bool forks = route && (route->handle == handle_images_add || route->handle == handle_image_export);
	if (route && route->need != NEED_READ && !who.user)
		abort(); /* permission comes before all else */
	if (route && !forks && !request_query(r, "wait")) {
		str_add(&r->body, body, length);
		result = routes_call(r, &e);
		settle(s);
		if (result == 0 && !r->answered)
			abort();
	}
	if (result < 0)
		request_fail(r, &e);
	if (r->answered && (r->status < 200 || r->status > 599))
		abort();
	request_done(r);
}

static void deploy(struct service *s, struct identity who, const char *name)
{
	own_str char *body = mem_printf("{\"spec\": {\"image\": \"box\", \"name\": \"%s\", \"volumes\": [{\"name\": \"data\", "
					"\"size\": \"1GiB\", \"mount\": \"/data\", \"keep\": true}]}}", name);

	request_by(s, who, "POST", "/v1/workspaces", body, strlen(body));
	if (!map_get(&s->workspaces.by_name, name))
		abort();
}

static const struct identity admin = { .uid = 0, .admin = true, .user = true, .viewer = true }, user = { .uid = USER,
													 .user = true },
			     viewer = { .uid = 2000, .viewer = true };

static struct service *start(void)
{
	static struct service s = { .config = { .admin_group = (char *)(uintptr_t)"a", .user_group = (char *)(uintptr_t)"b",
						.viewer_group = (char *)(uintptr_t)"c", .workspaces_per_user = 8,
						.events_kept = 1000, .operation_kept_ms = 60000, .socket_mode = 600 },
				    .started_ms = 1 };
	struct err e;

	if (s.loop)
		return &s;
	(void)snprintf(folder, sizeof folder, "%s/carrel-fuzz-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	if (!mkdtemp(folder))
		abort();
	(void)atexit(remove_folder);
	own_str char *database = mem_printf("%s/db", folder);
	own_str char *socket = mem_printf("%s/sock", folder);
	s.state_dir = s.run_dir = folder;
	s.loop = loop_new();
	must(db_open(database, &s.db, &e), &e);
	struct db_batch *b = db_batch_new();
	db_image_put(b, &(struct db_image){ .name = "box", .digest = DIGEST,
					    .image = "{\"digest\":\"" DIGEST "\",\"architecture\":\"amd64\"}" }, true);
	db_host_put(b, &(struct db_host){ .name = "local", .facts = "{}",
					  .volumes = "[{\"owner\":1000,\"name\":\"left\",\"size\":1,\"used\":1}]" });
	must(db_commit(s.db, b, &e), &e);
	must(service_load(&s, &e), &e);
	must(server_start(&s, socket, &s.server, &e), &e);
	deploy(&s, admin, "secret");
	deploy(&s, user, "mine");
	return &s;
}

/* --- what must not change --- */

static uint64_t sum(const struct service *s)
{
	uint64_t sum = s->workspaces.count + s->operations.count;

	for (size_t i = 0; i < s->workspaces.count; i++)
		sum = sum * 31 + s->workspaces.items[i]->version;
	return sum;
}

static void check_sight(const struct service *s)
{
	struct request r = { .service = (struct service *)(uintptr_t)s, .who = user };
	const struct workspace *secret = map_get(&s->workspaces.by_name, "secret");
	struct workspace *found;

	if (secret && workspace_find(&r, secret->id, &found, NULL) == 0 && found->owner_uid != USER)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
	own_str char *text = mem_strndup((const char *)bytes, length);
	char *target = strchr(text, ' '), *end = strchr(text, '\n');

	if (!target || !end || target > end)
		return 0;
	struct service *s = start();
	*target++ = '\0';
	*end++ = '\0';
	size_t rest = length - (size_t)(end - text);
	uint64_t before = sum(s);
	request_by(s, viewer, text, target, end, rest);
	if (sum(s) != before)
		abort();
	request_by(s, user, text, target, end, rest);
	check_sight(s);
	request_by(s, admin, text, target, end, rest);
	return 0;
}
