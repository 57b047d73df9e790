/* SPDX-License-Identifier: Apache-2.0 */
#ifndef GUEST_DEVICE_H
#define GUEST_DEVICE_H

/* The machine's devices: modules that drive them, and finding them by the names that the host gave. */

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

/* Loads the files of `folder` whose names start with `prefix`, in the order of their names; the order is the kernel partition's
 * (docs/formats/kernel.md). One that the kernel has already, or that finds no device, is fine. */
int device_load_modules(const char *folder, const char *prefix, struct err *e) must_check;

/* The buses are looked at once more: what was not there when the kernel started is found now. */
int device_rescan(struct err *e) must_check;

/* Both wait for the kernel to announce the device, at most ten seconds; *ret_path has room for `size`. */
int device_find_disk(const char *serial, char *ret_path, size_t size, struct err *e) must_check;
int device_find_port(const char *name, char *ret_path, size_t size, struct err *e) must_check;
/* The network interface with a MAC address: its name now. */
int device_find_link(const char *mac, char *ret_name, size_t size, struct err *e) must_check;
/* The same, waiting no longer than that, and without a word. */
bool device_has_link(const char *mac, unsigned most_ms, char *ret_name, size_t size);

#endif
