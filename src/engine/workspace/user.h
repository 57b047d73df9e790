/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_WORKSPACE_USER_H
#define ENGINE_WORKSPACE_USER_H

/* Users by the files of the image (passwd(5), group(5)), which are read as untrusted text. */

#include <sys/types.h>

#include "base/err.h"

#define USER_GROUPS_MOST 64

struct user {
	uid_t uid;
	gid_t gid;
	gid_t groups[USER_GROUPS_MOST];
	size_t group_count;
	char home[256];
};

/* `text`: "", "name", "uid", "user:group" by name or number; empty means root. Pure. */
int user_resolve(const char *text, const char *passwd, const char *group, struct user *ret_user, struct err *e) must_check;
/* The same with /etc/passwd and /etc/group of the current root; files that are not there are empty. */
int user_find(const char *text, struct user *ret_user, struct err *e) must_check;

#endif
