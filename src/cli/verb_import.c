/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The image first, as any image is imported, when the service does not have it; then a new workspace, prepared and empty; then
 * what fills it. What breaks off leaves the workspace unfilled, unusable, and labelled with the bundle that it is of; the same
 * command finds it and sends what is missing.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "cli/bundle.h"
#include "cli/change.h"
#include "cli/print.h"
#include "cli/progress.h"

struct upload {
	struct pipe_child *child;
	struct progress progress;
	uint64_t done;
};

static long read_layout(void *data, char *buffer, size_t size)
{
	struct upload *u = data;
	ssize_t n;

	if (cli_interrupted)
		return -1;
	do
		n = read(u->child->fd, buffer, size);
	while (n < 0 && errno == EINTR);
	u->done += n > 0 ? (uint64_t)n : 0;
	progress_bytes(&u->progress, u->done, 0, 0);
	return n;
}

static int upload_image(struct cli *cli, struct client *client, const char *file, const char *name, struct err *e)
{
	own_pipe struct pipe_child child = PIPE_NONE;
	struct upload u = { .child = &child };
	own_str char *path = client_path("/v1/images?name=%s&format=oci", name);
	own_json json_t *answer = NULL;
	struct err of_reader = { 0 };
	int r = bundle_open("layout", file, &child, e);

	if (r < 0)
		return r;
	progress_start(&u.progress, cli, name);
	progress_step(&u.progress, "image");
	r = client_upload(client, path, read_layout, &u, &answer, e);
	progress_end(&u.progress);
	if (bundle_close(&child, &of_reader) < 0 && (r == 0 || of_reader.kind == ERR_CORRUPT)) {
		*e = of_reader; /* why the upload was cut off */
		r = -of_reader.number;
	}
	if (r == 0)
		r = change_wait(cli, answer, name, NULL, e);
	return r < 0 ? err_wrap(e, "image of the bundle") : 0;
}

static bool has_image(struct client *client, const char *reference, const char *digest)
{
	own_str char *path = client_path("/v1/images/%s", reference);
	own_json json_t *found = NULL;

	return client_call(client, "GET", path, NULL, &found, NULL) == 0 &&
	       str_eq(json_string_value(json_object_get(found, "digest")), digest);
}

/* What the spec shall call the image: its own name when that means it, or can mean it; else its digest. */
static int settle_image(struct cli *cli, struct client *client, const char *file, json_t *spec, const json_t *image,
			struct err *e)
{
	const char *name = json_string_value(json_object_get(image, "name")),
		   *digest = json_string_value(json_object_get(image, "digest"));
	own_str char *path = client_path("/v1/images/%s", name ? name : "none");
	int r = 0;

	if (!digest || strlen(digest) < 24)
		return err_set(e, ERR_CORRUPT, "the bundle's image has no digest");
	if (name && has_image(client, name, digest))
		return 0;
	if (has_image(client, digest, digest))
		return json_object_set_new(spec, "image", json_string(digest));
	bool free_name = name && client_call(client, "GET", path, NULL, NULL, e) == -ENOENT;
	own_str char *chosen = free_name ? mem_strdup(name) : mem_printf("carried-%.12s", digest + strlen("sha256:"));
	r = upload_image(cli, client, file, chosen, e);
	if (r == 0)
		(void)json_object_set_new(spec, "image", json_string(chosen));
	return r;
}

/* The addresses that it had, asked for by name, so that it keeps them or the import says why it cannot. */
static void keep_addresses(json_t *spec, const json_t *interfaces)
{
	static const char *const keys[] = { "network", "ipv4", "ipv6", "mac" };
	json_t *networks = json_array();

	for (size_t i = 0; i < json_array_size(interfaces); i++) {
		const json_t *had = json_array_get(interfaces, i);
		json_t *asked = json_deep_copy(json_array_get(json_object_get(spec, "networks"), i));
		if (!asked)
			asked = json_object();
		for (size_t k = 0; k < ARRAY_SIZE(keys); k++) {
			const char *text = json_string_value(json_object_get(had, keys[k]));
			if (text) /* an address stands there with the length of its network */
				(void)json_object_set_new(asked, keys[k], json_stringn(text, strcspn(text, "/")));
		}
		(void)json_array_append_new(networks, asked);
	}
	if (json_array_size(networks)) {
		(void)json_object_set(spec, "networks", networks);
		(void)json_object_del(spec, "network");
	}
	json_decref(networks);
}

