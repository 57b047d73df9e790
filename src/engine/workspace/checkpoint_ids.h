/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_WORKSPACE_CHECKPOINT_IDS_H
#define ENGINE_WORKSPACE_CHECKPOINT_IDS_H

/*
 * CRIU's images name users as the workspace numbers them, in all files but one: that of the user namespace (userns-N.img,
 * CRIU's userns.proto) says which ids of the host these are. A state that was carried to another range gets that file anew;
 * pure.
 */

#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

#define CHECKPOINT_IDS "userns-" /* how the file's name begins */
#define CHECKPOINT_IDS_MOST 128  /* bytes; ours has about 40 */

/* The same with the 65536 ids from first_id on. ERR_CORRUPT: it is not the namespace of a workspace. */
int checkpoint_ids_move(const struct str *image, uint32_t first_id, struct str *ret_image, struct err *e) must_check;

#endif
