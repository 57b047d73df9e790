/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_COMPLETE_H
#define CLI_COMPLETE_H

#include "cli/cli.h"

/*
 * What may follow: one candidate a line, "WORD\tWHAT IT IS". `words` are those before the cursor without the program's name,
 * the last one is the one that is being typed (maybe empty). A first line ":file" or ":folder" asks the shell for names of
 * files, too. Never fails: without a service there are just no names of things.
 */
void complete_print(struct cli *cli, const char *const *words, size_t count);
/* The script for "bash", "zsh", "fish"; NULL: another word. */
const char *complete_script(const char *shell);

#endif
