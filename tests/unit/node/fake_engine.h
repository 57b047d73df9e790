/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FAKE_ENGINE_H
#define FAKE_ENGINE_H

/* The engine's calls without processes: a run is a row in a table that the test ends when it likes. */

#include <stdbool.h>

void fake_reset(void);
bool fake_runs(const char *id);             /* a runner is there */
unsigned fake_starts(const char *id);       /* launches that were tried */
void fake_end(const char *id, int status);  /* the program ends and its runner goes */
void fake_fail_next(int number);            /* the next launch fails with this errno */
bool fake_paused(const char *id);

#endif
