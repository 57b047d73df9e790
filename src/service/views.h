/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SERVICE_VIEWS_H
#define SERVICE_VIEWS_H

/* How the API shows a workspace, and what it takes to make or change one. */

#include "service/workspace.h"

#define SNAPSHOTS_MOST 100 /* of one workspace */

struct create_request {
	struct spec *spec;
	bool held;
	struct carried *carried; /* NULL: it is new */
};
struct carried { /* from another service, in a bundle */
	char *id;
	char *bundle; /* digest of its header; NULL: not said */
	struct objects snapshots; /* struct assignment_snapshot */
};

/* Keys of the spec that a change replaces whole, while the workspace runs. */
enum { CHANGE_NETWORK, CHANGE_NETWORKS, CHANGE_GROUPS, CHANGE_ALLOW, CHANGE_DENY, CHANGE_FROM, CHANGE_ISOLATED, CHANGE_PUBLISH,
       CHANGE_USER_DATA, CHANGE_SSH_KEYS, CHANGE_COUNT };

struct change_request {
	char *name;
	struct pairs labels;
	json_t *labels_given; /* NULL: labels stay */
	json_t *resources, *volumes;
	json_t *given[CHANGE_COUNT]; /* NULL: stays */
};

struct stop_request {
	uint64_t timeout_ms;
	bool discard_memory;
};
extern const struct shape stop_shape, suspend_check_shape;

struct move_request {
	unsigned engine;
	bool live;
	uint64_t timeout_ms;
};
extern const struct shape move_shape;

struct clone_request {
	uint64_t count;
	char *name_prefix; /* NULL: the original's name */
};
extern const struct shape clone_shape, template_shape;

struct snapshot_request {
	char *name;
	bool memory;
};
extern const struct shape snapshot_request_shape;

json_t *error_of_report(const struct report_error *error); /* the members, for shape error_shape */

#endif
