/* SPDX-License-Identifier: Apache-2.0 */
/* hello SOCKET FILE: libmicrohttpd with one thread and epoll, answering every request with FILE's bytes from memory: the limit
 * that a service on this library can reach on this machine. */
#include <microhttpd.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static char content[4 << 20];
static size_t length;

static enum MHD_Result handle(void *data, struct MHD_Connection *connection, const char *url, const char *method,
			      const char *version, const char *bytes, size_t *size, void **context)
{
	(void)data, (void)url, (void)method, (void)version, (void)bytes, (void)size;
	if (!*context) {
		*context = content;
		return MHD_YES;
	}
	struct MHD_Response *response = MHD_create_response_from_buffer(length, content, MHD_RESPMEM_PERSISTENT);
	enum MHD_Result result = MHD_queue_response(connection, MHD_HTTP_OK, response);
	MHD_destroy_response(response);
	return result;
}

int main(int argc, char **argv)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	FILE *file = argc == 3 ? fopen(argv[2], "r") : NULL;
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	if (!file)
		return 2;
	length = fread(content, 1, sizeof content, file);
	(void)fclose(file);
	(void)snprintf(address.sun_path, sizeof address.sun_path, "%s", argv[1]);
	if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 1024) < 0)
		return 1;
	struct MHD_Daemon *daemon = MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD, 0, NULL, NULL, handle, NULL,
						     MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT, 1000u,
						     MHD_OPTION_END);
	if (!daemon)
		return 1;
	for (;;)
		(void)pause();
}
