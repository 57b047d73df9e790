/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_CHANGE_H
#define CLI_CHANGE_H

/* Verbs that change something: a request, then the wait for its operation, which is what they print as JSON or YAML. */

#include <jansson.h>

#include "cli/cli.h"

extern const struct option change_options[]; /* --detach, --wait */

/* Sends the request (takes path and body), waits with progress, and prints; or prints the operation's id with --detach. `label`
 * says for whom the progress is. 0: done or on its way. */
int change_run(struct cli *cli, const struct args *a, const char *method, char *path, json_t *body, const char *label,
	       struct err *e) must_check;
/* The same under the condition that what `path` names still has this ETag; NULL: none. *ret_operation (may be NULL): as it
 * ended; NULL with --detach, and where there was none. */
int change_run_if(struct cli *cli, const struct args *a, const char *method, char *path, const char *etag, json_t *body,
		  const char *label, json_t **ret_operation, struct err *e) must_check;
/* What --detach prints of an answer; what a change prints that has ended: nothing in a table, the object else. */
void change_detach(const struct cli *cli, const json_t *answer);
void change_show(const struct cli *cli, const json_t *operation);
/* The wait alone, for an answer that names an operation; an interrupt cancels the operation. *ret_operation may be NULL. */
int change_wait(struct cli *cli, const json_t *answer, const char *label, json_t **ret_operation, struct err *e) must_check;
/* change_run for each operand: "/v1/workspaces/%s/stop". Goes on after a failure; the first failure is the result. The body
 * stays the caller's. */
int change_each(struct cli *cli, const struct args *a, const char *method, const char *path, const json_t *body,
		struct err *e) must_check;

#endif
