/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_LAUNCH_H
#define ENGINE_LAUNCH_H

/*
 * Starting a workspace, for the host's agent: a request made of plain data and open files, a plan that can be shown, and a
 * runner that makes it true. Nothing of a request is kept after a call; descriptors in it stay the caller's.
 */

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/str.h"
#include "model/board.h"
#include "engine/workspace/volume.h"
#include "model/image.h"
#include "model/spec.h"

#define LAUNCH_IDS 65536 /* ids of one workspace's range */

struct launch_volume {
	const char *name;
	/* open read-write, with flock(LOCK_EX) held: this open file is given to the loop device; -1 when only planned */
	int fd;
	const char *mount; /* absolute path in the workspace */
	bool read_only;
};

/* A cable to a bridge of the host, made with the workspace; addresses as ADDRESS/LENGTH, NULL where there is none. */
struct launch_interface {
	const char *port, *bridge; /* on the host */
	const char *device, *mac;  /* inside; the order of interfaces is that of their indexes */
	uint32_t mtu;
	bool isolated;             /* from the other ports of its bridge */
	uint16_t vlan;             /* of its port on the bridge; 0: none */
	const char *ipv4, *ipv6;
	const char *gateway4, *gateway6; /* of the default route by this interface, without length */
	const char *pool6;               /* what else is reached by the network's router, where that is not the default route */
	const char *zone;                /* searched for names */
	const char *dns[2];              /* servers, IPv4 and IPv6 */
};

/* Where the processes live. The folders exist and have their limits: see enforce/enforce.h. */
struct launch_cgroups {
	const char *const *v1;   /* folders of the first process, one per hierarchy; NULL-terminated, or NULL */
	const char *v2;          /* folder in the cgroup2 tree, or NULL */
	const char *freeze_path; /* file that freezes all of it, or NULL: cannot be paused */
	const char *freeze_text, *thaw_text; /* what is written there */
	const char *processors;  /* of a machine: file that takes its virtual processors' threads, or NULL */
};

/* What a machine has, of what its spec asks for; it is fixed until its end. */
struct launch_size {
	unsigned processors;
	uint64_t memory_bytes;
};

/* What machines are made of on this host. */
struct launch_machine {
	const struct machine_board *board; /* QEMU's program and what it needs to see */
	const char *type;               /* the newest board: "pc-q35-7.2" */
	const char *processor;          /* QEMU's words for it */
	const struct texts *features;   /* that a host must have for the memory of such a machine; NULL: any has */
	const char *kernel, *initramfs; /* files */
	unsigned processors;            /* of the host */
	struct launch_size size;        /* of what the machine goes on from; 0: the spec's */
	uint64_t boot_ms;               /* that it may take to boot */
	bool kvm;
	bool vhost;                     /* /dev/vhost-net is there */
	const int *partition_fds;       /* as launch.partitions, open for reading */
	int kernel_fd;                  /* the kernel's partition, likewise */
};

struct engine;

/* The disks of a machine whose workspace travels (model/travel.h). */
struct launch_travel {
	int tools_fd;   /* open for reading */
	int luggage_fd; /* open for both */
	int images_fd;  /* of the memory state that it goes on from; otherwise empty: machines have the same devices always */
	bool arrives;   /* it goes on from there */
	int folder_fd;  /* that state's folder, where the manifest is; -1: none */
	const char *const *features; /* that it wants of the processor; NULL-terminated, or NULL */
};

/* A machine's memory is a file of the host's, so that a suspend has little to write. */
struct launch_memory {
	const char *path;   /* exists, has its size, belongs to QEMU's user unless it is private */
	int folder_fd;      /* the memory state's (model/memory.h) */
	int state_fd;       /* goes on from this device state; -1: boots */
	/* a pipe, with state_fd: a byte comes when the file is whole, its end when it will not be; 0: it is whole */
	int whole_fd;
	/* the file stays as it is: what the machine writes is its own and gone at its end; NULL: it is written */
	const char *private_shim;
	/* the state is another workspace's: it gets its own name, machine id and interfaces. Its number; 0: its own */
	uint64_t clone;
	bool template;      /* the state is a template's: it knows nothing of this workspace yet */
};

struct launch {
	const struct engine *engine;    /* engine_choose; NULL: what the spec asks for, on a host that has nothing special */
	const char *id, *name;
	const char *host_name;          /* NULL: the name */
	const struct spec *spec;
	const struct image *image;      /* run, init */
	uint32_t first_id;              /* first of LAUNCH_IDS user and group ids on the host */
	const char *const *partitions;  /* mount points, lowest first */
	size_t partition_count;
	int root_fd;                    /* root volume: ext4 file with upper/ and work/; as launch_volume.fd */
	const struct volume_mount *root_mount; /* the same, mounted ahead by volume_mount(root_fd, throw_away), or NULL */
	int runner;                     /* from nursery_runner, or 0: one is made. Closed by engine_launch, used or not */
	const struct launch_volume *volumes;
	size_t volume_count;
	const struct launch_interface *interfaces; /* eth0 first */
	size_t interface_count;
	const char *run_dir;            /* RUN/node/workspaces/ID, exists: run.sock and status are made there */
	const char *log_path;           /* log file (docs/formats/log.md); its folder exists */
	/* of an image that is a disk, in the order of engine/qemu/disk_machine.h; then no other disk is used */
	const int *disk_fds;
	size_t disk_fd_count;
	uint64_t run;                   /* number of this run, for the status file */
	struct launch_cgroups cgroups;
	const struct launch_machine *host_machine; /* for engines with `machine`; NULL: this host has none */
	const struct launch_memory *memory; /* of a machine; NULL: not in a file, and so never suspended */
	const struct launch_travel *travel; /* of a machine; NULL: its workspace does not travel */
	int memory_fd;     /* of namespaces: folder of the memory state that it goes on from; 0: it begins */
	/* a machine that waits for its configuration: of the spec only resources and mode count (engine/qemu/template.h) */
	bool makes_template;
	bool held;         /* the output of the program waits for the first attach */
	bool paused;       /* frozen before the first instruction of the program */
	bool machine;      /* for carrel-init in a virtual machine (docs/formats/guest.md), not for carrel-run */
	bool inner;        /* for namespaces inside a machine: carrel-inner's place, not the host's */
	bool maintenance;  /* namespaces and mounts without the program: for copies into a stopped workspace */
	/* its programs are of this processor and get QEMU's user mode; NULL: they run without */
	const struct machine_board *foreign;
	bool throw_away;   /* the root volume is deleted afterwards: its last writes need not reach the disk */
};

/* The plan as people read it (--dry-run): {"engine","mode","program":{...},"steps":[...]}. Pure. */
int engine_plan(const struct launch *l, json_t **ret_plan, struct err *e) must_check;

struct launch_result {
	pid_t pid; /* first process of the workspace, as the host numbers it; 0 when paused before its start */
};

/* Starts. Returns when the program (or init) was executed, or, paused, when it stands before that; or with the error of the
 * step that failed, and then nothing is left: no process, mount, loop device or socket. A command that is not there is
 * ERR_NOT_FOUND with errno ENOENT, one that cannot be executed ERR_DENIED (exit codes 127 and 126). */
int engine_launch(const struct launch *l, struct launch_result *ret_result, struct err *e) must_check;

#endif
