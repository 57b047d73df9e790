/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_CONFIG_H
#define NODE_CONFIG_H

/* Settings of carrel-node; the table in config.c is their only description. */

#include "base/decode.h"
#include "base/settings.h"

struct config {
	char *state, *run, *name, *service, *cgroup, *store;
	unsigned log_level, mount, guest_volumes, memory;
	uint64_t first_id, id_ranges, workers, blanks, blank_bytes, ahead, keep_mounted_ms, boot_ms, memory_after_ms,
		template_bytes;
	uint64_t link_bits; /* a second, of the host's link; 0: what its device says */
	bool clean, facts;
};

enum { GUEST_VOLUMES_CHECKED, GUEST_VOLUMES_COPIED, GUEST_VOLUMES_REFUSED };
enum { MEMORY_COMPRESSED, MEMORY_KEPT };

int config_read(int argc, char **argv, struct config *ret_config, struct err *e) must_check; /* 1: only help was asked for */
void config_done(struct config *c);

#endif
