/* SPDX-License-Identifier: Apache-2.0 */
#ifndef GUEST_INNER_NETWORK_H
#define GUEST_INNER_NETWORK_H

/* The machine's cards in the network namespace of the workspace inside. */

#include <stdbool.h>

#include "base/err.h"
#include "model/guest_protocol.h"

/* Those that are still the machine's own are handed over; then all are set up there, as links_configure does. */
int inner_network_set(int network_namespace, const struct guest_objects *interfaces, bool afresh, struct err *e) must_check;

#endif
