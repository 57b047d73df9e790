/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MODEL_SPEC_H
#define MODEL_SPEC_H

/*
 * What a user asks for: the workspace spec. Three parts, each replaceable without touching the others: what it is (image,
 * command, volumes), how much it gets (resources), where it belongs (name, host, network). The field tables in spec.c are the
 * only description: decoder, encoder, schema and manual follow from them.
 */

#include "base/decode.h"
#include "model/machine.h"
#include "model/network.h"

/* The least wall that the workspace wants around itself: the namespaces of the host's kernel, or a kernel of its own. */
enum spec_isolation { ISOLATION_NAMESPACE, ISOLATION_MACHINE };
extern const char *const spec_isolation_names[];

enum spec_engine { ENGINE_AUTO, ENGINE_WORKSPACE, ENGINE_APP, ENGINE_KVM, ENGINE_EMULATOR, ENGINE_XEN, ENGINE_VMWARE };
extern const char *const spec_engine_names[];

/* How the first process is started. AUTO: a full system when no command is given and the image has an init, else a program. */
enum spec_mode { MODE_AUTO, MODE_SYSTEM, MODE_PROGRAM };
extern const char *const spec_mode_names[];

enum spec_restart { RESTART_NO, RESTART_ON_FAILURE, RESTART_ALWAYS };
extern const char *const spec_restart_names[];

/* The rungs of the ladder at which a request may stop. */
enum spec_until { UNTIL_RUNNING, UNTIL_STAGED, UNTIL_PREPARED, UNTIL_PAUSED };
extern const char *const spec_until_names[];

/* AUTO: the networks of `networks`; without them the site's network "default" when there is one, else none. */
enum spec_network { NETWORK_AUTO, NETWORK_NONE, NETWORK_HOST };

struct spec_resources {
	uint64_t cpu_milli;    /* thousandths of a processor; 0: no limit */
	uint64_t memory_bytes; /* 0: no limit */
	uint64_t disk_bytes;   /* size of the root volume */
	uint64_t processes;    /* tasks; 0: no limit */
};

struct spec_volume {
	char *name;
	uint64_t size_bytes;
	char *mount;    /* absolute path in the workspace */
	bool keep;      /* stays when the workspace is removed, and is found again by its name */
	bool read_only;
};

/* One interface; what is NULL or 0 the service decides once. */
struct spec_interface {
	char *network;
	char *ipv4, *ipv6; /* without length */
	char *mac;
	struct network_rates *rates;
};

struct spec {
	char *name;     /* NULL: one is made up */
	char *image;    /* name[:tag] or sha256:... */
	unsigned engine, isolation, mode;
	char *kernel;          /* of a machine: name of a kernel; NULL: the image's wish, or the site's default */
	char *architecture;    /* processor that the image must be for; NULL: whatever it is for */
	struct texts command;  /* replaces the image's entry point and command */
	struct pairs environment;
	char *user;            /* "name", "uid", "user:group" */
	char *directory;       /* working directory */
	bool terminal;         /* the program's standard streams are a pty */
	bool interactive;      /* standard input stays open */
	struct spec_resources *resources; /* NULL: the defaults of spec_defaults */
	struct objects volumes;           /* struct spec_volume */
	char *host_name;       /* inside; NULL: the workspace's name */
	unsigned network;      /* enum spec_network */
	struct objects networks; /* struct spec_interface: eth0, eth1, ... */
	struct texts groups;   /* that it is in */
	struct texts allow, deny, from; /* who may talk to whom: see network.h; no items: the default */
	bool isolated;         /* talks to nobody */
	struct texts publish;  /* ports of the host that lead inside: network_parse_publish */
	char *user_data;       /* for cloud-init and other readers of the metadata address */
	struct texts ssh_keys; /* public keys, served by the metadata address */
	struct machine_wish *machine; /* of images that are disks; NULL: as the image says */
	struct pairs labels;
	unsigned restart;
	unsigned until;
	bool remove_on_exit;   /* the workspace goes away when its program ends */
	uint64_t stop_timeout_ms;
	bool travels;          /* may change its engine while it runs, with its memory: carrel move --live */
};

extern const struct shape spec_shape, spec_resources_shape;

#define SPEC_DISK_DEFAULT (UINT64_C(10) << 30)
#define SPEC_DISK_LEAST (UINT64_C(16) << 20)
#define SPEC_DISK_MOST (UINT64_C(16) << 40)
#define SPEC_PROCESSES_DEFAULT 4096

int spec_parse(const char *bytes, size_t length, const char *source, struct spec *ret_spec, struct err *e) must_check;
struct spec_resources spec_resources_or_default(const struct spec *s);
/* All that may be changed of how much it gets, in one word: equal when it is. */
char *spec_sizes(const struct spec *s) __attribute__((malloc, returns_nonnull));
void spec_done(struct spec *s);

#endif
