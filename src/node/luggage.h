/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_LUGGAGE_H
#define NODE_LUGGAGE_H

/*
 * What a machine wrote to its luggage (node/travel.h), as the host takes it: regular files directly in TRAVEL_FOLDER, of plain
 * names that are none of the host's own in a memory folder, together no longer than the disk. No link is followed and no mount
 * entered.
 */

#include "model/memory.h"

/* `top`: the luggage's root. Into `folder`; what was taken, with lengths and digests, is m->files, also on failure. A log of
 * CRIU stays behind. ERR_CORRUPT for what no luggage of ours has. */
int luggage_take(int top, int folder, uint64_t bytes_most, struct memory_manifest *m, struct err *e) must_check;

#endif
