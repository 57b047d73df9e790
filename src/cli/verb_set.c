/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "cli/change.h"
#include "cli/spec_edit.h"

/* KEY=VALUE sets, KEY= removes; labels that are not named stay. */
static int set_labels(const struct args *a, const json_t *spec, json_t *body, struct err *e)
{
	own_json json_t *labels = json_deep_copy(json_object_get(spec, "labels"));
	const char *given;
	size_t at = 0;

	if (!args_text(a, "label"))
		return 0;
	if (!labels)
		labels = json_object();
	while ((given = args_next(a, "label", &at))) {
		const char *equals = strchr(given, '=');
		own_str char *key = mem_strndup(given, strcspn(given, "="));
		if (!equals || !*key)
			return err_set(e, ERR_INVALID, "--label %.80s: KEY=VALUE is expected, KEY= removes it", given);
		if (equals[1])
			(void)json_object_set_new(labels, key, json_string(equals + 1));
		else
			(void)json_object_del(labels, key);
	}
	return json_object_set(body, "labels", labels);
}

static bool has_volume(const json_t *spec, const char *name)
{
	const json_t *volume;
	size_t i;

	json_array_foreach(json_object_get(spec, "volumes"), i, volume)
		if (str_eq(name, json_string_value(json_object_get(volume, "name"))))
			return true;
	return false;
}

static int set_volumes(const struct args *a, const json_t *spec, json_t *body, struct err *e)
{
	own_json json_t *sizes = json_array();
	const char *given;
	size_t at = 0;

	if (!args_text(a, "volume"))
		return 0;
	while ((given = args_next(a, "volume", &at))) {
		own_str char *name = mem_strndup(given, strcspn(given, ":"));
		const char *size = strchr(given, ':');
		if (!size)
			return err_set(e, ERR_INVALID, "--volume %.80s: NAME:SIZE is expected", given);
		if (!has_volume(spec, name))
			return err_set(e, ERR_NOT_FOUND, "the workspace has no volume '%.64s'", name);
		(void)json_array_append_new(sizes, json_pack("{s:s, s:s}", "name", name, "size", size + 1));
	}
	return json_object_set(body, "volumes", sizes);
}

/* Keys of `resources`; "none" takes a limit away. */
static const char *const size_options[] = { "cpu", "memory", "processes", "disk" };

static void set_sizes(const struct args *a, json_t *body)
{
	json_t *resources = json_object();

	for (size_t i = 0; i < ARRAY_SIZE(size_options); i++) {
		const char *given = args_text(a, size_options[i]);
		bool none = str_eq(given, "none") && !str_eq(size_options[i], "disk");
		if (given)
			(void)json_object_set_new(resources, size_options[i], none ? json_null() : json_string(given));
	}
	if (json_object_size(resources))
		(void)json_object_set(body, "resources", resources);
	json_decref(resources);
}

static int set_spec(struct cli *cli, const struct args *a, const char *name, const json_t *spec, json_t *body, struct err *e)
{
	int r = set_labels(a, spec, body, e);

	(void)cli, (void)name;
	if (r == 0)
		r = set_volumes(a, spec, body, e);
	if (r < 0)
		return r;
	set_sizes(a, body);
	if (!json_object_size(body))
		return err_set(e, ERR_INVALID,
			       "nothing to set: --cpu, --memory, --processes, --disk, --volume or --label is expected");
	return 0;
}

static int set_workspace(struct cli *cli, const struct args *a, struct err *e)
{
	return spec_edit(cli, a, args_operand(a, 0), set_spec, e);
}

static const struct operand operands[] = { { "NAME", "workspace", COMPLETE_WORKSPACE }, { 0 } };
static const struct option options[] = {
	{ "cpu", 0, OPTION_TEXT, "N", "processors from now on, for example 1.5; none: no limit" },
	{ "memory", 'm', OPTION_TEXT, "SIZE", "memory from now on; none: no limit" },
	{ "processes", 0, OPTION_TEXT, "N", "processes and threads from now on; none: the preset" },
	{ "disk", 0, OPTION_TEXT, "SIZE", "new size of the root volume; only larger" },
	{ "volume", 'v', OPTION_MANY, "NAME:SIZE", "new size of a data volume; only larger" },
	{ "label", 'l', OPTION_MANY, "KEY=VALUE", "set a label; KEY= removes it" },
	{ 0 },
};
static const struct example examples[] = {
	{ "carrel set web --cpu 2 --memory 1GiB", "other limits while it runs; a machine gets them at its next start" },
	{ "carrel set web --disk 40GiB", "grows while it runs" },
	{ "carrel set web --label team=blue --label old=", "one label more, one less" },
	{ 0 },
};
const struct verb verb_set = {
	"set", "change a workspace: processors, memory, disks, labels", NULL, operands, options, change_options, examples,
	set_workspace
};
