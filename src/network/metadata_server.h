/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NETWORK_METADATA_SERVER_H
#define NETWORK_METADATA_SERVER_H

/*
 * The server behind the metadata address, in two processes. The agent accepts connections, asks the kernel for the mark that
 * the filter gave each (the attachment's number), and hands connection and identity on; it reads nothing of what a workspace
 * sends. carrel-metadata, a process without files, rights or network of its own, reads the request and answers. When it dies
 * the next connection starts another.
 */

#include "base/loop.h"
#include "network/metadata.h"

struct metadata_server;

/* The identity of an attachment, a new reference; NULL: nobody we know. On the loop's thread. */
typedef json_t *metadata_lookup_fn(void *data, uint32_t attachment);

/* Listens on a port of all addresses that the kernel chooses: the filter leads to it and guards it. */
int metadata_server_new(struct loop *l, metadata_lookup_fn *lookup, void *data, struct metadata_server **ret_server,
			struct err *e) must_check;
void metadata_server_free(struct metadata_server *s);
uint16_t metadata_server_port(const struct metadata_server *s);

#endif
