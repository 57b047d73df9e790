/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SERVICE_FAMILY_H
#define SERVICE_FAMILY_H

/* The clones of each workspace: found without a look at all workspaces, which mass starts report of by the thousand. */

#include "base/map.h"

struct workspace;

/* Starts as `{0}`. */
struct families {
	struct map by_original;
};

/* `w` joins the clones of its original, if it is one; its origin does not change while it is there. */
void family_join(struct families *all, struct workspace *w);
void family_leave(struct families *all, struct workspace *w);
/* The clone that joined last, or NULL; the others follow as next_clone. The original may be gone. */
struct workspace *family_first(const struct families *all, const char *original);
void families_done(struct families *all);

#endif
