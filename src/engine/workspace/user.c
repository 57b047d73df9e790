/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/workspace/user.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"

#define FILE_MOST (1 << 20)
#define ID_MOST 65535

/* Splits one line at ':' into at most `most` fields (the last may hold more colons); returns how many. */
static size_t split(char *line, char **fields, size_t most)
{
	size_t n = 0;

	for (char *at = line; at && n < most; n++) {
		fields[n] = at;
		at = strchr(at, ':');
		if (at)
			*at++ = '\0';
	}
	return n;
}

/* Calls fn for each line's fields until it returns true. */
static bool each_line(const char *text, size_t most, bool (*fn)(void *data, char **fields, size_t n), void *data)
{
	own_str char *copy = mem_strdup(text);
	char *save = NULL, *fields[8];

	for (char *line = strtok_r(copy, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		size_t n = split(line, fields, most);
		if (fn(data, fields, n))
			return true;
	}
	return false;
}

struct search {
	const char *name;
	uint64_t number; /* UINT64_MAX: by name */
	struct user *user;
};

static bool passwd_line(void *data, char **fields, size_t n)
{
	struct search *s = data;
	uint64_t uid, gid;

	if (n < 6 || str_to_u64(fields[2], ID_MOST, &uid) < 0 || str_to_u64(fields[3], ID_MOST, &gid) < 0)
		return false;
	if (s->number == UINT64_MAX ? !str_eq(fields[0], s->name) : s->number != uid)
		return false;
	s->user->uid = (uid_t)uid;
	s->user->gid = (gid_t)gid;
	(void)snprintf(s->user->home, sizeof s->user->home, "%s", fields[5]);
	s->name = mem_strdup(fields[0]);
	return true;
}

static bool group_line(void *data, char **fields, size_t n)
{
	struct search *s = data;
	uint64_t gid;

	if (n < 3 || str_to_u64(fields[2], ID_MOST, &gid) < 0 || !str_eq(fields[0], s->name))
		return false;
	s->user->gid = (gid_t)gid;
	return true;
}

static bool member_line(void *data, char **fields, size_t n)
{
	struct search *s = data;
	uint64_t gid;
	char *save = NULL;

	if (n < 4 || str_to_u64(fields[2], ID_MOST, &gid) < 0)
		return false;
	for (char *name = strtok_r(fields[3], ",", &save); name; name = strtok_r(NULL, ",", &save))
		if (str_eq(name, s->name) && s->user->group_count < USER_GROUPS_MOST)
			s->user->groups[s->user->group_count++] = (gid_t)gid;
	return false;
}

int user_resolve(const char *text, const char *passwd, const char *group, struct user *ret_user, struct err *e)
{
	struct user user = { .home = "/" };
	own_str char *name = mem_strdup(*text && *text != ':' ? text : "0");
	struct search s = { .name = name, .number = UINT64_MAX, .user = &user };
	const char *group_name = strchr(text, ':');
	own_str char *found = NULL;

	name[strcspn(name, ":")] = '\0';
	bool numeric = str_to_u64(name, ID_MOST, &s.number) == 0;
	if (each_line(passwd, 7, passwd_line, &s))
		found = (char *)(uintptr_t)s.name;
	else if (numeric)
		user.uid = (uid_t)s.number;
	else
		return err_set(e, ERR_NOT_FOUND, "no user \"%s\" in the workspace", name);
	if (group_name && group_name[1]) {
		uint64_t gid;
		struct search g = { .name = group_name + 1, .user = &user };
		if (str_to_u64(group_name + 1, ID_MOST, &gid) == 0)
			user.gid = (gid_t)gid;
		else if (!each_line(group, 4, group_line, &g))
			return err_set(e, ERR_NOT_FOUND, "no group \"%s\" in the workspace", group_name + 1);
	} else if (found) {
		struct search m = { .name = found, .user = &user };
		(void)each_line(group, 4, member_line, &m);
	}
	if (user.uid == 0 && !found)
		(void)snprintf(user.home, sizeof user.home, "/root");
	*ret_user = user;
	return 0;
}

static void read_text(const char *path, struct str *ret_text)
{
	struct stat st;
	own_fd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

	if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
		(void)!fs_read_fd(fd, FILE_MOST, ret_text, NULL);
}

int user_find(const char *text, struct user *ret_user, struct err *e)
{
	own_strbuf struct str passwd = { 0 }, group = { 0 };

	read_text("/etc/passwd", &passwd);
	read_text("/etc/group", &group);
	return user_resolve(text, str_text(&passwd), str_text(&group), ret_user, e);
}
