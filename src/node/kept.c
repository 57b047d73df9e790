/* SPDX-License-Identifier: Apache-2.0 */
#include "node/kept.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "model/name.h"
#include "store/volume.h"

static void list_owner(const struct node *n, const char *owner, json_t *list)
{
	own_str char *folder = mem_printf("%s/%s", n->kept, owner);
	own_dir DIR *dir = opendir(folder);
	uint64_t uid, size, used;

	if (!dir || str_to_u64(owner, UINT32_MAX, &uid) < 0)
		return;
	for (struct dirent *entry; (entry = readdir(dir));) {
		own_str char *path = mem_printf("%s/%s", folder, entry->d_name);
		if (!str_ends(entry->d_name, ".ext4") || volume_measure(path, &size, &used, NULL) < 0)
			continue;
		int fd = -1;
		bool in_use = volume_open(path, &fd, NULL) < 0;
		own_close(&fd);
		(void)json_array_append_new(list,
					    json_pack("{s:I, s:o, s:I, s:I, s:b}", "owner", (json_int_t)uid, "name",
						      json_stringn(entry->d_name, strlen(entry->d_name) - strlen(".ext4")),
						      "size", (json_int_t)size, "used", (json_int_t)used, "in-use", in_use));
	}
}

json_t *kept_list(const struct node *n)
{
	own_dir DIR *dir = opendir(n->kept);
	json_t *list = json_array();

	for (struct dirent *entry; dir && (entry = readdir(dir));)
		if (entry->d_name[0] != '.')
			list_owner(n, entry->d_name, list);
	return list;
}

int kept_remove(const struct node *n, uint64_t owner, const char *name, struct err *e)
{
	own_str char *path = mem_printf("%s/%" PRIu64 "/%s.ext4", n->kept, owner, name);
	own_fd int fd = -1;
	int r = name_check(name, e);

	if (r == 0)
		r = volume_open(path, &fd, e);
	if (r == 0 && unlink(path) < 0)
		r = err_errno(e, errno, "remove %s", path);
	return r < 0 ? err_wrap(e, "volume %s", name) : 0;
}

void kept_clean(const struct node *n)
{
	own_dir DIR *dir = opendir(n->kept);

	for (struct dirent *entry; dir && (entry = readdir(dir));) {
		own_str char *folder = mem_printf("%s/%s", n->kept, entry->d_name);
		if (entry->d_name[0] != '.')
			(void)!volume_clean_folder(folder, NULL);
	}
}
