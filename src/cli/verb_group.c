/* SPDX-License-Identifier: Apache-2.0 */
#include "base/mem.h"
#include "base/str.h"
#include "cli/change.h"
#include "cli/show.h"
#include "cli/spec_edit.h"

static char *text_count(const json_t *item, const json_t *value)
{
	json_int_t hidden = json_integer_value(json_object_get(item, "hidden"));
	return mem_printf("%lld", (long long)json_array_size(value) + (long long)hidden);
}

static int list(struct cli *cli, const struct args *a, struct err *e)
{
	static const struct column columns[] = { { "NAME", "name" },
						 { "OWNER", "owner" },
						 { "WORKSPACES", "workspaces", text_count },
						 { "CREATED", "created", text_age },
						 { 0 } };

	(void)a;
	return show_list(cli, "/v1/groups" CLIENT_PAGE, columns, e);
}

static int show(struct cli *cli, const struct args *a, struct err *e)
{
	return show_object(cli, client_path("/v1/groups/%s", args_operand(a, 0)), e);
}

static int join(struct cli *cli, const struct args *a, const char *name, const json_t *spec, json_t *body, struct err *e)
{
	own_json json_t *groups = spec_edit_list(spec, "groups");

	(void)cli, (void)name, (void)e;
	return spec_edit_add(groups, args_operand(a, 0)) ? json_object_set(body, "groups", groups) : 0;
}

static int leave(struct cli *cli, const struct args *a, const char *name, const json_t *spec, json_t *body, struct err *e)
{
	own_json json_t *groups = spec_edit_list(spec, "groups");
	const char *group = args_operand(a, 0);

	(void)cli;
	if (!spec_edit_remove(groups, group))
		return err_set(e, ERR_NOT_FOUND, "workspace '%s' is not in group '%.64s'", name, group);
	return json_object_set(body, "groups", groups);
}

static int change(struct cli *cli, const struct args *a, spec_edit_fn *edit, struct err *e)
{
	int r = 0;

	for (size_t i = 1; r == 0 && i < a->operand_count; i++)
		r = spec_edit(cli, a, args_operand(a, i), edit, e);
	return r;
}

static int add(struct cli *cli, const struct args *a, struct err *e) { return change(cli, a, join, e); }
static int remove_members(struct cli *cli, const struct args *a, struct err *e) { return change(cli, a, leave, e); }

static int remove_groups(struct cli *cli, const struct args *a, struct err *e)
{
	return change_each(cli, a, "DELETE", "/v1/groups/%s", NULL, e);
}

static int share_with(const struct args *a, json_t *shared, struct err *e)
{
	for (size_t i = 1; i < a->operand_count; i++) {
		uint64_t uid;
		if (str_to_u64(args_operand(a, i), UINT32_MAX, &uid) < 0)
			return err_set(e, ERR_INVALID, "'%.64s': a user id is expected (id -u NAME)", args_operand(a, i));
		for (size_t j = json_array_size(shared); j-- > 0;)
			if (json_integer_value(json_array_get(shared, j)) == (json_int_t)uid)
				(void)json_array_remove(shared, j);
		if (!args_flag(a, "stop"))
			(void)json_array_append_new(shared, json_integer((json_int_t)uid));
	}
	return 0;
}

static int try_share(struct client *client, const struct args *a, struct err *e)
{
	own_str char *path = client_path("/v1/groups/%s", args_operand(a, 0));
	own_json json_t *group = NULL, *body = NULL;
	char etag[CLIENT_ETAG_SIZE];
	int r = client_call_if(client, "GET", path, NULL, NULL, &group, etag, e);

	if (r < 0)
		return r;
	body = json_pack("{s:o}", "shared", json_deep_copy(json_object_get(group, "shared")));
	r = share_with(a, json_object_get(body, "shared"), e);
	return r < 0 ? r : client_call_if(client, "PATCH", path, etag, body, NULL, NULL, e);
}

static int share(struct cli *cli, const struct args *a, struct err *e)
{
	struct client *client;
	int r = cli_client(cli, &client, e);

	if (r < 0)
		return r;
	for (int i = 0; i < SPEC_EDIT_TRIES && (r = try_share(client, a, e)) < 0 && e->kind == ERR_PRECONDITION; i++)
		;
	return r;
}

static const struct operand one[] = { { "GROUP", "group", COMPLETE_GROUP }, { 0 } };
static const struct operand many[] = { { "GROUP", "groups that nobody is in", COMPLETE_GROUP, .many = true }, { 0 } };
static const struct operand members[] = { { "GROUP", "group", COMPLETE_GROUP }, { "WORKSPACE", "workspaces", COMPLETE_WORKSPACE,
										  .many = true }, { 0 } };
static const struct operand users[] = { { "GROUP", "group", COMPLETE_GROUP }, { "UID", "user ids", .many = true }, { 0 } };
static const struct option share_options[] = {
	{ "stop", 0, OPTION_FLAG, NULL, "share with them no longer; who is in stays in" }, { 0 }
};
static const struct example list_examples[] = { { "carrel group ls", "groups, their owners and sizes" }, { 0 } };
static const struct example show_examples[] = { { "carrel group show lab-a", "who is in it" }, { 0 } };
static const struct example add_examples[] = {
	{ "carrel group add lab-a web db", "the group is made when it is new; it is yours then" }, { 0 }
};
static const struct example remove_examples[] = { { "carrel group remove lab-a web", "acts within a second" }, { 0 } };
static const struct example rm_examples[] = { { "carrel group rm lab-a", "refused while workspaces are in it" }, { 0 } };
static const struct example share_examples[] = {
	{ "carrel group share lab-a $(id -u eve)", "eve may put her workspaces in, too" },
	{ "carrel group share lab-a --stop $(id -u eve)", "no longer" },
	{ 0 },
};
const struct verb verb_group_ls = { "group ls", "list groups", NULL, NULL, NULL, NULL, list_examples, list };
const struct verb verb_group_show = { "group show", "show a group", NULL, one, NULL, NULL, show_examples, show };
const struct verb verb_group_add = {
	"group add", "put workspaces in a group", NULL, members, change_options, NULL, add_examples, add
};
const struct verb verb_group_remove = {
	"group remove", "take workspaces out of a group", NULL, members, change_options, NULL, remove_examples, remove_members
};
const struct verb verb_group_rm = { "group rm", "remove groups", NULL, many, change_options, NULL, rm_examples, remove_groups };
const struct verb verb_group_share = {
	"group share", "let others put workspaces in a group", NULL, users, share_options, NULL, share_examples, share
};
