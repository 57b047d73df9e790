/* SPDX-License-Identifier: Apache-2.0 */
/*
 * carrel, the command line. It asks the service for everything and is started often: nothing is loaded or read that the verb at
 * hand does not need.
 */
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/own.h"
#include "base/str.h"
#include "cli/help.h"
#include "cli/print.h"
#include "cli/terminal.h"

static const char *const format_names[] = { "table", "json", "yaml", NULL };

const struct option cli_options[] = {
	{ "format", 0, OPTION_TEXT, "FORMAT", "form of what is printed", format_names },
	{ "address", 0, OPTION_TEXT, "ADDRESS", "address of the service: unix:/PATH or https://HOST:PORT (CARREL_ADDRESS)",
	  .complete = COMPLETE_FILE },
	{ "quiet", 'q', OPTION_FLAG, NULL, "print less: no progress, of lists only the names" },
	{ "help", 'h', OPTION_FLAG, NULL, "print this help" },
	{ "version", 0, OPTION_FLAG, NULL, "print the version" },
	{ 0 },
};

volatile sig_atomic_t cli_interrupted;

static void on_interrupt(int number)
{
	cli_interrupted = number;
	(void)signal(number, SIG_DFL);
}

int cli_catch_interrupt(struct cli *cli, struct err *e)
{
	const struct sigaction action = { .sa_handler = on_interrupt }; /* no SA_RESTART: waits end */
	struct client *client;
	int r = cli_client(cli, &client, e);

	if (r < 0)
		return r;
	if (sigaction(SIGINT, &action, NULL) < 0 || sigaction(SIGTERM, &action, NULL) < 0)
		return err_errno(e, errno, "catch signals");
	client_set_interrupt(client, &cli_interrupted);
	return 0;
}

int cli_client(struct cli *cli, struct client **ret_client, struct err *e)
{
	if (!cli->client) {
		int r = client_new(cli->address, &cli->client, e);
		if (r < 0)
			return r;
	}
	*ret_client = cli->client;
	return 0;
}

void cli_report(const struct cli *cli, const struct err *e)
{
	own_strbuf struct str out = { 0 };
	const char *red = cli->color ? "\x1b[31m" : "", *plain = cli->color ? "\x1b[0m" : "";

	str_printf(&out, "carrel: %serror:%s ", red, plain);
	print_escape(&out, e->message[0] ? e->message : err_kind_name(e->kind));
	str_putc(&out, '\n');
	if (e->hint[0]) {
		str_puts(&out, "hint: ");
		print_escape(&out, e->hint);
		str_putc(&out, '\n');
	}
	(void)!write(STDERR_FILENO, out.bytes, out.length);
}

/* A descriptor that the caller closed must not become a file or a socket of ours; writing to it fails as it would have. */
static void hold_standard_fds(void)
{
	for (int fd = 0; fd <= 2; fd++)
		if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
			(void)!open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY);
}

static int choose_format(struct cli *cli, const struct args *a, struct err *e)
{
	const char *name = args_text(a, "format");

	if (!name && !(name = getenv("CARREL_FORMAT")))
		return 0;
	for (int f = 0; format_names[f]; f++)
		if (str_eq(name, format_names[f])) {
			cli->format = (enum format)f;
			return 0;
		}
	return err_set(e, ERR_INVALID, "the format '%.40s' is none of table, json, yaml", name);
}

static int print_help(const struct args *a)
{
	own_strbuf struct str out = { 0 };

	if (a->verb)
		help_verb(&out, a->verb);
	else if (a->noun)
		help_noun(&out, a->noun);
	else
		help_all(&out);
	(void)fputs(out.bytes, stdout);
	return 0;
}

static int run_verb(struct cli *cli, const struct args *a, struct err *e)
{
	int r = choose_format(cli, a, e);

	if (r < 0)
		return r;
	cli->address = args_text(a, "address");
	cli->quiet = args_flag(a, "quiet");
	if (args_flag(a, "help"))
		return print_help(a);
	if (args_flag(a, "version")) {
		(void)puts("carrel " CARREL_VERSION);
		return 0;
	}
	return a->verb ? a->verb->run(cli, a, e) : print_help(a);
}

static int finish_output(int status, struct err *e)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return status;
	int r = err_errno(e, errno ? errno : EIO, "write to standard output");
	return status > 0 ? status : r;
}

int main(int count, char **words)
{
	struct cli cli = { .output_terminal = isatty(STDOUT_FILENO), .error_terminal = isatty(STDERR_FILENO) };
	struct args args;
	struct err e = { 0 };
	(void)count;

	hold_standard_fds();
	(void)setlocale(LC_CTYPE, "C.UTF-8");
	cli.color = cli.error_terminal && !getenv("NO_COLOR");
	int status = args_parse((const char *const *)words + 1, &args, &e);
	if (status == 0) {
		status = run_verb(&cli, &args, &e);
		args_done(&args);
	}
	status = finish_output(status, &e);
	terminal_restore();
	if (cli.client)
		client_free(cli.client);
	if (status >= 0)
		return status;
	cli_report(&cli, &e);
	return cli.failure_status ? cli.failure_status : err_kind_exit_code(e.kind);
}
