/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UNIT_ENGINE_FIXTURE_H
#define UNIT_ENGINE_FIXTURE_H

/*
 * A workspace without a service: an image in an EROFS file, an ext4 root volume, cgroups of its own, all under random names,
 * and a launch of it. For tests and benches that look at the engine alone.
 */

#include <sys/types.h>

#include "enforce/enforce.h"
#include "engine/launch.h"
#include "engine/runner_client.h"

/* Longer than anything takes on a machine that does much else. */
#define PATIENCE_MS 90000

struct fixture {
	char folder[64], id[17];
	char *image_mount, *run_dir, *log_path;
	const char *layers[2];
	struct enforce_layout layout;
	struct enforce_plan limits;
	struct enforce_limits how_much;
	struct spec spec;
	struct image image;
	struct launch launch;
	struct launch_volume volumes[2];
	struct err e;
};

/* The programs of the build folder are used as those of an installation. */
void fixture_use_build(void);
/* NULL, or the reason why this machine cannot do it. */
const char *fixture_missing(void);
/* `rootfs`: an EROFS file, or NULL: busybox, changed by the shell script `change` (in the image's top folder) when there is
 * one. */
void fixture_open(struct fixture *f, const char *rootfs, const char *change);
/* A writable file system for the next launch: the root volume (`top` = "upper"...) or a data volume. Returns the locked
 * descriptor. */
int fixture_volume(struct fixture *f, const char *name, bool root);
/* Kills what runs, removes everything. False (and a message on stderr) when something was left behind. */
bool fixture_close(struct fixture *f);

/* The folders above a workspace's cgroups, which only fixtures of this folder name have. */
void fixture_remove_parents(const struct enforce_plan *limits);

int fixture_launch(struct fixture *f, const char *const *argv);
/* Launches held, attaches, and collects what the program writes; returns the exit status, or a negative errno. */
int fixture_run(struct fixture *f, const char *const *argv, char *output, size_t size);
int fixture_shell(struct fixture *f, const char *script, char *output, size_t size);
/* exec in the running workspace, collected as above. `user` may be NULL. */
int fixture_exec(struct fixture *f, const char *user, const char *script, char *output, size_t size);
/* Reads a stream to its end. */
int fixture_collect(int stream, char *output, size_t size);
/* A shell script on the host; 0 when it ends with status 0. */
int fixture_host(const char *script);
/* Waits until the runner is gone; returns the exit status from the status file, -1 after `timeout_ms`. */
int fixture_wait(struct fixture *f, unsigned timeout_ms);

#endif
