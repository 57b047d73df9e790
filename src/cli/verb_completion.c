/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "cli/complete.h"

static int completion(struct cli *cli, const struct args *a, struct err *e)
{
	const char *script = complete_script(args_operand(a, 0));
	(void)cli;

	if (!script)
		return err_set(e, ERR_INVALID, "'%.40s' is none of bash, zsh, fish", args_operand(a, 0));
	(void)fputs(script, stdout);
	return 0;
}

static int complete(struct cli *cli, const struct args *a, struct err *e)
{
	(void)e;
	complete_print(cli, a->command, a->command_count);
	return 0;
}

static const struct operand shell[] = { { "SHELL", "bash, zsh or fish", COMPLETE_SHELL }, { 0 } };
static const struct operand words[] = { { "WORD", "words of the command line", .optional = true, .command = true }, { 0 } };
static const struct example examples[] = {
	{ "source <(carrel completion bash)", "in this shell" },
	{ "carrel completion fish > ~/.config/fish/completions/carrel.fish", "in every fish of yours" },
	{ 0 },
};
const struct verb verb_completion = {
	"completion", "print the completion script of a shell",
	"Installed packages bring them already. The scripts ask this program, and it asks the service for names.",
	shell, NULL, NULL, examples, completion,
};
const struct verb verb_complete = { "__complete", "what may follow the words", NULL, words, NULL, NULL, NULL, complete,
				    .hidden = true };
