/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_QEMU_KVM_PROBE_H
#define ENGINE_QEMU_KVM_PROBE_H

/*
 * Whether KVM here runs what a kernel needs: a virtual processor executes a few instructions for real. Opening /dev/kvm, its
 * version and even a payload that only halts all succeed where KVM merely interprets guest kernels and knows half of the
 * instructions.
 */

#include "base/err.h"

/* 0, or ERR_UNSUPPORTED with the reason. Takes the process's signal SIGPROF and its profiling timer: run it in a process of its
 * own. */
int kvm_probe(struct err *e) must_check;

#endif
