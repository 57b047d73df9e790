/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether CRIU works with this kernel is not a matter of versions: it is tried, with what workspaces have and CRIU has failed
 * on - a listening socket, a pipe, a timer - and with one process, so that it takes some hundredths of a second.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "runner/checkpoint_private.h"

#define LONGEST_S 20

static void be_subject(int ready) __attribute__((noreturn));
static void be_subject(int ready)
{
	struct itimerval timer = { .it_value.tv_sec = 3600 };
	struct sockaddr_in any = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int pair[2], null = open("/dev/null", O_RDWR);

	(void)setsid();
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (int i = 0; i < 3; i++)
		(void)dup2(null, i);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&any, sizeof any) < 0 || listen(fd, 1) < 0 || pipe(pair) < 0 ||
	    setitimer(ITIMER_REAL, &timer, NULL) < 0 || write(pair[1], "x", 1) != 1 || write(ready, "x", 1) != 1)
		_exit(1);
	(void)close(ready);
	for (;;)
		(void)pause();
}

static int start_subject(struct job *j, struct err *e)
{
	int pair[2];
	char byte;

	if (pipe2(pair, O_CLOEXEC) < 0)
		return err_errno(e, errno, "make pipe");
	own_fd int there = pair[0], ready = pair[1];
	j->first = fork();
	if (j->first == 0)
		be_subject(ready);
	own_close(&ready);
	ready = -1;
	return j->first > 0 && read(there, &byte, 1) == 1 ? 0 : err_set(e, ERR_INTERNAL, "no process to try with");
}

static void common(const struct job *j, struct checkpoint_options *o)
{
	static const struct {
		const char *name;
		int64_t number;
	} numbers[] = { { "log_level", 2 },
			{ "tcp_established", 1 },
			{ "manage_cgroups_mode", 0 },
			{ "network_lock", 3 },
			{ "timeout", LONGEST_S } };

	*o = (struct checkpoint_options){ 0 };
	checkpoint_options_number(o, "images_dir_fd", j->folder);
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
		checkpoint_options_number(o, numbers[i].name, numbers[i].number);
	checkpoint_options_text(o, "log_file", mem_strdup(CHECKPOINT_LOG), 0);
}

static int ask(struct job *j, enum checkpoint_request what, struct checkpoint_options *o, struct checkpoint_answer *a,
	       struct err *e)
{
	int r = criu_start(j, e);

	if (r < 0)
		checkpoint_options_done(o);
	else if ((r = criu_ask(j, what, o, e)) >= 0 && (r = criu_hear(j, a, e)) >= 0 && !a->success)
		r = criu_failed(j, a, what == CHECKPOINT_RESTORE ? "read back" : "write", e);
	criu_end(j);
	if (j->criu_pid > 0)
		(void)waitpid(j->criu_pid, NULL, 0);
	return r;
}

static int try(struct job *j, struct err *e)
{
	struct checkpoint_options o;
	struct checkpoint_answer a;
	int r = start_subject(j, e);

	if (r < 0)
		return r;
	common(j, &o);
	checkpoint_options_number(&o, "pid", j->first);
	r = ask(j, CHECKPOINT_DUMP, &o, &a, e);
	(void)kill(j->first, SIGKILL);
	(void)waitpid(j->first, NULL, 0);
	if (r < 0)
		return r;
	common(j, &o);
	checkpoint_options_number(&o, "rst_sibling", 1);
	if ((r = ask(j, CHECKPOINT_RESTORE, &o, &a, e)) < 0)
		return r;
	r = waitpid(a.pid, NULL, WNOHANG) == 0 ? 0 :
						 err_set(e, ERR_UNSUPPORTED, "a process that CRIU made again does not live");
	(void)kill(a.pid, SIGKILL);
	(void)waitpid(a.pid, NULL, 0);
	return r;
}

int checkpoint_try(const char *folder)
{
	struct job j = { .kind = JOB_TRY, .criu = -1, .criu_pidfd = -1, .theirs = { -1, -1, -1 },
			 .tree = { .terminal_peer = -1 } };
	own_str char *place = mem_printf("%s/carrel-checkpoint-XXXXXX", folder);
	struct checkpoint_answer version = { 0 };
	struct err e = { 0 };

	(void)alarm(LONGEST_S);
	if (!mkdtemp(place) || (j.folder = open(place, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0) {
		(void)fprintf(stderr, "cannot write in %s\n", folder);
		return 1;
	}
	j.logs = j.folder;
	struct checkpoint_options none = { 0 };
	int r = try(&j, &e);
	if (r >= 0)
		r = ask(&j, CHECKPOINT_VERSION, &none, &version, &e);
	(void)!fs_remove_tree(AT_FDCWD, place, NULL);
	(void)close(j.folder);
	if (r < 0)
		(void)fprintf(stderr, "%s\n", e.message);
	else
		(void)printf("%u.%u.%u\n", version.major, version.minor, version.sublevel);
	return r < 0;
}
