/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_DOCTOR_FIX_H
#define CLI_DOCTOR_FIX_H

#include "base/err.h"

/* What can be put right on this machine, as root: QEMU's user mode is registered with the kernel for programs of other
 * processors. Says on standard output what was done. */
int doctor_fix(struct err *e) must_check;

#endif
