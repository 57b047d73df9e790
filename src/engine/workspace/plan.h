/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_WORKSPACE_PLAN_H
#define ENGINE_WORKSPACE_PLAN_H

/*
 * What carrel-run does for one workspace, as plain data: made by the agent, carried in a memory file, read in place by the
 * runner (docs/formats/plan.md). The lists of fields below are the format: encoder, decoder and release of memory follow from
 * them.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

#define PLAN_MAGIC 0x314e5043u /* "CPN1" */
#define PLAN_BYTES_MOST (4u << 20)

enum plan_flag {
	PLAN_SYSTEM = 1,       /* the image's own init is the first process */
	PLAN_HELD = 2,         /* output waits for the first attach */
	PLAN_PAUSED = 4,       /* frozen before the program starts */
	PLAN_MAINTENANCE = 8,  /* no program */
	PLAN_THROW_AWAY = 16,  /* nothing of the root volume need reach the disk */
	PLAN_TERMINAL = 32,    /* standard streams are a pty */
	PLAN_INPUT = 64,       /* standard input stays open */
	PLAN_HOST_NETWORK = 128,
	PLAN_TRAVELS = 256,    /* of a machine: its workspace lives in namespaces there, as it does on a host */
};

enum step_kind {
	STEP_MOUNT = 1,  /* a new file system: type in source, options in text, attributes in number */
	STEP_VOLUME,     /* data volume: name in source, attributes in number */
	STEP_DEVICE,     /* a device file of the host */
	STEP_HOST,       /* a folder of the host, with what is mounted below, read-only */
	STEP_LINK,       /* symbolic link to text */
	STEP_FOLDER,     /* mode in number */
	STEP_HIDE,       /* an empty, unreadable thing over a file or folder, when it is there */
	STEP_READ_ONLY,  /* what is there becomes read-only, when it is there; but for the folder in text */
	STEP_WRITE,      /* a file with text; enum write_when in number */
	STEP_CONSOLE,    /* the workspace's terminal as a device file */
	STEP_FIRST,      /* carrel-first, a file of the host in source, read-only */
	STEP_TUN,        /* a folder with the device tun, read-only */
	/* binfmt_misc of the workspace's own: what text says of programs is run by source, a program of the host */
	STEP_FOREIGN,
};

enum write_when {
	WRITE_ALWAYS,
	WRITE_UNLESS_OWN, /* missing, empty or with our mark in front: an administrator's file is left alone */
	WRITE_IF_THERE,
};
#define WRITE_MARK "# by carrel\n"
#define PLAN_HOSTS WRITE_MARK "127.0.0.1 localhost\n127.0.1.1 %s\n::1 localhost ip6-localhost ip6-loopback\n" /* /etc/hosts */

#define PLAN_FIRST "/dev/.first" /* where the first process of a program's workspace finds itself */

struct step {
	uint32_t kind;
	uint64_t number;
	const char *source, *target, *text; /* never NULL after decoding */
};

/* clang-format off */
#define PLAN_NUMBERS(X) X(flags) X(first_id) X(run) X(stop_signal) X(capabilities) X(open_files) X(log_bytes) X(log_files)
#define PLAN_TEXTS(X) X(id) X(name) X(host_name) X(run_dir) X(log_path) X(cgroup_v2) X(freeze_path) X(freeze_text) \
	X(thaw_text) X(user) X(directory)
#define PLAN_LISTS(X) X(partitions) X(cgroups_v1) X(argv) X(environment) X(volumes) X(interfaces)
/* clang-format on */

/* `interfaces` has this many texts for each, in this order; mtu, isolated ("0", "1") and vlan ("0": none) as decimal numbers,
 * "" where there is none. */
enum plan_interface {
	INTERFACE_PORT, INTERFACE_BRIDGE, INTERFACE_DEVICE, INTERFACE_MAC, INTERFACE_MTU, INTERFACE_ISOLATED,
	INTERFACE_IPV4, INTERFACE_IPV6, INTERFACE_GATEWAY4, INTERFACE_GATEWAY6, INTERFACE_VLAN, INTERFACE_POOL6,
	INTERFACE_TEXTS,
};
#define INTERFACES_MOST 8

struct plan {
#define X(name) uint64_t name;
	PLAN_NUMBERS(X)
#undef X
#define X(name) const char *name; /* "" when there is none */
	PLAN_TEXTS(X)
#undef X
#define X(name) const char **name; /* NULL-terminated */
	PLAN_LISTS(X)
#undef X
	struct step *steps;
	size_t step_count;
	const void *filter; /* seccomp program: struct sock_filter[], or none */
	size_t filter_bytes;
};
/* A plan comes with its memory file alone; a second message brings a mount and a loop device for the root volume and for each
 * entry of `volumes`. */
#define PLAN_FDS_MOST 128

void plan_encode(const struct plan *p, struct str *out);
/* Texts of *ret_plan point into `bytes`, which must stay. */
int plan_decode(const void *bytes, size_t length, struct plan *ret_plan, struct err *e) must_check;
void plan_release(struct plan *p); /* the arrays that plan_decode made */

/* What of a machine's plan stays outside: who it is, where it logs, in which groups it lives. */
void plan_encode_outside(const struct plan *p, struct str *out);

/* Adds KEY=VALUE to a list with room for it, in place of an earlier one of that key. */
void plan_set_variable(const char **list, size_t *count, const char *entry);

#endif
