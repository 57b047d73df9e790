/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_TAR_EXPORT_H
#define STORE_TAR_EXPORT_H

/*
 * A stack of partitions as one tar. Entries come in the order in which their inodes were made (a directory before what it
 * holds), so the writer makes the same partition of the tar of one partition again, byte for byte.
 */

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "store/erofs_reader.h"
#include "store/tar_writer.h"

#define TAR_EXPORT_ENTRIES_MOST 16000000

/* `readers`: lowest first. `merge`: what a workspace sees of the stack, whiteouts applied; else there is one reader and its
 * whiteouts become those of OCI layers. Sockets have no form in tar: they are left out, and counted in out->sockets. */
int tar_export(struct erofs_reader *const *readers, size_t count, bool merge, struct tar_writer *out, struct err *e) must_check;

#endif
