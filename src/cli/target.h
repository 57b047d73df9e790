/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_TARGET_H
#define CLI_TARGET_H

#include "base/err.h"

/*
 * The file that a user wants written, which is made beside and renamed when it is whole: what a link leads to, so that the link
 * stays. ERR_INVALID for what is there and is no regular file: a rename would put a file in the place of a device. The caller
 * frees.
 */
int target_of(const char *file, char **ret_path, struct err *e) must_check;

#endif