static void change_networks(const struct args *a, json_t *spec, const json_t *interfaces)
{
	const char *network = args_text(a, "network");

	if (!network && !args_flag(a, "new-addresses"))
		keep_addresses(spec, interfaces);
	if (network || args_flag(a, "new-addresses")) {
		json_t *list = json_object_get(spec, "networks"), *one;
		size_t i;
		json_array_foreach(list, i, one) {
			(void)json_object_del(one, "ipv4");
			(void)json_object_del(one, "ipv6");
			(void)json_object_del(one, "mac");
		}
	}
	if (network) {
		(void)json_object_del(spec, "networks");
		(void)json_object_del(spec, "network");
		if (str_eq(network, "none") || str_eq(network, "host"))
			(void)json_object_set_new(spec, "network", json_string(network));
		else
			(void)json_object_set_new(spec, "networks", json_pack("[{s:s}]", "network", network));
	}
}

/* An import of this bundle that broke off. */
static char *find_unfilled(struct client *client, const char *name, const json_t *shown)
{
	own_str char *path = client_path("/v1/workspaces/%s", name);
	own_json json_t *found = NULL;

	if (client_call(client, "GET", path, NULL, &found, NULL) < 0)
		return NULL;
	const char *of = json_string_value(json_object_get(json_object_get(json_object_get(found, "spec"), "labels"),
							   "carrel.importing"));
	bool same = of && str_eq(of, json_string_value(json_object_get(shown, "digest")));
	same = same && str_eq(json_string_value(json_object_get(found, "state")), "prepared");
	return same ? mem_strdup(json_string_value(json_object_get(found, "id"))) : NULL;
}

static int make_workspace(struct cli *cli, struct client *client, json_t *spec, const json_t *shown, char **ret_id,
			  struct err *e)
{
	const json_t *header = json_object_get(shown, "header");
	own_json json_t *answer = NULL;
	json_t *snapshots = json_object_get(header, "snapshots");
	own_json json_t *carried = json_pack("{s:O, s:O, s:o}", "id", json_object_get(header, "id"), "bundle",
					     json_object_get(shown, "digest"), "snapshots",
					     snapshots ? json_incref(snapshots) : json_array());
	own_json json_t *body = json_pack("{s:O, s:O}", "spec", spec, "carried", carried);
	int r = client_call(client, "POST", "/v1/workspaces", body, &answer, e);

	bool connected = json_array_size(json_object_get(spec, "networks")) > 0;
	if (r < 0 && connected &&
	    (strstr(e->message, "address") || strstr(e->message, "network") || strstr(e->message, "rests for") ||
	     strstr(e->message, "is taken by workspace")))
		return err_hint(e, "--new-addresses, or --network NETWORK");
	if (r < 0)
		return r;
	*ret_id = mem_strdup(json_string_value(json_object_get(answer, "id")));
	return change_wait(cli, answer, json_string_value(json_object_get(answer, "name")), NULL, e);
}

static int fill(struct cli *cli, const char *file, const char *id, const char *name, const json_t *shown, struct err *e)
{
	own_pipe struct pipe_child child = PIPE_NONE;
	own_json json_t *request = json_pack("{s:O}", "header", json_object_get(shown, "header"));
	struct err of_reader = { 0 };
	int r = bundle_open("chunks", file, &child, e);

	if (r < 0)
		return r;
	struct bundle_transfer t = { .path = client_path("/v1/workspaces/%s/import", id), .request = request, .into = -1,
				     .from = child.fd, .back = child.back_fd,
				     .total = (uint64_t)json_integer_value(json_object_get(shown, "sent")), .label = name };
	r = bundle_transfer(cli, &t, e);
	if (bundle_close(&child, &of_reader) < 0 && of_reader.kind == ERR_CORRUPT) {
		*e = of_reader;
		r = -of_reader.number;
	}
	return r;
}

/* Gone when this returns, so that the name is free for another try. */
static void give_up(struct client *client, const char *id)
{
	own_str char *path = client_path("/v1/workspaces/%s?force=1", id),
		     *wait = client_path("/v1/workspaces/%s?wait=30&state=removed", id);

	cli_interrupted = 0;
	(void)!client_call(client, "DELETE", path, NULL, NULL, NULL);
	(void)!client_call(client, "GET", wait, NULL, NULL, NULL);
}

