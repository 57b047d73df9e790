/* SPDX-License-Identifier: Apache-2.0 */
/* The list of verbs, in the order of help. */
#include "cli/cli.h"

#define VERBS(X)                                                                                                \
	X(run) X(deploy) X(ls) X(show) X(start) X(stop) X(wait) X(restart) X(pause) X(resume) X(suspend)        \
	X(move) X(clone) X(export) X(import) X(exec) X(console) X(display) X(logs) X(cp) X(rename) X(set)       \
	X(connect) X(disconnect) X(allow) X(deny) X(publish) X(unpublish) X(rm) X(why) X(events) X(doctor)      \
	X(version) X(completion) X(snapshot_create) X(snapshot_restore) X(snapshot_ls) X(snapshot_rm)           \
	X(operation_ls) X(operation_show) X(operation_wait) X(operation_cancel) X(image_import) X(image_ls)     \
	X(image_show) X(image_export) X(image_rm) X(kernel_import) X(kernel_ls) X(kernel_show)                  \
	X(kernel_default) X(kernel_rm) X(template_ls) X(template_rm) X(volume_ls) X(volume_rm)                  \
	X(network_create) X(network_ls) X(network_show) X(network_rm) X(network_test) X(group_ls)               \
	X(group_show) X(group_add) X(group_remove) X(group_rm) X(group_share) X(complete) X(man)

#define X(name) extern const struct verb verb_##name;
VERBS(X)
#undef X

const struct verb *const cli_verbs[] = {
#define X(name) &verb_##name,
	VERBS(X)
#undef X
	NULL
};

const struct noun cli_nouns[] = {
	{ "image", "import, list, show, export, rm: what can be deployed" },
	{ "kernel", "import, ls, show, default, rm: what machines boot" },
	{ "template", "ls, rm: what machines go on from instead of booting" },
	{ "snapshot", "create, restore, ls, rm: states of a workspace's volumes" },
	{ "network", "create, ls, show, rm, test: what workspaces are connected to" },
	{ "group", "ls, show, add, remove, rm, share: workspaces that rules name together" },
	{ "volume", "ls, rm: volumes that stay without a workspace" },
	{ "operation", "ls, show, wait, cancel: what is under way" },
	{ 0 },
};
