/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_RUNNER_CLIENT_H
#define ENGINE_RUNNER_CLIENT_H

/*
 * Talking to the runner of one workspace by RUN/node/workspaces/ID/run.sock. Each call opens a connection of its own, so they
 * do not disturb each other; runner_watch keeps one open, whose end of file says that the runner is gone.
 */

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "engine/launch.h"
#include "model/runner_protocol.h"

/* State now. ERR_UNAVAILABLE: no runner there (then the status file in run_dir tells how the last run ended). */
int runner_status(const char *run_dir, struct runner_status *ret_status, struct err *e) must_check;
/* The file RUN/node/workspaces/ID/status. ERR_NOT_FOUND: never started. */
int runner_read_status(const char *run_dir, struct runner_status *ret_status, struct err *e) must_check;

/* A connection that stays: *ret_fd (non-blocking) gets one struct runner_status per change of state, the present one first, and
 * end of file when the runner is gone. Read with runner_watch_read. */
int runner_watch(const char *run_dir, int *ret_fd, struct err *e) must_check;
/* 1: a status was read; 0: nothing now; ERR_UNAVAILABLE: the runner is gone. */
int runner_watch_read(int fd, struct runner_status *ret_status, struct err *e) must_check;

/* Clean shutdown, then after timeout_ms a kill of everything. Returns at once; the watch and the status file tell the end. */
int runner_stop(const char *run_dir, uint64_t timeout_ms, struct err *e) must_check;
int runner_kill(const char *run_dir, struct err *e) must_check;
int runner_pause(const char *run_dir, struct err *e) must_check;  /* returns when all is frozen */
int runner_resume(const char *run_dir, struct err *e) must_check;

/* Of a machine: the interfaces it shall have from now on. Returns when they are plugged in. ERR_CONFLICT: say it again a moment
 * later. */
int runner_connect(const char *run_dir, const struct launch_interface *interfaces, size_t count, struct err *e) must_check;

/* Of a machine that runs: its disk, by machine_block_name, and the file system on it have so many bytes. */
int runner_grow(const char *run_dir, const char *disk, uint64_t bytes, struct err *e) must_check;

/* The workspace stands still and its state is in the file `state`; *ret_connection, when it is closed, lets it go on, and
 * runner_commit on it makes it suspended and ends it: the manifest MEMORY_MANIFEST.new of `folder` is in its place then, for
 * good. */
int runner_suspend(const char *run_dir, int folder, int state, int *ret_connection, struct err *e) must_check;
/* The same of a machine whose workspace travels: what is inside is written to the disk of its luggage. */
int runner_depart(const char *run_dir, int folder, int *ret_connection, struct err *e) must_check;
int runner_commit(int connection, struct err *e) must_check;

/* What exec runs. Texts are as the user gave them; user and directory may be NULL. */
struct runner_exec {
	const char *const *command;     /* NULL-terminated */
	const char *const *environment; /* "KEY=value", NULL-terminated; may be NULL */
	const char *user, *directory;
	bool terminal, input;
	unsigned rows, columns;
};

/* Streams: *ret_fd is a SOCK_SEQPACKET socket (non-blocking), one message = one frame as the client's WebSocket carries it:
 * binary frames start with the channel 0, 1 or 2, texts with '{'. The last message is {"exit":N} or {"error":{...}}, then end
 * of file. Errors that are known at once (no such command, no such user) come back from the call. */
int runner_attach(const char *run_dir, unsigned rows, unsigned columns, bool input, int *ret_fd, struct err *e) must_check;
int runner_display(const char *run_dir, int *ret_fd, struct err *e) must_check; /* RFB, see RUNNER_DISPLAY */
int runner_console(const char *run_dir, unsigned rows, unsigned columns, bool input, int *ret_fd, struct err *e) must_check;
int runner_exec(const char *run_dir, const struct runner_exec *what, int *ret_fd, struct err *e) must_check;
int runner_copy_in(const char *run_dir, const char *path, int *ret_fd, struct err *e) must_check;
int runner_copy_out(const char *run_dir, const char *path, int *ret_fd, struct err *e) must_check;

/* Descriptors of a mounted volume, for growing, trimming and freezing it: its mount (a folder) and its loop device. "root" is
 * the root volume, others go by their names. The caller closes both. */
int runner_volume(const char *run_dir, const char *name, int *ret_mount_fd, int *ret_loop_fd, struct err *e) must_check;

#endif
