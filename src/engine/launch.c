/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handing a plan over: a runner, fresh from the nursery, gets one message with the plan in a sealed memory file, and a second
 * one with the mounted volumes, which are made here while it begins. It is nobody's child (it must outlive the agent) and
 * answers on the same socket when the workspace runs or could not be started. If we die before the answer, the runner goes on;
 * the next agent finds it.
 *
 * Making a runner and mounting a root volume take longer than all the rest, so both may be there already (docs/decisions/0040).
 * A runner that was made ahead is the same process a moment earlier, reading from its socket. When it is gone - its socket
 * refuses the plan - another one is made.
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
#include "base/rights.h"
#include "engine/engine.h"
#include "engine/nursery.h"
#include "engine/workspace/plan.h"
#include "engine/workspace/volume.h"
#include "model/runner_protocol.h"

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

/* 1: nobody is there to take it. A runner that gave up said why, or died: both are found when its answer is read. */
static int send_fds(int socket, const int *fds, size_t count, struct err *e)
{
	uint32_t version = RUNNER_VERSION;

	if (rights_send(socket, &version, sizeof version, fds, count, 0) >= 0)
		return 0;
	return errno == EPIPE || errno == ECONNRESET ? 1 : err_errno(e, errno, "send the plan to carrel-run");
}

/* While the runner starts and makes the first process, the volumes are mounted here, but for a root volume that is already. */
static int send_volumes(int socket, const struct launch *l, struct err *e)
{
	struct volume_mount mounts[PLAN_FDS_MOST / 2];
	int fds[PLAN_FDS_MOST];
	size_t n = 0;
	int r = 0;

	if (l->root_mount)
		mounts[n] = *l->root_mount;
	else if ((r = volume_mount(l->root_fd, l->throw_away, &mounts[n], e)) < 0)
		(void)err_wrap(e, "volume root");
	for (; r >= 0 && n < l->volume_count; ) {
		r = volume_mount(l->volumes[n].fd, false, &mounts[n + 1], e);
		if (r < 0)
			(void)err_wrap(e, "volume %s", l->volumes[n].name);
		n++;
	}
	size_t made = r < 0 ? n : n + 1;
	for (size_t i = 0; i < made; i++) {
		fds[2 * i] = mounts[i].mount_fd;
		fds[2 * i + 1] = mounts[i].loop_fd;
	}
	if (r >= 0)
		r = send_fds(socket, fds, 2 * made, e);
	for (size_t i = l->root_mount ? 1 : 0; i < made; i++)
		volume_mount_close(&mounts[i]);
	return r < 0 ? r : 0;
}

/* A machine's disks are the files themselves, in messages of as many as one takes. */
static int send_disks(int socket, const struct launch *l, struct err *e)
{
	size_t count = l->disk_fd_count ? l->disk_fd_count : l->partition_count + 2 + l->volume_count, n = 0;
	const struct launch_travel *travel = l->disk_fd_count ? NULL : l->travel;
	own_str int *fds = mem_alloc_array(count + 7, sizeof *fds);

	for (size_t i = 0; i < l->disk_fd_count; i++)
		fds[n++] = l->disk_fds[i];
	for (size_t i = 0; n < count && i < l->partition_count; i++)
		fds[n++] = l->host_machine->partition_fds[i];
	if (n < count && l->root_fd >= 0)
		fds[n++] = l->root_fd;
	for (size_t i = 0; n < count && i < l->volume_count; i++)
		fds[n++] = l->volumes[i].fd;
	if (n < count && l->root_fd >= 0)
		fds[n++] = l->host_machine->kernel_fd;
	if (travel) {
		fds[n++] = travel->tools_fd;
		fds[n++] = travel->luggage_fd;
		fds[n++] = travel->images_fd;
	}
	if (travel && travel->arrives)
		fds[n++] = travel->folder_fd;
	if (l->memory && l->memory->state_fd >= 0) {
		if (!l->memory->template)
			fds[n++] = l->memory->folder_fd;
		fds[n++] = l->memory->state_fd;
		if (l->memory->whole_fd)
			fds[n++] = l->memory->whole_fd;
	}
	count = n;
	for (size_t at = 0; at < count; at += PLAN_FDS_MOST) {
		int r = send_fds(socket, fds + at, count - at < PLAN_FDS_MOST ? count - at : PLAN_FDS_MOST, e);
		if (r != 0)
			return r < 0 ? r : 0;
	}
	return 0;
}

static int wait_answer(int socket, struct launch_result *ret_result, struct err *e)
{
	struct runner_answer answer;
	ssize_t n;

	/* A peer that closed before it read everything makes the next call fail once; its answer is still there. */
	do
		n = recv(socket, &answer, sizeof answer, 0);
	while (n < 0 && (errno == EINTR || errno == ECONNRESET));
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

/* Returns when the runner has undone what it did: its end of the socket closes last. */
static void wait_undone(int socket)
{
	char byte;

	(void)shutdown(socket, SHUT_WR);
	while (recv(socket, &byte, 1, 0) > 0 || errno == EINTR)
		errno = 0;
}

/* The plan goes to the runner that waits, if there is one. */
static int find_runner(const struct launch *l, int plan_fd, int *ret_socket, struct err *e)
{
	const int fds[] = { plan_fd, l->memory_fd };
	size_t count = l->memory_fd > 0 ? 2 : 1;
	own_fd int socket = l->runner > 0 ? l->runner : -1;

	int r = socket < 0 ? 1 : send_fds(socket, fds, count, e);
	if (r > 0) {
		own_close(&socket);
		socket = -1;
		r = nursery_runner(&socket, e);
		if (r >= 0)
			r = send_fds(socket, fds, count, e);
	}
	*ret_socket = TAKE_FD(socket);
	return r;
}

static int hand_over(const struct launch *l, bool machine, int plan_fd, struct launch_result *ret_result, struct err *e)
{
	own_fd int socket = -1;
	int r = find_runner(l, plan_fd, &socket, e);

	if (r >= 0)
		r = machine ? send_disks(socket, l, e) : send_volumes(socket, l, e);
	if (r < 0 && socket >= 0)
		wait_undone(socket);
	else if (r >= 0)
		r = wait_answer(socket, ret_result, e);
	return r;
}

static int make_plan(const struct launch *l, const struct engine *engine, int *ret_plan_fd, struct err *e)
{
	own_strbuf struct str plan = { 0 };
	int r;

	if (l->volume_count >= PLAN_FDS_MOST / 2 - 1)
		return err_set(e, ERR_INVALID, "%zu volumes, the most is %d", l->volume_count, PLAN_FDS_MOST / 2 - 2);
	if ((r = engine->plan(l, &plan, e)) < 0)
		return r;
	return memory_file(&plan, ret_plan_fd, e);
}

int engine_launch(const struct launch *l, struct launch_result *ret_result, struct err *e)
{
	own_fd int plan_fd = -1;
	struct err ignored;

	if (!e)
		e = &ignored;
	const struct engine *engine = NULL;
	int r = engine_of(l, &engine, e), fault;
	if (r >= 0)
		r = make_plan(l, engine, &plan_fd, e);
	if (r >= 0 && (fault = fault_point("engine.start")) > 0)
		r = err_errno(e, fault, "start carrel-run");
	if (r < 0) {
		if (l->runner > 0)
			(void)close(l->runner);
		return r;
	}
	if ((r = hand_over(l, engine->machine, plan_fd, ret_result, e)) < 0)
		return r;
	r = fault_point("engine.started");
	return r > 0 ? err_errno(e, r, "after the start") : 0;
}
