/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_QEMU_SIZE_H
#define ENGINE_QEMU_SIZE_H

/* How many processors and how much memory a machine has: its spec and image say it at the start; a memory state, when it goes
 * on from one. */

#include "engine/launch.h"

/* At its next start, on a host with so many processors. `image` NULL: not known. */
struct launch_size machine_size_wished(const struct spec *spec, const struct image *image, unsigned host_processors);
/* At this one. */
struct launch_size machine_size(const struct launch *l);

#endif
