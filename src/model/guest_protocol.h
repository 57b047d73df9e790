/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MODEL_GUEST_PROTOCOL_H
#define MODEL_GUEST_PROTOCOL_H

/*
 * What carrel-init inside a machine and the machine's supervisor outside say to each other: docs/formats/guest.md.
 *
 * The channel is a virtio-serial port named GUEST_PORT: a byte stream that outlives both the process outside (restarts) and,
 * over a resume from a file or in a clone, the moment. So each frame has a mark and a check over its header, a reader that lost
 * its place looks for the next good header, and each frame names the session it belongs to: the host chooses a new number with
 * each HELLO, and what belongs to an earlier session is passed over.
 *
 * Neither side believes the other. Each length is checked against its limit before anything is kept; a stream that sends more
 * than it was given credit for is over; the host asks, the guest answers, and an answer nobody asked for is passed over.
 * Numbers are little-endian.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

#define GUEST_VERSION 1
#define GUEST_PORT "carrel.0"             /* virtserialport,name= */
#define GUEST_SERIAL_LONGEST 20           /* virtio-blk */
#define GUEST_MARK UINT32_C(0x31464743)   /* "CGF1" */
#define GUEST_HEADER 24                   /* bytes */
#define GUEST_DATA_LONGEST 16384          /* payload of GUEST_DATA, with its channel byte */
#define GUEST_PAYLOAD_LONGEST (1u << 20)  /* of GUEST_CONFIGURE, host to guest */
#define GUEST_ANSWER_LONGEST 65536        /* of anything, guest to host */
#define GUEST_STREAMS_MOST 256            /* open at once */
#define GUEST_WINDOW 131072               /* credit of each side of a new stream, in payload bytes of GUEST_DATA */
#define GUEST_SEED_BYTES 64

/* --- frames --- */

enum guest_type {
	GUEST_HELLO = 1, /* both: struct guest_hello. The guest's answer ends all streams of earlier sessions */
	/* to guest: struct guest_config. A machine that has its configuration answers with success and keeps the old */
	GUEST_CONFIGURE,
	GUEST_STATE,     /* to host: struct guest_state, at each change and after each hello */
	GUEST_ANSWER,    /* to host: struct guest_answer, with the number of the request */
	GUEST_OPEN,      /* to guest: struct guest_open; `number` becomes the stream's and is not in use */
	GUEST_DATA,      /* both: channel byte (0 input, 1 output, 2 errors), bytes. Channel byte 0 alone ends the input */
	GUEST_CREDIT,    /* both: 4 bytes: so many payload bytes more */
	GUEST_RESIZE,    /* to guest: 2 bytes rows, 2 bytes columns */
	/* to host: struct guest_close, the stream's last frame. To guest: nobody reads any more; an exec is killed */
	GUEST_CLOSE,
	GUEST_SIGNAL,    /* to guest: 4 bytes: signal. To a stream's program, or with number 0 to the workspace's own */
	GUEST_FREEZE,    /* request: file systems stand still, written to their disks, until GUEST_THAW */
	GUEST_THAW,
	/* request: serial of a volume; its file system takes the whole of its disk. Or serial, 0 and 8 bytes: when the disk has
	 * so many bytes, which the guest's kernel hears of a moment after QEMU */
	GUEST_GROW,
	GUEST_IDENTITY,  /* request: struct guest_identity: after a resume or in a clone */
	GUEST_SHUTDOWN,  /* request: 4 bytes: milliseconds until everything is killed; answered at once, ends with power off */
	GUEST_PING,      /* request: nothing */
	GUEST_DEPART,    /* request: the workspace stands still and is written to the luggage; its volumes are on their disks */
	GUEST_STAY,      /* request: it goes on; after GUEST_DEPART */
	GUEST_GO,        /* request: it takes its first step; in GUEST_ARRIVED */
	GUEST_TYPE_COUNT
};

