/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/cli.h"

#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "cli/doctor_fix.h"
#include "cli/print.h"

static char *mark(const json_t *item, const json_t *value)
{
	bool required = str_eq(json_text_at(item, "need", ""), "required");
	return mem_strdup(json_is_true(value) ? "yes" : required ? "MISSING" : "no");
}

/* What it is; where something lacks, what to do about it. */
static char *detail(const json_t *item, const json_t *value)
{
	const char *said = json_is_string(value) ? json_string_value(value) : "", *hint = json_text_at(item, "hint", "");
	return *hint ? mem_printf("%s%s%s", said, *said ? ": " : "", hint) : mem_strdup(said);
}

/* Prints one host; false: it lacks what is required. */
static bool print_host(const struct cli *cli, const json_t *host)
{
	static const struct column columns[] = {
		{ "HERE", "ok", mark }, { "WHAT", "name", NULL }, { "DETAIL", "detail", detail }, { 0 }
	};
	const json_t *items = json_at(host, "facts.items"), *item;
	bool fine = json_is_true(json_at(host, "connected"));
	own_strbuf struct str name = { 0 };
	size_t i;

	print_escape(&name, json_text_at(host, "name", "?"));
	(void)printf("host %s: %s, Linux %s, %s\n", str_text(&name), fine ? "connected" : "NOT CONNECTED",
		     json_text_at(host, "facts.kernel", "?"), json_text_at(host, "facts.machine", "?"));
	if (items)
		print_list(cli, items, columns);
	json_array_foreach(items, i, item)
		fine &= json_is_true(json_at(item, "ok")) || !str_eq(json_text_at(item, "need", ""), "required");
	return fine;
}

static int doctor(struct cli *cli, const struct args *a, struct err *e)
{
	own_json json_t *object = NULL;
	struct client *client;
	const json_t *hosts, *host;
	bool fine = true;
	size_t i;
	int r = cli_client(cli, &client, e);

	if (r == 0 && args_flag(a, "fix"))
		r = doctor_fix(e);
	if (r == 0)
		r = client_call(client, "GET", "/v1/doctor", NULL, &object, e);
	if (r < 0)
		return r;
	if (cli->format != FORMAT_TABLE) {
		print_object(cli, object);
		return 0;
	}
	hosts = json_at(object, "hosts");
	(void)printf("service: version %s\n", json_text_at(object, "version", "?"));
	json_array_foreach(hosts, i, host)
		fine &= print_host(cli, host);
	if (json_array_size(hosts) == 0)
		return err_set(e, ERR_UNAVAILABLE, "the service has no host: is carrel-node running?");
	return fine ? 0 : err_set(e, ERR_PRECONDITION, "a host lacks what workspaces need (MISSING, or not connected, above)");
}

static const struct option options[] = {
	{ "fix", 0, OPTION_FLAG, NULL,
	  "as root, on a host: have the kernel run programs of other processors by QEMU's user mode" },
	{ 0 },
};
static const struct example examples[] = { { "carrel doctor", "what each host can do and what it lacks" }, { 0 } };
const struct verb verb_doctor = {
	"doctor", "say what the hosts can do and what is missing", NULL, NULL, options, NULL, examples, doctor
};
