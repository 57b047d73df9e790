/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <time.h>

#include "base/own.h"
#include "base/str.h"
#include "cli/session.h"

/* "10m" ago, or an RFC 3339 time, as milliseconds of Unix time. */
static int parse_since(const char *text, json_int_t *ret_ms, struct err *e)
{
	struct tm t = { 0 };
	char *end;
	double n = strtod(text, &end);
	const char *const units = "smhd";
	static const long seconds[] = { 1, 60, 3600, 86400 };

	const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &t);
	if (rest && (str_eq(rest, "Z") || !*rest)) {
		*ret_ms = (json_int_t)timegm(&t) * 1000;
		return 0;
	}
	for (size_t i = 0; end != text && n >= 0 && n < 1e9 && i < 4; i++)
		if (end[0] == units[i] && !end[1]) {
			*ret_ms = ((json_int_t)time(NULL) - (json_int_t)(n * (double)seconds[i])) * 1000;
			return 0;
		}
	return err_set(e, ERR_INVALID, "--since %.40s: a time such as 10m or 2026-01-31T12:00:00Z is expected", text);
}

static int logs(struct cli *cli, const struct args *a, struct err *e)
{
	own_json json_t *request = json_pack("{s:b}", "follow", args_flag(a, "follow"));
	own_str char *path = client_path("/v1/workspaces/%s/logs", args_operand(a, 0));
	const struct session session = { .path = path, .request = request };
	const char *tail = args_text(a, "tail"), *since = args_text(a, "since");
	uint64_t lines = 0;
	json_int_t since_ms = 0;
	int status, r = 0;

	if (tail && str_to_u64(tail, INT32_MAX, &lines) < 0)
		return err_set(e, ERR_INVALID, "--tail %.40s: a number of lines is expected", tail);
	if (since)
		r = parse_since(since, &since_ms, e);
	if (r < 0)
		return r;
	if (tail)
		(void)json_object_set_new(request, "tail", json_integer((json_int_t)lines));
	if (since)
		(void)json_object_set_new(request, "since_ms", json_integer(since_ms));
	r = session_run(cli, &session, &status, e);
	return r < 0 ? r : 0;
}

static const struct operand operands[] = { { "NAME", "workspace", COMPLETE_WORKSPACE }, { 0 } };
static const struct option options[] = {
	{ "follow", 'f', OPTION_FLAG, NULL, "go on with what comes" },
	{ "tail", 'n', OPTION_TEXT, "LINES", "only the last lines" },
	{ "since", 0, OPTION_TEXT, "TIME", "only what came after: 10m, 2h, or 2026-01-31T12:00:00Z" },
	{ 0 },
};
static const struct example examples[] = {
	{ "carrel logs -f web", "all there is, and what comes" },
	{ "carrel logs -n 20 web", "the last 20 lines" },
	{ 0 },
};
const struct verb verb_logs = {
	"logs", "print what a workspace's program wrote", NULL, operands, options, NULL, examples, logs
};
