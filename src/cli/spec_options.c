/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A spec is JSON until the last step: that of a file, or an empty one with an image, then each option writes over its member.
 * Lists of an option are added to the file's, but networks replace them, as the order of interfaces is their name. Last the
 * whole is decoded by the model's own tables, so that this side refuses what the service would, without a connection, and has
 * no rule of its own.
 *
 * What refers to files here (user data, keys, variables without a value) is read now; the service gets text.
 */
#include "cli/spec_options.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "model/spec.h"

#define SPEC_MOST (1 << 20)

const struct option spec_options[] = {
	{ "name", 0, OPTION_TEXT, "NAME", "name of the workspace" },
	{ "cpu", 0, OPTION_TEXT, "NUMBER", "processors, such as 2 or 0.5" },
	{ "memory", 'm', OPTION_TEXT, "SIZE", "memory, such as 512M or 2GiB" },
	{ "disk", 0, OPTION_TEXT, "SIZE", "size of the root volume" },
	{ "processes", 0, OPTION_TEXT, "NUMBER", "processes and threads at one time" },
	{ "env", 'e', OPTION_MANY, "KEY=VALUE", "environment variable; KEY alone takes the value from here" },
	{ "user", 'u', OPTION_TEXT, "USER[:GROUP]", "user that runs the command" },
	{ "workdir", 0, OPTION_TEXT, "PATH", "working directory" },
	{ "volume", 'v', OPTION_MANY, "NAME:SIZE:/PATH[:ro][,keep]", "data volume; ro: read-only; keep: stays when the "
	  "workspace is removed",
	  .complete = COMPLETE_VOLUME },
	{ "label", 'l', OPTION_MANY, "KEY=VALUE", "label for finding workspaces" },
	{ "hostname", 0, OPTION_TEXT, "NAME", "host name inside" },
	{ "restart", 0, OPTION_TEXT, "POLICY", "what happens when the command ends by itself", spec_restart_names },
	{ "until", 0, OPTION_TEXT, "RUNG", "rung of the ladder at which the deployment stops", spec_until_names },
	{ "network", 0, OPTION_MANY, "NETWORK[,ipv4=ADDRESS][,ipv6=ADDRESS][,mac=ADDRESS]",
	  "one interface on this network; several: eth0, eth1, ...; none: loopback only; host: the host's (administrators); "
	  "auto: the default",
	  .complete = COMPLETE_NETWORK },
	{ "publish", 'p', OPTION_MANY, "[ADDRESS:]OUTSIDE:INSIDE[/udp]", "port of the host that leads inside" },
	{ "allow", 0, OPTION_MANY, "RULE",
	  "where it may connect to, such as wan or 'group:lab-a tcp/22'; the WAN when missing" },
	{ "deny", 0, OPTION_MANY, "RULE", "an exception" },
	{ "from", 0, OPTION_MANY, "RULE", "who may connect to it; workspaces of the same owner or group when missing" },
	{ "group", 0, OPTION_MANY, "GROUP", "group it is in", .complete = COMPLETE_GROUP },
	{ "isolated", 0, OPTION_FLAG, NULL, "talks to nobody" },
	{ "user-data", 0, OPTION_TEXT, "FILE", "user data of the metadata address (cloud-init)", .complete = COMPLETE_FILE },
	{ "ssh-key", 0, OPTION_MANY, "KEY|FILE", "public key, or a file of them, that the metadata address serves",
	  .complete = COMPLETE_FILE },
	{ "engine", 0, OPTION_TEXT, "ENGINE", "how the workspace is isolated", spec_engine_names },
	{ "isolation", 0, OPTION_TEXT, "WALL", "the least that it wants: the host's kernel's namespaces, or a machine with a "
	  "kernel of its own",
	  spec_isolation_names },
	{ "kernel", 0, OPTION_TEXT, "NAME", "kernel of a machine, instead of the image's wish or the site's default",
	  .complete = COMPLETE_KERNEL },
	{ "arch", 0, OPTION_TEXT, "PROCESSOR", "processor that the image must be for, such as arm64 or riscv64" },
	{ "mode", 0, OPTION_TEXT, "MODE", "system: the image's own init; program: one command", spec_mode_names },
	{ "travels", 0, OPTION_FLAG, NULL, "may change its engine while it runs, with its memory: carrel move --live" },
	{ "stop-timeout", 0, OPTION_TEXT, "TIME", "time for a clean shutdown before it is forced" },
	{ 0 },
};

/* --- the file --- */

static bool is_file_name(const char *source)
{
	return str_eq(source, "-") || source[0] == '/' || source[0] == '.' || str_ends(source, ".yaml") ||
	       str_ends(source, ".yml") || str_ends(source, ".json");
}

static int read_spec_file(const char *source, json_t **ret_spec, struct err *e)
{
	own_strbuf struct str text = { 0 };
	bool from_input = str_eq(source, "-");
	struct spec spec;
	int r = from_input ? fs_read_fd(STDIN_FILENO, SPEC_MOST, &text, e) :
			     fs_read_file(AT_FDCWD, source, SPEC_MOST, &text, e);

	if (r == 0)
		r = spec_parse(str_text(&text), text.length, from_input ? "standard input" : source, &spec, e);
	if (r < 0)
		return r;
	*ret_spec = encode(&spec_shape, &spec);
	spec_done(&spec);
	return 0;
}

