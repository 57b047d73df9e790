/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_KVM_H
#define NODE_KVM_H

#include "node/node.h"

/* Whether KVM really works on this host: found out once in each boot, by carrel-kvm in a process of its own, and kept in
 * RUN/node/kvm. ERR_UNSUPPORTED with the reason. From any thread. */
int kvm_check(const struct node *n, struct err *e) must_check;

#endif
