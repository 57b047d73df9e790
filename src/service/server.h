/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SERVICE_SERVER_H
#define SERVICE_SERVER_H

/* HTTP on a unix socket: libmicrohttpd without threads, its epoll descriptor within our loop. It ends with the process:
 * connections are not drained, clients try again. */

#include "service/request.h"

#define BODY_MOST (1 << 20)

struct server;
int server_start(struct service *s, const char *socket_path, struct server **ret_server, struct err *e) must_check;
size_t server_connections(const struct server *s);

#endif
