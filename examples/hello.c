/* SPDX-License-Identifier: Apache-2.0 */
/* The whole life of a workspace: deploy, wait, run a program in it, remove.  cc hello.c $(pkg-config --cflags --libs
 * libcarrel) */
#include <carrel/carrel.h>
#include <stdio.h>
#include <string.h>

static void print_output(void *data, int channel, const char *bytes, size_t length)
{
	(void)data;
	(void)fwrite(bytes, 1, length, channel == 1 ? stdout : stderr);
}

static int fail(struct carrel *c)
{
	(void)fprintf(stderr, "hello: %s\n%s\n", carrel_error_message(c), carrel_error_hint(c));
	int status = carrel_error_exit_code(c);
	carrel_close(c);
	return status;
}

int main(int count, char **words)
{
	const struct carrel_stream_calls calls = { .output = print_output };
	struct carrel_stream *stream = NULL;
	struct carrel *c = NULL;
	char spec[512], *workspace = NULL, *operation = NULL;
	int status = 0;

	(void)snprintf(spec, sizeof spec, "{\"name\":\"hello\",\"image\":\"%s\",\"command\":[\"sleep\",\"60\"]}",
		       count > 1 ? words[1] : "debian");
	if (carrel_open(NULL, &c) < 0 || carrel_deploy(c, spec, 0, &workspace) < 0)
		return fail(c);
	(void)printf("deployed: %.60s...\n", workspace);
	carrel_free(workspace);

	if (carrel_start(c, "hello", &operation) < 0 || carrel_wait(c, operation, NULL, NULL, NULL) < 0)
		return fail(c);
	carrel_free(operation);

	if (carrel_exec(c, "hello", "{\"command\":[\"echo\",\"hello from a workspace\"]}", &calls, NULL, &stream) < 0 ||
	    carrel_stream_run(stream, &status) < 0)
		return fail(c);
	carrel_stream_close(stream);

	if (carrel_remove(c, "hello", 1, &operation) < 0 || carrel_wait(c, operation, NULL, NULL, NULL) < 0)
		return fail(c);
	carrel_free(operation);
	carrel_close(c);
	return status;
}
