/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MODEL_RUNNER_PROTOCOL_H
#define MODEL_RUNNER_PROTOCOL_H

/*
 * What carrel-run and the agent say to each other: docs/formats/runner.md.
 *
 * Control socket: SOCK_SEQPACKET, peers with uid 0 only. A client sends one struct runner_request, followed in the same message
 * by texts_length bytes of NUL-terminated texts; the runner answers with one struct runner_answer. After that, by kind of
 * request, the connection ends, carries frames (attach, console, exec, copies), or carries struct runner_status at each change
 * (watch). Both sides are on one machine: integers are in its byte order. A new agent may meet an old runner, so both begin
 * with version and size, and what is shorter than the struct here or of another version is refused. So a struct that changes
 * needs a new version, and an agent that is to keep the workspaces of old runners has to know both.
 */

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

#define RUNNER_VERSION 1
#define RUNNER_SOCKET "run.sock"
#define RUNNER_STATUS_FILE "status"
#define RUNNER_FRAME_LONGEST 65536 /* channel byte and 65,535 bytes */
#define RUNNER_TEXTS_LONGEST 131072

enum runner_kind {
	RUNNER_STATUS = 1,
	RUNNER_WATCH,
	RUNNER_STOP,     /* number: time-out in milliseconds */
	RUNNER_KILL,
	RUNNER_SIGNAL,   /* number: signal */
	RUNNER_PAUSE,
	RUNNER_RESUME,
	RUNNER_ATTACH,
	RUNNER_CONSOLE,
	RUNNER_EXEC,     /* texts: user, directory (empty: none), then `commands` arguments, then the environment */
	RUNNER_COPY_IN,  /* text: path */
	RUNNER_COPY_OUT, /* text: path */
	RUNNER_VOLUME,   /* text: name; the answer carries two descriptors: mount, loop device */
	/* of a machine: texts of all interfaces it shall have (engine/workspace/plan.h); what differs is plugged in or out */
	RUNNER_CONNECT,
	/* with two descriptors: the memory folder, and the file for the state. Answered when the workspace stands still and the
	 * state is written; then the connection carries a RUNNER_COMMIT, or ends and the workspace goes on */
	RUNNER_SUSPEND,
	RUNNER_COMMIT,   /* after RUNNER_SUSPEND: MANIFEST.new becomes the manifest, and the workspace and its runner end */
	RUNNER_DISPLAY = 32, /* the screen of a machine: frames of channels 0 and 1 are RFB (RFC 6143) */
	/* of a machine that runs: text: disk (machine_block_name), number: bytes. It and its file system have so many now */
	RUNNER_GROW,
};

/* RUNNER_DEPARTS, with RUNNER_SUSPEND of a machine: not the machine is written but the workspace inside, to the disk of its
 * luggage. */
enum runner_flag { RUNNER_TERMINAL = 1, RUNNER_INPUT = 2, RUNNER_DEPARTS = 4 };

struct runner_request {
	uint32_t version, size; /* RUNNER_VERSION, sizeof */
	uint32_t kind, flags;
	uint64_t number;
	uint32_t rows, columns;
	uint32_t commands, texts_length;
};

enum runner_state { RUNNER_STARTING = 1, RUNNER_RUNNING, RUNNER_PAUSED, RUNNER_STOPPING, RUNNER_ENDED };

struct runner_status {
	uint32_t version, size;
	uint32_t state;        /* enum runner_state */
	int32_t exit_status;   /* 0-255, or 128 + signal; -1: none yet */
	int32_t pid;           /* first process as the host numbers it */
	int32_t runner_pid;
	uint64_t run;
	uint64_t started_ms, ended_ms; /* Unix time; 0: not yet */
	uint32_t killed_for_memory;    /* the kernel killed a process of it for want of memory */
	uint32_t maintenance;
	uint32_t told;                 /* enum guest_told, of a clone that has just begun */
	uint32_t visitors;             /* programs in it that exec and cp started; in answers */
};

struct runner_answer {
	uint32_t version, size;
	int32_t result; /* 0, or a negative errno and `error` */
	struct err error;
	struct runner_status status;
};

/* --- the log file (docs/formats/log.md): records, each a header and `length` bytes --- */
#define RUNNER_LOG_MARK 0x474f4c43u /* "CLOG" */
struct runner_log_record {
	uint32_t mark;    /* RUNNER_LOG_MARK: a reader that lost its place looks for it */
	uint32_t length;  /* bytes that follow, at most 65536 */
	uint64_t time_ns; /* CLOCK_REALTIME */
	uint32_t stream;  /* 1 stdout or terminal, 2 stderr */
	uint32_t check;   /* mark ^ length ^ stream ^ low half of time ^ high half of time */
};
#define RUNNER_LOG_BYTES (UINT64_C(4) << 20) /* then LOG becomes LOG.1, LOG.1 becomes LOG.2, ... */
#define RUNNER_LOG_FILES 4                   /* LOG and three older */

#endif
