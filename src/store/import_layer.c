/* SPDX-License-Identifier: Apache-2.0 */
#include "store/import_layer.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/decode.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/proc.h"
#include "store/import_wire.h"

struct layer_conversion {
	char *name;
	int output_fd, answer_fd, pidfd;
};

static void release(struct layer_conversion *c)
{
	if (c->output_fd >= 0)
		(void)close(c->output_fd);
	if (c->answer_fd >= 0)
		(void)close(c->answer_fd);
	if (c->pidfd >= 0)
		(void)close(c->pidfd);
	free(c->name);
	free(c);
}

int layer_conversion_start(struct store_session *session, const char *name, int input_fd, bool is_partition,
			   struct layer_conversion **ret_conversion, struct err *e)
{
	own_fd int answer_write = -1;
	int pair[2];
	struct layer_conversion *c = mem_alloc(sizeof *c);
	(void)is_partition;
	*c = (struct layer_conversion){ .name = mem_strdup(name), .output_fd = -1, .answer_fd = -1, .pidfd = -1 };
	int r = store_session_file(session, name, &c->output_fd, e);
	if (r == 0 && pipe2(pair, O_CLOEXEC) < 0)
		r = err_errno(e, errno, "pipe");
	if (r == 0) {
		c->answer_fd = pair[0];
		answer_write = pair[1];
		own_str char *path = wire_program("carrel-convert");
		const char *const argv[] = { "carrel-convert", NULL };
		const struct proc_fd fds[] = { { 0, input_fd }, { 1, c->output_fd }, { 3, answer_write } };
		const struct proc_spawn how = { .path = path, .argv = argv, .fds = fds, .fd_count = 3, .die_with_parent = true };
		r = proc_start(&how, &c->pidfd, NULL, e);
	}
	if (r < 0) {
		release(c);
		return r;
	}
	*ret_conversion = c;
	return 0;
}

int layer_conversion_fd(const struct layer_conversion *c) { return c->pidfd; }

int layer_conversion_finish(struct layer_conversion *c, struct layer_result *ret_result, struct err *e)
{
	own_strbuf struct str answer = { 0 };
	int status;
	int r = fs_read_fd(c->answer_fd, 65536, &answer, e);
	if (r == 0)
		r = proc_wait(c->pidfd, &status, e);
	if (r < 0)
		return r;
	json_t *json = json_loadb(str_text(&answer), answer.length, 0, NULL);
	const char *plain = json_string_value(json_object_get(json, "plain"));
	const char *partition = json_string_value(json_object_get(json, "partition"));
	const json_t *error = json_object_get(json, "error");
	const char *kind = json_string_value(json_object_get(error, "kind")), *message = json_string_value(json_object_get(error, "message"));
	if (status != 0 || !plain || !partition)
		r = err_set(e, kind ? err_kind_from_name(kind) : ERR_INTERNAL, "the layer cannot be converted: %s",
			    message ? message : "carrel-convert ended without an answer");
	if (r == 0)
		r = digest_parse(plain, &ret_result->plain, e);
	if (r == 0)
		r = digest_parse(partition, &ret_result->partition, e);
	ret_result->partition_bytes = (uint64_t)lseek(c->output_fd, 0, SEEK_END);
	json_decref(json);
	return r;
}

int layer_conversion_put(struct layer_conversion *c, struct store_session *session, const struct layer_result *result, struct err *e)
{
	return store_put_file(session, c->name, c->output_fd, STORE_PARTITION, &result->partition, e);
}

void layer_conversion_free(struct layer_conversion *c)
{
	int status;
	if (c->pidfd >= 0 && proc_signal(c->pidfd, SIGKILL, NULL) == 0 && proc_wait(c->pidfd, &status, NULL) < 0)
		errno = 0;
	release(c);
}

int layer_stack_has_init(const int *fds, size_t count, bool *ret_init, struct err *e)
{
	(void)fds;
	(void)count;
	(void)e;
	*ret_init = false;
	return 0;
}
