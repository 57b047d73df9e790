/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_KERNEL_H
#define STORE_KERNEL_H

/*
 * Kernel partitions: what a machine boots (docs/formats/kernel.md). Made from a distribution's kernel package, by a child
 * without rights; equal packages give equal partitions.
 */

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/hash.h"
#include "base/str.h"

/* Reads a Debian package of a kernel, or a tar with its boot/ and lib/modules/, from `package_fd` (a file) and writes the
 * partition to `partition_fd` (an empty file). Refused: a package without kernel, or one that lacks something that machines
 * need (ERR_UNSUPPORTED names it). */
int kernel_build(int package_fd, int partition_fd, struct err *e) must_check;

struct kernel_about {
	char release[128];     /* "6.1.0-56-cloud-amd64" */
	char architecture[16]; /* as images have it: "amd64" */
	uint64_t modules;
};
int kernel_describe(int partition_fd, struct kernel_about *ret_about, struct err *e) must_check;

/* --- kernel_modules.c --- */

/* From the section .modinfo of a 64-bit little-endian ELF file; *ret_depends: names with commas, "" for none; the caller
 * frees. */
int kernel_module_depends(const void *bytes, size_t length, char **ret_depends, struct err *e) must_check;
/* Its texts "alias=...", "depends=..." and "softdep=...", each with a NUL behind it. */
int kernel_module_infos(const void *bytes, size_t length, struct str *ret_infos, struct err *e) must_check;
/* Without the signature that is appended to it: it guards nothing here, and checking it costs time at each start. */
size_t kernel_module_unsigned_length(const void *bytes, size_t length);

/* --- kernel_image.c --- */

/* Where the packed kernel is in a bzImage; false: this is none, or one that does not tell. */
bool kernel_image_payload(const void *bytes, size_t length, size_t *ret_offset, size_t *ret_length);
/* Of x86_64. */
bool kernel_image_is_elf(const void *bytes, size_t length);

/* --- kernel_config.c --- */

/* It is built in: a line "CONFIG_OPTION=y". */
bool kernel_config_has(const char *config, const char *option);

/* ERR_UNSUPPORTED names what the configuration lacks. `architecture`: receives what it was built for. */
int kernel_check_config(const char *config, char ret_architecture[16], struct err *e) must_check;

#endif
