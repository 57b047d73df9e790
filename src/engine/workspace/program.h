/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_WORKSPACE_PROGRAM_H
#define ENGINE_WORKSPACE_PROGRAM_H

/* The last steps of a process inside a workspace before it becomes the program: rights away, filter on, user, folder, exec. */

#include <linux/capability.h>
#include <stdbool.h>
#include <sys/types.h>

#include "engine/workspace/plan.h"

/* capabilities(7): what reading and writing anybody's files in the workspace needs. */
#define PROGRAM_COPIES                                                                                                         \
	(1u << CAP_CHOWN | 1u << CAP_DAC_OVERRIDE | 1u << CAP_DAC_READ_SEARCH | 1u << CAP_FOWNER | 1u << CAP_FSETID |          \
	 1u << CAP_MKNOD | 1u << CAP_SETFCAP)

struct program {
	const char *const *argv;
	const char *const *environment;
	const char *user, *directory; /* "" when not given */
	int standard[3];              /* -1: /dev/null */
	bool terminal;                /* standard[0] is one: becomes the controlling terminal of a new session */
	bool no_new_privileges;
	bool make_directory;
};

/* Capabilities outside `keep` are gone from the bounding set and from this process. */
int program_keep_capabilities(uint64_t keep, struct err *e) must_check;
int program_install_filter(const struct plan *p, struct err *e) must_check;
/* Only returns when it fails. */
int program_execute(const struct plan *p, const struct program *what, struct err *e) must_check;
/* The plan's variables with `more` (NULL: none) on top of them; NULL-terminated, the caller frees the list only. */
const char **program_environment(const struct plan *p, const char *const *more, bool terminal);
/* The signal that makes an init power off, or 0: run "/sbin/init 0" there. */
int program_init_signal(pid_t init);
/* Becomes carrel-first, with all signals blocked and nothing open. `child` 0: no program. Only returns when it fails. */
int program_be_first(pid_t child, struct err *e) must_check;
/* The other end of a terminal whose master is /dev/pts/ptmx of the workspace, where anything may lie. */
int program_terminal(int master, int *ret_peer, struct err *e) must_check;

#endif
