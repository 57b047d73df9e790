/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. saving -> saved -> committed, and from each but the last back to life: when the state cannot be written, when the
 * agent hangs up, when the manifest cannot be put in its place. The rename is the point of no return, so nothing that may fail
 * follows it: the machine is killed, and if this process should die first, the machine dies with it.
 */
#include "runner/suspend.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/own.h"
#include "model/memory_place.h"
#include "runner/checkpoint.h"
#include "runner/machine.h"
#include "runner/network.h"

struct suspend {
	struct runner *runner;
	int fd, folder;
	bool departs; /* the workspace inside a machine */
	bool ran; /* and goes on if it is not suspended */
	struct loop_source *source;
	suspend_answer_fn *answer;
};

/* MANIFEST.new into its place, for good. */
static int put_manifest(int folder, struct err *e)
{
	if (renameat(folder, MEMORY_MANIFEST ".new", folder, MEMORY_MANIFEST) < 0)
		return err_errno(e, errno, "put the memory state's manifest in its place");
	if (fsync(folder) == 0)
		return 0;
	int number = errno;
	(void)unlinkat(folder, MEMORY_MANIFEST, 0);
	return err_errno(e, number, "sync the memory state's manifest");
}

int suspend_take_manifest(int folder, struct err *e)
{
	if (unlinkat(folder, MEMORY_MANIFEST, 0) < 0 && errno != ENOENT)
		return err_errno(e, errno, "take the memory state's manifest away");
	return fsync(folder) < 0 ? err_errno(e, errno, "sync the memory folder") : 0;
}

static void done(struct suspend *s)
{
	s->runner->suspending = false;
	loop_remove(s->source);
	(void)close(s->fd);
	(void)close(s->folder);
	free(s);
}

static void went_on(void *data, int result, const struct err *e)
{
	struct runner *r = data;

	if (result < 0) {
		log_error(e, "workspace %s does not go on", r->plan.id);
		runner_kill_workspace(r);
	}
}

static void go_on(struct suspend *s)
{
	struct runner *r = s->runner;

	if (s->departs)
		network_hold(&r->plan, false);
	if (!r->machine)
		checkpoint_abort(r);
	else if (s->ran && r->status.state != RUNNER_ENDED)
		s->departs ? machine_stay(r->machine, went_on, r) : machine_freeze(r->machine, false, went_on, r);
	done(s);
}

static void commit(struct suspend *s)
{
	struct runner *r = s->runner;
	struct err e = { 0 };
	int fault = fault_point("runner.commit");
	int result = fault ? err_errno(&e, fault, "commit") : put_manifest(s->folder, &e);

	s->answer(r, s->fd, result, &e);
	if (result < 0) {
		go_on(s);
		return;
	}
	(void)fault_point("runner.committed");
	r->suspended = true;
	if (r->machine)
		runner_kill_workspace(r);
	else
		checkpoint_end(r);
	done(s);
}

static void ready(void *data, uint32_t events)
{
	struct suspend *s = data;
	struct runner_request q;
	ssize_t n = recv(s->fd, &q, sizeof q, MSG_DONTWAIT);

	(void)events;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n == (ssize_t)sizeof q && q.version == RUNNER_VERSION && q.kind == RUNNER_COMMIT)
		commit(s);
	else
		go_on(s);
}

static void saved(void *data, int result, const struct err *e)
{
	struct suspend *s = data;
	struct runner *r = s->runner;
	struct err why = { 0 };
	int fault = fault_point("runner.saved");

	if (result >= 0 && fault) {
		result = err_errno(&why, fault, "save");
		e = &why;
	}
	s->answer(r, s->fd, result, e);
	if (result < 0)
		go_on(s);
	else
		s->source = loop_add_fd(r->loop, s->fd, EPOLLIN, ready, s);
}

void suspend_begin(struct runner *r, int fd, bool departs, int folder, int state, suspend_answer_fn *answer)
{
	struct suspend *s = mem_alloc(sizeof *s);
	struct err e = { 0 };
	bool can = r->machine && !r->suspending &&
		   (r->status.state == RUNNER_RUNNING || (r->status.state == RUNNER_PAUSED && r->released));
	int fault = fault_point("runner.suspend");

	if (!r->machine || departs)
		own_close(&state); /* CRIU writes files of its own into the folder */
	*s = (struct suspend){ .runner = r, .fd = fd, .folder = folder, .departs = departs && r->machine,
			       .ran = r->status.state == RUNNER_RUNNING, .answer = answer };
	if (can && !fault && s->departs) {
		r->suspending = true;
		network_hold(&r->plan, true);
		machine_depart(r->machine, saved, s);
		return;
	}
	if (can && !fault) {
		r->suspending = true;
		machine_save(r->machine, state, saved, s);
		return;
	}
	if (!r->machine && !fault && !r->suspending) {
		int copy = fcntl(folder, F_DUPFD_CLOEXEC, 0), refused = checkpoint_save(r, copy, saved, s, &e);
		r->suspending = refused >= 0;
		if (refused < 0)
			saved(s, refused, &e);
		return;
	}
	if (r->machine && !departs)
		(void)close(state);
	int result = fault ? err_errno(&e, fault, "suspend") :
		     r->machine && !r->released ?
			     err_set(&e, ERR_CONFLICT,
				     "the machine stands before its first instruction: it has no memory yet") :
			     err_set(&e, ERR_CONFLICT, "the workspace cannot be suspended in this state");
	answer(r, fd, result, &e);
	(void)close(fd);
	(void)close(folder);
	free(s);
}
