/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NETWORK_NETFILTER_H
#define NETWORK_NETFILTER_H

/* A socket to the kernel's packet filter, and the head of what is said on it (nfnetlink, by libmnl). */

#include <libmnl/libmnl.h>

#include "base/err.h"

int netfilter_open(struct mnl_socket **ret_socket, struct err *e) must_check;
/* `type` with its subsystem (NFNL_SUBSYS_*) in the upper byte; `flags` besides NLM_F_REQUEST. */
struct nlmsghdr *netfilter_message(void *at, unsigned type, unsigned flags, unsigned family, uint32_t sequence);

#endif