/* What is wrong with the bundle will be wrong again; anything else may be better next time. */
static int leave(struct client *client, const char *id, const char *name, const json_t *shown, struct err *e)
{
	own_str char *unfilled = find_unfilled(client, name, shown); /* another import may have filled it meanwhile */
	static const enum err_kind final[] = { ERR_CORRUPT,     ERR_DENIED,   ERR_INVALID,
					       ERR_UNSUPPORTED, ERR_CONFLICT, ERR_TOO_LARGE };

	for (size_t i = 0; i < ARRAY_SIZE(final); i++)
		if (e->kind == final[i]) {
			if (unfilled && str_eq(unfilled, id))
				give_up(client, id);
			return -e->number;
		}
	return err_hint(e, "the same command goes on where it broke off; carrel rm gives it up");
}

static int go_on(struct cli *cli, const char *id, const char *name, bool suspended, struct err *e)
{
	struct client *client;
	own_json json_t *answer = NULL;
	own_str char *path = client_path(suspended ? "/v1/workspaces/%s/resume" : "/v1/workspaces/%s/start", id);
	own_str char *wait = client_path("/v1/workspaces/%s?wait=30&state=suspended", id);
	int r = cli_client(cli, &client, e);

	if (r == 0 && suspended) /* the host's report of it may still be under way */
		r = client_call(client, "GET", wait, NULL, NULL, e);
	if (r == 0)
		r = client_call(client, "POST", path, NULL, &answer, e);
	return r < 0 ? r : change_wait(cli, answer, name, NULL, e);
}

static int import(struct cli *cli, const struct args *a, struct err *e)
{
	const char *file = args_operand(a, 0), *name = args_text(a, "name");
	own_json json_t *shown = NULL;
	own_str char *id = NULL;
	struct client *client;
	int r;

	if ((r = bundle_ask("show", file, &shown, e)) < 0 || (r = cli_client(cli, &client, e)) < 0 ||
	    (r = cli_catch_interrupt(cli, e)) < 0)
		return r;
	json_t *header = json_object_get(shown, "header"), *spec = json_object_get(header, "spec");
	bool suspended = str_eq(json_string_value(json_object_get(header, "state")), "suspended");
	(void)json_object_set_new(spec, "name", name ? json_string(name) : json_incref(json_object_get(header, "name")));
	name = json_string_value(json_object_get(spec, "name"));
	id = find_unfilled(client, name, shown);
	if (id && !cli->quiet)
		(void)fprintf(stderr, "carrel: the import of %s goes on\n", name);
	if (!id) {
		change_networks(a, spec, json_object_get(header, "interfaces"));
		r = settle_image(cli, client, file, spec, json_object_get(header, "image"), e);
		if (r == 0)
			r = make_workspace(cli, client, spec, shown, &id, e);
	}
	if (r == 0)
		r = fill(cli, file, id, name, shown, e);
	if (r < 0)
		return id ? leave(client, id, name, shown, e) : r;
	if (args_flag(a, "start"))
		r = go_on(cli, id, name, suspended, e);
	if (r == 0 && !cli->quiet) {
		own_strbuf struct str text = { 0 };
		print_escape(&text, name);
		(void)puts(str_text(&text));
	}
	return r;
}

static const struct operand operands[] = { { "FILE", "bundle of a workspace", COMPLETE_FILE }, { 0 } };
static const struct option options[] = {
	{ "name", 'n', OPTION_TEXT, "NAME", "name here, instead of the one it had" },
	{ "start", 0, OPTION_FLAG, NULL, "start it, or resume it when it has memory" },
	{ "network", 0, OPTION_TEXT, "NETWORK", "connect it to this network instead: a name, none or host", NULL,
	  COMPLETE_NETWORK },
	{ "new-addresses", 0, OPTION_FLAG, NULL, "on the same networks with addresses that are free here" },
	{ 0 },
};
static const struct example examples[] = {
	{ "carrel import web.bundle", "prepared, with the name, id, and addresses that it had" },
	{ "carrel import --start --network none web.bundle", "started, without networks" },
	{ 0 },
};
const struct verb verb_import = {
	"import", "make a workspace of a file that export wrote",
	"The image is taken from the file when the service does not have it. The workspace keeps its id, and so its machine "
	"id, when that is free here. (An image alone: carrel image import.)\n\n"
	"What interrupts the import leaves a workspace that cannot be used; the same command goes on with what is there, each "
	"chunk of it compared with its checksum. What nobody goes on with is removed after a day.",
	operands, options, NULL, examples, import,
};
