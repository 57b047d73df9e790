/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handing a plan over: the runner is started with one end of a socket pair as descriptor 3 and gets one message with the plan in a
 * sealed memory file and the open volumes. It leaves us at once (it must outlive the agent) and answers on the same socket when
 * the workspace runs or could not be started. If we die before the answer, the runner goes on; the next agent finds it.
 */
#include "engine/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/proc.h"
#include "engine/engine.h"
#include "model/runner_protocol.h"

#define MOST_FDS 64

static int runner_start(int *ret_socket, struct err *e)
{
	int pair[2];
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return err_errno(e, errno, "make socket pair");
	own_fd int ours = pair[0], theirs = pair[1], pidfd = -1;
	own_str char *path = mem_printf("%s/libexec/carrel/carrel-run", fs_prefix());
	const char *const argv[] = { "carrel-run", NULL };
	const struct proc_fd fds[] = { { 3, theirs }, { 0, -1 }, { 1, -1 } };
	const struct proc_spawn how = { .path = path, .argv = argv, .fds = fds, .fd_count = ARRAY_SIZE(fds), .new_session = true };
	pid_t pid;
	int status, r = proc_start(&how, &pidfd, &pid, e);

	if (r < 0 || (r = proc_wait(pidfd, &status, e)) < 0)
		return r;
	if (status != 0)
		return err_set(e, ERR_INTERNAL, "%s ended with status %d before it was asked anything", path, status);
	*ret_socket = TAKE_FD(ours);
	return 0;
}

static int memory_file(const struct str *plan, int *ret_fd, struct err *e)
{
	own_fd int fd = memfd_create("carrel-plan", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0)
		return err_errno(e, errno, "make memory file");
	int r = fs_write_all(fd, plan->bytes, plan->length, e);
	if (r < 0)
		return r;
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return err_errno(e, errno, "seal memory file");
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static int send_plan(int socket, int plan_fd, const struct launch *l, struct err *e)
{
	int fds[MOST_FDS], n = 0;

	if (l->volume_count > MOST_FDS - 2)
		return err_set(e, ERR_INVALID, "%zu volumes, the most is %d", l->volume_count, MOST_FDS - 2);
	fds[n++] = plan_fd;
	fds[n++] = l->root_fd;
	for (size_t i = 0; i < l->volume_count; i++)
		fds[n++] = l->volumes[i].fd;
	union {
		char bytes[CMSG_SPACE(sizeof fds)];
		struct cmsghdr align;
	} control = { 0 };
	uint32_t version = RUNNER_VERSION;
	struct iovec data = { &version, sizeof version };
	struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = &control,
				  .msg_controllen = CMSG_SPACE((size_t)n * sizeof(int)) };
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	*header = (struct cmsghdr){ .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN((size_t)n * sizeof(int)) };
	memcpy(CMSG_DATA(header), fds, (size_t)n * sizeof(int));
	if (sendmsg(socket, &message, MSG_NOSIGNAL) < 0)
		return err_errno(e, errno, "send plan to carrel-run");
	return 0;
}

static int wait_answer(int socket, struct launch_result *ret_result, struct err *e)
{
	struct runner_answer answer;
	ssize_t n;

	do
		n = recv(socket, &answer, sizeof answer, 0);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return err_errno(e, errno, "wait for carrel-run");
	if ((size_t)n < sizeof answer)
		return err_set(e, ERR_INTERNAL, "carrel-run died while it started the workspace");
	if (answer.result < 0) {
		*e = answer.error;
		return answer.result;
	}
	ret_result->pid = answer.status.pid;
	return 0;
}

int engine_launch(const struct launch *l, struct launch_result *ret_result, struct err *e)
{
	own_strbuf struct str plan = { 0 };
	own_fd int plan_fd = -1, socket = -1;
	const struct engine *engine = NULL;
	struct err ignored;
	int r = engine_choose(l->spec, &engine, e);

	if (!e)
		e = &ignored;
	if (r < 0 || (r = engine->plan(l, &plan, e)) < 0 || (r = memory_file(&plan, &plan_fd, e)) < 0)
		return r;
	if ((r = fault_point("engine.start")) > 0)
		return err_errno(e, r, "start carrel-run");
	if ((r = runner_start(&socket, e)) < 0 || (r = send_plan(socket, plan_fd, l, e)) < 0)
		return r;
	r = wait_answer(socket, ret_result, e);
	if (r >= 0 && (r = fault_point("engine.started")) > 0)
		return err_errno(e, r, "after the start");
	return r;
}
