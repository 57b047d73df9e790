/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENFORCE_ENFORCE_H
#define ENFORCE_ENFORCE_H

/*
 * Limits by cgroups. One workspace is one name, PARENT/ID, in every hierarchy that matters: v1 controllers, the v2 tree, or
 * both side by side. The plan is pure (layout and limits in; folders and writes out); applying it is thin and may be repeated:
 * every call finds its folders by name.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/decode.h"
#include "base/err.h"
#include "base/str.h"

enum enforce_controller { ENFORCE_CPU, ENFORCE_CPUACCT, ENFORCE_MEMORY, ENFORCE_PIDS, ENFORCE_FREEZER, ENFORCE_DEVICES,
			  ENFORCE_CONTROLLERS };

/* Where this host keeps its cgroups. */
struct enforce_layout {
	char *v1[ENFORCE_CONTROLLERS]; /* mount points; NULL: not a v1 controller here. Two may be the same (cpu,cpuacct) */
	char *v2;                      /* mount point of the cgroup2 tree, or NULL */
	/* comes from the v2 tree: what it has, and freezing always, as entering one tree is enough for that */
	bool v2_has[ENFORCE_CONTROLLERS];
};

struct enforce_limits {
	uint64_t cpu_milli;    /* 0: no limit */
	uint64_t memory_bytes; /* 0: no limit */
	uint64_t processes;    /* 0: no limit */
	bool kvm;              /* it is a machine, whose QEMU opens /dev/kvm */
	/* it is a machine with so many: cpu_milli is theirs alone, QEMU's other threads get a part on top; 0: none */
	unsigned processors;
};

struct enforce_write {
	char *path, *text;
	bool optional; /* files that not every kernel has (swap) */
	bool once;     /* at the start only: what lives is not shaken by it */
};

struct enforce_plan {
	char **folders;      /* to make, parents first; NULL-terminated */
	struct enforce_write *writes;
	size_t write_count;
	char **v1;           /* folders that the first process enters: struct launch_cgroups; NULL-terminated */
	char *v2;
	char *freeze_path;
	const char *freeze_text, *thaw_text;
	char *processors;    /* file that takes the ids of virtual processors' threads; NULL: it is no machine */
	uint32_t owner_id;   /* the workspace's root, who may make folders below v2; 0: nobody */
	bool device_program; /* v2: the device rules become a program on the folder */
	bool kvm;            /* among them: /dev/kvm */
	struct { /* where enforce_usage reads; NULL: not known here */
		char *cpu, *memory, *pids;
		bool cpu_v2, memory_v2;
	} usage;
};

/* From the text of /proc/self/mountinfo and, of a v2 tree, its cgroup.controllers ("" when there is none). Pure. */
int enforce_layout_parse(const char *mountinfo, const char *v2_controllers, struct enforce_layout *ret_layout,
			 struct err *e) must_check;
int enforce_layout_read(struct enforce_layout *ret_layout, struct err *e) must_check;
void enforce_layout_done(struct enforce_layout *l);

/* `parent` is a path below each hierarchy's root ("carrel", "system.slice/carrel-node.service/workspaces"). Pure. */
int enforce_plan(const struct enforce_layout *l, const char *parent, const char *id, const struct enforce_limits *limits,
		 uint32_t owner_id, struct enforce_plan *ret_plan, struct err *e) must_check;
void enforce_plan_done(struct enforce_plan *p);
/* One line a step: "mkdir PATH", "write PATH TEXT". For golden files and --dry-run. */
void enforce_plan_print(const struct enforce_plan *p, struct str *out);

/* Makes folders, writes limits. */
int enforce_apply(const struct enforce_plan *p, struct err *e) must_check;
/* What a change writes: the limits that are not what the kernel has. */
struct enforce_step {
	const struct enforce_write *write;
	const char *before; /* what the file says */
	bool squeeze;       /* memory.max, lower than before: what can be taken is taken first, for a write alone kills */
};
/* `now[i]` is the content of the file of writes[i], NULL when there is none. `ret_steps` has room for all writes. Pure. */
size_t enforce_steps(const struct enforce_plan *p, char *const *now, struct enforce_step *ret_steps);
/* Brings the groups of what lives to other limits. ERR_CONFLICT: more memory is in use than shall be. After a failure all
 * limits are what they were. */
int enforce_change(const struct enforce_plan *p, struct err *e) must_check;
/* Every process of it, also those below and frozen ones; returns when none is left. */
int enforce_kill(const struct enforce_plan *p, struct err *e) must_check;
/* Ids that have a folder below `parent` in any hierarchy. */
int enforce_list(const struct enforce_layout *l, const char *parent, struct texts *ret_ids, struct err *e) must_check;
/* Folders away, with those made below them; kills first what is left inside. Absent is fine. */
int enforce_remove(const struct enforce_plan *p, struct err *e) must_check;

/* Devices that a workspace may use: the one table, for v1's files and for v2's program. */
struct enforce_device {
	char type;          /* 'c' or 'b' */
	int major, minor;   /* minor -1: all */
	const char *access; /* of "rwm" */
};
extern const struct enforce_device enforce_devices[]; /* ends with type 0 */
extern const struct enforce_device enforce_kvm;       /* one more for machines */
/* Attaches the rules to a v2 folder as a program (BPF_CGROUP_DEVICE); everything else is refused. */
int enforce_devices_attach(const char *folder, bool kvm, struct err *e) must_check;

struct enforce_usage {
	uint64_t cpu_us, memory_bytes, memory_peak_bytes, processes, out_of_memory_kills; /* UINT64_MAX: not known here */
};
int enforce_usage(const struct enforce_plan *p, struct enforce_usage *ret_usage, struct err *e) must_check;

#endif
