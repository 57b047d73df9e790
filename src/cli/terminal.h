/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_TERMINAL_H
#define CLI_TERMINAL_H

/* The user's terminal. Raw mode ends whatever ends the program: exit, a caught signal, or abort. */

#include <stdbool.h>

#include "base/err.h"

int terminal_raw(int fd, struct err *e) must_check;
void terminal_restore(void); /* fine when nothing was changed */
/* The size of the terminal behind fd 1, 2 or 0; 24 x 80 when there is none. */
void terminal_size(unsigned *ret_rows, unsigned *ret_columns);

#endif