/* --- the options --- */

static json_t *member(json_t *spec, const char *key, json_t *(*make)(void))
{
	json_t *value = json_object_get(spec, key);
	if (!value) {
		value = make();
		(void)json_object_set_new(spec, key, value);
	}
	return value;
}

static void set_texts(const struct args *a, json_t *spec)
{
	static const struct {
		const char *option, *key, *group;
	} simple[] = { { "name", "name" },	  { "user", "user" },	    { "workdir", "directory" },
		       { "hostname", "hostname" }, { "restart", "restart" },  { "until", "until" },
		       { "engine", "engine" }, { "isolation", "isolation" }, { "kernel", "kernel" }, { "arch", "architecture" },
		       { "mode", "mode" },	  { "stop-timeout", "stop-timeout" },
		       { "cpu", "cpu", "resources" }, { "memory", "memory", "resources" }, { "disk", "disk", "resources" },
		       { "processes", "processes", "resources" } };

	for (size_t i = 0; i < ARRAY_SIZE(simple); i++) {
		const char *value = args_text(a, simple[i].option);
		json_t *group = spec;
		if (!value)
			continue;
		if (simple[i].group)
			group = member(spec, simple[i].group, json_object);
		(void)json_object_set_new(group, simple[i].key, json_string(value));
	}
}

static int set_pairs(const struct args *a, json_t *spec, const char *option, const char *key, bool from_here, struct err *e)
{
	const char *given;

	for (size_t at = 0; (given = args_next(a, option, &at));) {
		const char *equals = strchr(given, '=');
		const char *value = equals ? equals + 1 : from_here ? getenv(given) : NULL;
		own_str char *name = mem_strndup(given, equals ? (size_t)(equals - given) : strlen(given));
		if (!equals && from_here && !value)
			continue; /* not set here: not set there */
		if (!value || !*name)
			return err_set(e, ERR_INVALID, "--%s %.80s: KEY=VALUE is expected", option, given);
		if (json_object_set_new(member(spec, key, json_object), name, json_string(value)) < 0)
			return err_set(e, ERR_INVALID, "--%s %.80s: not UTF-8", option, name);
	}
	return 0;
}

/* NAME:SIZE:/PATH[:ro][,keep] */
static json_t *parse_volume(const char *given)
{
	own_str char *text = mem_strdup(given);
	bool keep = str_ends(text, ",keep");

	if (keep)
		text[strlen(text) - strlen(",keep")] = '\0';
	bool read_only = str_ends(text, ":ro");
	if (read_only)
		text[strlen(text) - strlen(":ro")] = '\0';
	char *size = strchr(text, ':'), *path = size ? strchr(size + 1, ':') : NULL;
	if (!path)
		return NULL;
	*size++ = *path++ = '\0';
	json_t *volume = json_pack("{s:s, s:s, s:s}", "name", text, "size", size, "mount", path);
	if (volume && keep)
		(void)json_object_set_new(volume, "keep", json_true());
	if (volume && read_only)
		(void)json_object_set_new(volume, "read-only", json_true());
	return volume;
}

static int set_volumes(const struct args *a, json_t *spec, struct err *e)
{
	const char *given;

	for (size_t at = 0; (given = args_next(a, "volume", &at));) {
		json_t *volume = parse_volume(given);
		if (!volume)
			return err_set(e, ERR_INVALID, "--volume %.80s: NAME:SIZE:/PATH[:ro][,keep] is expected", given);
		(void)json_array_append_new(member(spec, "volumes", json_array), volume);
	}
	return 0;
}

/* NAME[,KEY=VALUE]... */
static json_t *parse_interface(const char *given)
{
	static const char *const keys[] = { "ipv4", "ipv6", "mac" };
	own_str char *text = mem_strdup(given);
	char *rest = text, *name = strsep(&rest, ","), *word;
	json_t *interface = json_pack("{s:s}", "network", name);

	while (interface && (word = strsep(&rest, ","))) {
		char *value = strchr(word, '=');
		bool known = false;
		if (value)
			*value++ = '\0';
		for (size_t i = 0; value && i < ARRAY_SIZE(keys); i++)
			known |= str_eq(word, keys[i]);
		if (!known || json_object_set_new(interface, word, json_string(value)) < 0) {
			json_decref(interface);
			return NULL;
		}
	}
	return interface;
}

