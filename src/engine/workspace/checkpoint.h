/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_WORKSPACE_CHECKPOINT_H
#define ENGINE_WORKSPACE_CHECKPOINT_H

/*
 * Suspending a workspace with CRIU: what CRIU is told, and what we keep beside its images because it is ours and not CRIU's -
 * what of the host is mounted in the tree, which pipes and terminal carrel-run holds, and who stands in which cgroup. All pure;
 * the file format is docs/formats/checkpoint.md, the way it goes decision 0111.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/str.h"
#include "engine/workspace/plan.h"

#define CHECKPOINT_RECORD "carrel"      /* ours, in the folder of the images */
#define CHECKPOINT_INPUT "carrel-input" /* what the program had not read of its standard input */
#define CHECKPOINT_FIRST "carrel-first" /* the first process's file */
#define CHECKPOINT_LOG "criu.log"
#define CHECKPOINT_RECORD_MOST (4u << 20)
#define CHECKPOINT_MOUNTS_MOST 256

enum checkpoint_source {
	CHECKPOINT_DEVICE,      /* a device file of the host */
	CHECKPOINT_HIDE_FILE,   /* ours, empty */
	CHECKPOINT_HIDE_FOLDER,
	CHECKPOINT_FIRST_FILE,
	CHECKPOINT_HOST,        /* something of the host, read-only */
	CHECKPOINT_VOLUME,
	CHECKPOINT_CONSOLE,
	CHECKPOINT_CGROUPS,
	/* the cgroup2 tree: its namespace must belong to the workspace's user namespace, which CRIU does not do */
	CHECKPOINT_TUN,         /* ours, a folder with one device */
	CHECKPOINT_SOURCES,
};

struct checkpoint_mount {
	enum checkpoint_source from;
	char *target; /* in the workspace */
	char *source; /* name of a volume, path on the host; "" otherwise */
};

struct checkpoint_cgroup {
	char *path;       /* below the workspace's own: "/init.scope"; "" is that itself */
	uint32_t mode;
	bool theirs;      /* belongs to the workspace's root */
	char *subtree;    /* controllers it hands down, "" none */
	pid_t *processes; /* as the workspace numbers them */
	size_t process_count, process_room;
};

struct checkpoint {
	struct checkpoint_mount *mounts;
	size_t mount_count, mount_room;
	uint64_t pipes[3];                       /* inodes of standard input, output, errors; 0: none */
	uint64_t terminal_device, terminal_file; /* st_rdev and st_dev of its slave side; 0: none */
	struct checkpoint_cgroup *cgroups;       /* parents first */
	size_t cgroup_count, cgroup_room;
};

void checkpoint_done(struct checkpoint *c);
/* What of the plan's is mounted now, by /proc/PID/mountinfo of the first process. */
int checkpoint_find_mounts(const struct plan *p, const char *mountinfo, struct checkpoint *c, struct err *e) must_check;
/* Adds one; takes nothing. */
struct checkpoint_cgroup *checkpoint_add_cgroup(struct checkpoint *c, const char *path);
void checkpoint_encode(const struct checkpoint *c, struct str *out);
int checkpoint_decode(const char *text, size_t length, struct checkpoint *ret_checkpoint, struct err *e) must_check;

/* Whether everything that the record wants of the host is something that the plan gives; a record comes from outside. */
int checkpoint_check(const struct checkpoint *c, const struct plan *p, struct err *e) must_check;
const struct step *checkpoint_step(const struct checkpoint_mount *m, const struct plan *p); /* NULL: none */

/* --- what CRIU is told --- */

/* One field of criu_opts in CRIU's rpc.proto. `text` NULL: a number. Of inherit_fd both count: the key, and the descriptor. */
struct checkpoint_option {
	const char *name;
	char *text;
	int64_t number;
};
struct checkpoint_options {
	struct checkpoint_option *items;
	size_t count, room;
};

struct checkpoint_how {
	int folder_fd;            /* of the images, in the process that talks to CRIU */
	pid_t pid;                /* dump: the first process */
	const char *freeze_folder; /* dump: its frozen cgroup, NULL: none */
	const char *scratch;      /* restore: where the mounts wait: SCRATCH/root, SCRATCH/0, ... by their order */
	int streams[3], terminal; /* restore: descriptors of CRIU; -1: none */
	unsigned seconds;         /* CRIU's own time-out */
	int work_fd;              /* folder of its log, as a descriptor of who talks to it; 0: that of the images */
};
void checkpoint_dump_options(const struct checkpoint *c, const struct checkpoint_how *how,
			     struct checkpoint_options *ret_options);
void checkpoint_restore_options(const struct checkpoint *c, const struct checkpoint_how *how,
				struct checkpoint_options *ret_options);
void checkpoint_options_number(struct checkpoint_options *o, const char *name, int64_t number);
void checkpoint_options_text(struct checkpoint_options *o, const char *name, char *taken, int64_t number);
void checkpoint_options_done(struct checkpoint_options *o);

/* --- checkpoint_rpc.c: CRIU's messages (rpc.proto, protobuf) on a SOCK_SEQPACKET socket --- */

enum checkpoint_request { CHECKPOINT_DUMP = 1, CHECKPOINT_RESTORE = 2, CHECKPOINT_CHECK = 3, CHECKPOINT_NOTIFY = 6,
			  CHECKPOINT_VERSION = 10 };
#define CHECKPOINT_ANSWER_MOST 65536

struct checkpoint_answer {
	unsigned type; /* enum checkpoint_request */
	bool success;
	int number;    /* CRIU's errno; 0: none */
	pid_t pid;     /* of the restored first process, or of the one that a notification is about */
	char script[32];  /* of a notification: "setup-namespaces" */
	char message[256];
	unsigned major, minor, sublevel; /* of CRIU */
};

int checkpoint_encode_request(enum checkpoint_request type, const struct checkpoint_options *o, struct str *out,
			      struct err *e) must_check;
void checkpoint_encode_notified(struct str *out); /* "go on" */
int checkpoint_decode_answer(const void *bytes, size_t length, struct checkpoint_answer *ret_answer, struct err *e) must_check;

#endif
