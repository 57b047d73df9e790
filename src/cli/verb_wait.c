/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A workspace runs as soon as its first program was executed; a system that boots in it is of use later. That is asked of the
 * system itself, by a program inside: it is the only one who knows, on every engine and after every move or resume.
 */
#include <poll.h>
#include <stdio.h>

#include "base/decode.h"
#include "base/loop.h"
#include "base/own.h"
#include "base/str.h"
#include "cli/print.h"
#include "cli/session.h"

#define EACH_MS 250
#define TIMEOUT "5m"

enum { READY = 0, DEGRADED = 10, MAINTENANCE = 11, STARTING = 12, NO_SHELL = 127 };

/* Anything but systemd does not tell, and is ready when it runs. */
static const char question[] = "case $(readlink -f /proc/1/exe) in */systemd) ;; *) exit 0 ;; esac\n"
			       "case $(systemctl is-system-running 2>/dev/null) in running) exit 0 ;; degraded) exit 10 ;;\n"
			       "maintenance | stopping) exit 11 ;; esac; exit 12\n";

static int ask(struct cli *cli, const char *name, int *ret_status, struct err *e)
{
	own_json json_t *request = json_pack("{s:[s,s,s], s:s, s:b, s:b}", "command", "/bin/sh", "-c", question, "user", "0",
					     "terminal", 0, "stdin", 0);
	own_str char *path = client_path("/v1/workspaces/%s/exec", name);
	const struct session session = { .path = path, .request = request };
	int r = session_run(cli, &session, ret_status, e);

	if (r < 0 && e->kind == ERR_NOT_FOUND) { /* no shell inside: a single program */
		*ret_status = NO_SHELL;
		err_clear(e);
		r = SESSION_ENDED;
	}
	return r;
}

/* 1: as wanted; 0: not yet. What will never be is an error. */
static int look_at_state(struct cli *cli, const char *name, const char *wanted, struct err *e)
{
	own_str char *path = client_path("/v1/workspaces/%s", name);
	own_json json_t *workspace = NULL;
	struct client *client;
	int r = cli_client(cli, &client, e);

	if (r == 0)
		r = client_call(client, "GET", path, NULL, &workspace, e);
	if (r < 0)
		return r;
	const char *state = json_text_at(workspace, "state", "");
	bool ended = str_eq(state, "failed") || str_eq(state, "stopped") || str_eq(state, "suspended");
	if (str_eq(state, wanted))
		return 1;
	if (ended && str_eq(wanted, "running") && !json_object_get(workspace, "operation") &&
	    !json_object_get(json_object_get(workspace, "spec"), "restart")) {
		(void)err_set(e, ERR_CONFLICT, "workspace %s is %s", name, state);
		return err_hint(e, "carrel why %s", name);
	}
	return 0;
}

static int look_inside(struct cli *cli, const char *name, struct err *e)
{
	int status = STARTING;
	int r = ask(cli, name, &status, e);

	if (r < 0)
		return e->kind == ERR_UNSUPPORTED ? r : 0; /* it stopped or was moved just now: its state tells */
	if (status == DEGRADED && !cli->quiet)
		(void)fprintf(stderr, "%s: ready, but services failed: carrel exec %s -- systemctl --failed\n", name, name);
	if (status == MAINTENANCE)
		return err_set(e, ERR_CONFLICT, "the system in %s does not come up: it is in maintenance or stops", name);
	return status == READY || status == DEGRADED || status == NO_SHELL;
}

static int wait_for_one(struct cli *cli, const char *name, const char *wanted, uint64_t deadline_ms, struct err *e)
{
	bool ready = str_eq(wanted, "ready");

	for (;;) {
		int r = look_at_state(cli, name, ready ? "running" : wanted, e);
		if (r > 0 && ready)
			r = look_inside(cli, name, e);
		if (r != 0)
			return r < 0 ? r : 0;
		if (cli_interrupted)
			return err_set(e, ERR_CANCELLED, "interrupted");
		if (loop_now_ms() >= deadline_ms)
			return err_set(e, ERR_TIMEOUT, "workspace %s is not %s yet", name, wanted);
		(void)poll(NULL, 0, EACH_MS);
	}
}

static int wait_for_workspaces(struct cli *cli, const struct args *a, struct err *e)
{
	const char *wanted = args_text(a, "for") ? args_text(a, "for") : "ready", *timeout = args_text(a, "timeout");
	uint64_t ms;

	if (decode_duration(timeout ? timeout : TIMEOUT, &ms) < 0)
		return err_set(e, ERR_INVALID, "--timeout %.40s: a time like 30s or 5m is expected", timeout);
	uint64_t deadline_ms = loop_now_ms() + ms;
	int r = cli_catch_interrupt(cli, e);
	for (size_t i = 0; r == 0 && i < a->operand_count; i++)
		r = wait_for_one(cli, args_operand(a, i), wanted, deadline_ms, e);
	return r;
}

static const char *const states[] = { "ready", "running", "paused", "suspended", "stopped", NULL };
static const struct operand operands[] = { { "NAME", "workspaces", COMPLETE_WORKSPACE, .many = true }, { 0 } };
static const struct option options[] = {
	{ "for", 0, OPTION_TEXT, "STATE", "ready (the default), running, paused, suspended or stopped", states },
	{ "timeout", 0, OPTION_TEXT, "TIME", "give up after this time (" TIMEOUT ")" },
	{ 0 },
};
static const struct example examples[] = {
	{ "carrel start web && carrel wait web", "until its services are up" },
	{ "carrel wait --for stopped --timeout 1h job", "until it has ended" },
	{ 0 },
};
const struct verb verb_wait = {
	"wait",
	"wait until workspaces are ready, or in a state",
	"A workspace runs as soon as its program, or its system's init, was started. It is ready when the system in it says "
	"that it has booted (systemd: "
	"is-system-running); a program, and any other init, is ready when it runs.",
	operands,
	options,
	NULL,
	examples,
	wait_for_workspaces,
};