struct guest_frame {
	uint32_t session;
	uint16_t type;
	uint32_t number; /* of the stream or the request; each session counts requests and streams from 1 on, in one series */
	uint32_t length;
	const uint8_t *payload; /* inside the reader, until the next call */
};

/* Appends a whole frame. */
void guest_frame_put(struct str *out, uint32_t session, enum guest_type type, uint32_t number, const void *payload,
		     size_t length);

/* Takes frames out of a stream of bytes. `longest`: the longest payload that is taken; a header that says more counts as
 * noise. */
struct guest_reader {
	struct str buffer;
	size_t taken;    /* bytes of the frame that was given last */
	uint32_t longest;
	uint64_t noise_bytes; /* passed over while looking for a header */
};
void guest_reader_init(struct guest_reader *r, uint32_t longest);
void guest_reader_done(struct guest_reader *r);
void guest_reader_add(struct guest_reader *r, const void *bytes, size_t length);
bool guest_reader_next(struct guest_reader *r, struct guest_frame *ret_frame);

/* --- messages: fields, each a tag (2 bytes), zero (2 bytes), length (4 bytes) and a value. Unknown tags are passed over --- */

enum guest_field_type { GUEST_NUMBER, GUEST_TEXT, GUEST_BYTES, GUEST_TEXTS, GUEST_OBJECTS };

struct guest_bytes {
	void *bytes;
	size_t length;
};
struct guest_texts {
	char **items;
	size_t count;
};
struct guest_objects {
	void *items;
	size_t count;
};

struct guest_field {
	uint16_t tag; /* 0 ends the table */
	enum guest_field_type type;
	size_t offset; /* uint64_t, char * (never NULL after decoding), struct guest_bytes, _texts, _objects */
	uint32_t most; /* longest text or bytes, most elements */
	const struct guest_shape *shape;
};
struct guest_shape {
	size_t size;
	const struct guest_field *fields;
};

void guest_encode(const struct guest_shape *shape, const void *value, struct str *out);
/* *ret_value need not be zeroed; on failure nothing is left in it. */
int guest_decode(const struct guest_shape *shape, const void *bytes, size_t length, void *ret_value, struct err *e) must_check;
void guest_done(const struct guest_shape *shape, void *value);

struct guest_hello {
	uint64_t version;
	uint64_t features;  /* of the guest: none is defined yet */
	/* of the guest: /proc/sys/kernel/random/boot_id; empty while it waits for its configuration, and with it a seed */
	char *boot_id;
	char *release;      /* of the guest: the kernel's */
	uint64_t uptime_ns; /* of the guest, since its kernel's start */
};

struct guest_interface {
	char *mac;  /* "02:00:00:00:00:01": finds the interface */
	char *name; /* what it is called inside; empty: as the kernel did */
	uint64_t mtu; /* 0: as it is */
	struct guest_texts addresses; /* "10.0.0.2/24", "fd00::2/128" */
	struct guest_texts routes;    /* "default via 10.0.0.1", "10.1.0.0/16 via 10.0.0.1", "10.0.0.1" (on this link) */
};

struct guest_volume {
	char *name;   /* as in the plan */
	char *serial;
};

/*
 * The plan is what the workspace engine carries out in namespaces (docs/formats/plan.md): the tree's steps, the program, its
 * user and rights. Its paths of the host are not used: `partitions` here, lowest first, are the disks that stand for them.
 */
struct guest_config {
	struct guest_texts partitions; /* serials of EROFS disks */
	char *root;                    /* serial of the root volume: ext4 with upper/ and work/ */
	struct guest_objects volumes;  /* struct guest_volume */
	struct guest_objects interfaces; /* struct guest_interface */
	struct guest_bytes plan;
	struct guest_bytes seed;  /* GUEST_SEED_BYTES for the random generator */
	uint64_t clock_ns;        /* CLOCK_REALTIME; 0: leave it */
	char *kernel;                  /* serial of the kernel's partition, an EROFS disk with lib/modules; empty: none */
	uint64_t rescan;          /* 1: disks and interfaces came while it waited: its buses are looked at once more */
	/* Of one that travels (model/travel.h): the workspace lives in namespaces inside. */
	char *luggage;            /* serial of the disk that takes its memory; empty: it does not travel */
	char *images;             /* serial of the disk with the memory that it goes on from; empty: it starts */
	struct guest_texts features; /* of the processor that this memory wants, as /proc/cpuinfo names them */
};

