/* SPDX-License-Identifier: Apache-2.0 */
#include "store/check.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/err_json.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/proc.h"
#include "base/str.h"

#define ANSWER_MOST 65536

static char *program(void)
{
	const char *folder = getenv("CARREL_LIBEXEC");
	return folder ? mem_printf("%s/carrel-check", folder) : mem_printf("%s/libexec/carrel/carrel-check", fs_prefix());
}

static int take_answer(const struct str *text, int status, struct err *e)
{
	json_t *answer = json_loadb(text->bytes ? text->bytes : "", text->length, 0, NULL),
	       *error = json_object_get(answer, "error");
	const char *kind = json_string_value(json_object_get(error, "kind")),
		   *message = json_string_value(json_object_get(error, "message"));
	int r = 0;

	if (kind && message)
		r = err_set(e, err_kind_from_name(kind), "%s", message);
	else if (status != 0 || !json_is_object(answer))
		r = err_set(e, ERR_INTERNAL, "the program that checks volumes ended with status %d", status);
	json_decref(answer);
	return r;
}

static int run_check(const char *const *argv, int fd, struct err *e)
{
	own_strbuf struct str answer = { 0 };
	own_fd int pidfd = -1;
	int pair[2], status = 0;
	pid_t pid;

	if (pipe2(pair, O_CLOEXEC) < 0)
		return err_errno(e, errno, "make a pipe");
	own_fd int reading = pair[0], writing = pair[1];
	const struct proc_fd fds[] = { { 0, -1 }, { 1, writing }, { CHECK_FD, fd } };
	const struct proc_spawn how = { .argv = argv, .fds = fds, .fd_count = ARRAY_SIZE(fds), .die_with_parent = false };
	int r = proc_start(&how, &pidfd, &pid, e);
	if (r < 0)
		return r;
	(void)close(TAKE_FD(writing));
	r = fs_read_fd(reading, ANSWER_MOST, &answer, e);
	int ended = proc_wait(pidfd, &status, r < 0 ? NULL : e);
	if (r >= 0)
		r = ended;
	return r < 0 ? r : take_answer(&answer, status, e);
}

int check_volume(int fd, struct err *e)
{
	own_str char *path = program();
	const char *const argv[] = { path, NULL };

	return run_check(argv, fd, e);
}

int check_disk(int fd, uint64_t base_bytes, struct err *e)
{
	own_str char *path = program(), *bytes = mem_printf("%" PRIu64, base_bytes);
	const char *const argv[] = { path, "disk", bytes, NULL };

	return run_check(argv, fd, e);
}