static int set_networks(const struct args *a, json_t *spec, struct err *e)
{
	const char *given;
	bool word = false, named = false, replaced = false;

	for (size_t at = 0; (given = args_next(a, "network", &at));) {
		bool is_word = str_eq(given, "none") || str_eq(given, "host") || str_eq(given, "auto");
		word |= is_word;
		named |= !is_word;
		if (word && named)
			return err_set(e, ERR_INVALID, "--network %.80s: none, host and auto do not go with other networks",
				       given);
		if (named && !replaced) { /* they replace those of the file */
			(void)json_object_set_new(spec, "networks", json_array());
			replaced = true;
			(void)json_object_del(spec, "network");
		}
		json_t *interface = is_word ? NULL : parse_interface(given);
		if (is_word)
			(void)json_object_set_new(spec, "network", json_string(given));
		else if (interface)
			(void)json_array_append_new(json_object_get(spec, "networks"), interface);
		else
			return err_set(e, ERR_INVALID,
				       "--network %.80s: NETWORK[,ipv4=ADDRESS][,ipv6=ADDRESS][,mac=ADDRESS] is expected",
				       given);
	}
	return 0;
}

static int set_lists(const struct args *a, json_t *spec, struct err *e)
{
	static const struct {
		const char *option, *key;
	} lists[] = {
		{ "publish", "publish" }, { "allow", "allow" }, { "deny", "deny" }, { "from", "from" }, { "group", "groups" }
	};

	for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
		const char *given;
		for (size_t at = 0; (given = args_next(a, lists[i].option, &at));)
			if (json_array_append_new(member(spec, lists[i].key, json_array), json_string(given)) < 0)
				return err_set(e, ERR_INVALID, "--%s: not UTF-8", lists[i].option);
	}
	if (args_flag(a, "isolated"))
		(void)json_object_set_new(spec, "isolated", json_true());
	if (args_flag(a, "travels"))
		(void)json_object_set_new(spec, "travels", json_true());
	return 0;
}

#define KEYS_MOST 65536

static bool is_key(const char *text)
{
	return str_starts(text, "ssh-") || str_starts(text, "ecdsa-") || str_starts(text, "sk-");
}

static int add_keys(json_t *keys, const char *given, struct err *e)
{
	own_strbuf struct str text = { 0 };
	int r = is_key(given) ? 0 : fs_read_file(AT_FDCWD, given, KEYS_MOST, &text, e);

	if (is_key(given))
		str_puts(&text, given);
	char *rest = text.bytes, *line;
	while (r == 0 && rest && (line = strsep(&rest, "\n")))
		if (*line && *line != '#' && json_array_append_new(keys, json_string(line)) < 0)
			r = err_set(e, ERR_INVALID, "--ssh-key %.80s: not UTF-8", given);
	return r;
}

static int set_guest(const struct args *a, json_t *spec, struct err *e)
{
	own_strbuf struct str text = { 0 };
	const char *file = args_text(a, "user-data"), *given;
	int r = file ? fs_read_file(AT_FDCWD, file, KEYS_MOST, &text, e) : 0;

	if (file && r == 0 && json_object_set_new(spec, "user-data", json_string(str_text(&text))) < 0)
		r = err_set(e, ERR_INVALID, "--user-data %.80s: not UTF-8", file);
	for (size_t at = 0; r == 0 && (given = args_next(a, "ssh-key", &at));)
		r = add_keys(member(spec, "ssh-keys", json_array), given, e);
	return r;
}

static int set_command(const struct args *a, json_t *spec, struct err *e)
{
	json_t *words = a->command_count ? json_array() : NULL;

	for (size_t i = 0; i < a->command_count; i++)
		if (json_array_append_new(words, json_string(a->command[i])) < 0) {
			json_decref(words);
			return err_set(e, ERR_INVALID, "a word of the command is not UTF-8");
		}
	if (words)
		(void)json_object_set_new(spec, "command", words);
	return 0;
}

/* All rules of the model; the position in the JSON that was made of the options means nothing to the user. */
static int check(json_t *spec, struct err *e)
{
	static const char source[] = "options";
	struct spec decoded = { 0 };
	int r = decode_json(spec, source, &spec_shape, &decoded, e);

	if (r == 0) {
		spec_done(&decoded);
		return 0;
	}
	const char *text = e->message;
	if (str_starts(text, source))
		text += strcspn(text, " ");
	text += *text == ' ';
	memmove(e->message, text, strlen(text) + 1);
	return r;
}

int spec_from_args(const struct args *a, const char *source, json_t **ret_spec, struct err *e)
{
	own_json json_t *spec = NULL;
	int r = 0;

	if (is_file_name(source))
		r = read_spec_file(source, &spec, e);
	else if (!(spec = json_pack("{s:s}", "image", source)))
		r = err_set(e, ERR_INVALID, "the image's name is not UTF-8");
	if (r < 0)
		return r;
	set_texts(a, spec);
	r = set_pairs(a, spec, "env", "environment", true, e);
	if (r == 0)
		r = set_pairs(a, spec, "label", "labels", false, e);
	if (r == 0)
		r = set_volumes(a, spec, e);
	if (r == 0)
		r = set_networks(a, spec, e);
	if (r == 0)
		r = set_lists(a, spec, e);
	if (r == 0)
		r = set_guest(a, spec, e);
	if (r == 0)
		r = set_command(a, spec, e);
	if (r == 0)
		r = check(spec, e);
	if (r == 0)
		*ret_spec = json_incref(spec);
	return r;
}