/* Like the first configuration, for a machine that goes on from an earlier one's memory. */
struct guest_identity {
	char *host_name;  /* empty: stays. With it /etc/hostname and, when it is ours, /etc/hosts */
	char *machine_id; /* empty: stays */
	struct guest_bytes seed;
	uint64_t clock_ns;
	struct guest_objects interfaces; /* each named one loses its addresses and routes and gets these */
	uint64_t clone;  /* its number from 1 on: interfaces are found by their names, and get these hardware addresses too */
};

enum guest_phase {
	GUEST_WAITING = 1, /* for its configuration */
	GUEST_PREPARING,
	GUEST_RUNNING,     /* the program, or the system's init, was executed */
	GUEST_STOPPING,
	GUEST_ENDED,       /* of a program: exit_status. The machine powers off when the host has read this, or soon */
	GUEST_FAILED,      /* error says why; powers off likewise */
	GUEST_ARRIVED,     /* between preparing and running: it was made again from its images, and waits for GUEST_GO */
};

struct guest_error {
	char *kind, *message, *hint; /* kind empty: none */
};

struct guest_state {
	uint64_t phase;       /* enum guest_phase */
	uint64_t exit_status; /* of GUEST_ENDED: 0-255, or 128 + signal */
	struct guest_objects error; /* struct guest_error, at most one */
	uint64_t uptime_ns;   /* when this phase began, since the kernel's start */
};

enum guest_told {
	GUEST_UNTOLD, /* no clone, or a carrel-init that leaves it to the host */
	GUEST_TOLD,   /* its programs can read that it is a clone, and nobody wants to be called */
	GUEST_HOOKS,  /* the host shall run the programs of GUEST_HOOKS_FOLDER */
};
#define GUEST_CLONE_FILE "/run/carrel/clone"
#define GUEST_HOOKS_FOLDER "/etc/carrel/cloned.d"

struct guest_answer {
	struct guest_objects error; /* struct guest_error: none is success */
	uint64_t told;              /* enum guest_told, of an identity */
};

struct guest_close {
	uint64_t exit_status; /* 0-255, or 128 + signal */
	struct guest_objects error; /* of a copy, or of a stream that could not be opened */
};

enum guest_stream {
	GUEST_PROGRAM = 1, /* the program's standard streams or terminal; its output is not read while no such stream is open */
	GUEST_EXEC,
	GUEST_COPY_IN,  /* tar on channel 0, into the folder `path` */
	GUEST_COPY_OUT, /* tar on channel 1, of `path` */
};

struct guest_open {
	uint64_t kind;  /* enum guest_stream */
	uint64_t terminal, input; /* 0 or 1 */
	uint64_t rows, columns;
	char *user, *directory; /* empty: as the program's */
	char *path;
	struct guest_texts command, environment;
};

extern const struct guest_shape guest_hello_shape, guest_config_shape, guest_identity_shape, guest_state_shape,
	guest_answer_shape, guest_close_shape, guest_open_shape;

/* Into and out of a list of at most one. */
void guest_error_set(struct guest_objects *list, const struct err *e);
/* 0 when there is none, otherwise fills *e with bounded, printable text and returns its negative errno. */
int guest_error_get(const struct guest_objects *list, struct err *e) must_check;

/* Fixed payloads. */
void guest_put_u32(uint8_t out[4], uint32_t n);
uint32_t guest_get_u32(const uint8_t in[4]);

#endif
