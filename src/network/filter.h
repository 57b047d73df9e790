/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NETWORK_FILTER_H
#define NETWORK_FILTER_H

/*
 * What may talk to what on this host: from the whole intent to two nftables tables of our own, and back to words.
 *
 *   compile   pure: intent -> nft's text, one transaction that replaces our tables and touches nothing else
 *   judge     pure: the same intent answers for one connection, with the rule that decides; agrees with packets
 *   apply     makes the kernel have it: whole at first, later only what differs (elements directly by netlink)
 *
 * The semantics are at the top of model/network.h, the tables in docs/formats/filter.md.
 *
 * Elements are keyed by the port's name, so a workspace is added before its port exists and removed after it is gone: there is
 * no moment without protection. A filter that could not be applied refuses the start: the callers must not go on.
 */

#include "model/network.h"
#include "model/rule.h"
#include "model/spec.h"

/* A network that this host carries. */
struct filter_network {
	const struct network *network;
	const char *bridge; /* the device: ours, or (kind bridge) the site's */
};

/* A workspace of this host. */
struct filter_workspace {
	const char *id;
	const struct spec *spec;
	const struct attachment *attachments;
	size_t attachment_count;
	uint64_t owner_uid;
	/* as many as attachments, or NULL: IPv4 addresses that the site's DHCP gave where the network gives none */
	const char *const *learned;
};

/* Everything, always; nothing in it is kept after a call. */
struct filter_intent {
	const char *instance; /* [a-z0-9]{1,8}; the tables are carrel_INSTANCE */
	const struct filter_network *networks;
	size_t network_count;
	const struct member *members; /* of the whole site; those of this host may be among them or not */
	size_t member_count;
	const struct filter_workspace *workspaces;
	size_t workspace_count;
	uint16_t metadata_port;    /* of the metadata server on this host: port 80 of its addresses leads there; 0: none */
	bool follows;              /* compile only: the kernel follows connections in family bridge; apply asks the kernel */
	uint64_t connections_most; /* that one workspace may open at a time; 0: FILTER_CONNECTIONS */
};

#define FILTER_CONNECTIONS 16384

/* Port of a workspace on the host as nft sees it is attachment.port; its number (low 32 bits) is the packet mark. */

/* What `nft -f -` reads to replace both tables. Fails on an intent that cannot be told to the kernel (bad address, bad
 * rule). */
int filter_compile(const struct filter_intent *intent, struct str *ret_text, struct err *e) must_check;

/* One end of a connection: a workspace (id), or an address outside. */
struct filter_end {
	const char *workspace; /* id; NULL: outside */
	/* outside: its address, NULL: any global one. Workspace: one of its addresses, NULL: the first */
	const char *address;
};

struct filter_question {
	struct filter_end from, to;
	enum rule_protocol protocol;
	uint16_t port;  /* 0 for ICMP */
	bool ipv6;      /* when no address says so */
	bool published; /* it came by a published port of the host; `port` is the one inside */
};

enum filter_side { FILTER_OUT, FILTER_IN }; /* leaving the first end, reaching the second */
extern const char *const filter_side_names[]; /* "out", "in" */

struct filter_verdict {
	bool allowed;
	enum filter_side side;  /* of the rule that decided */
	char workspace[20];     /* id of the workspace whose rule it is; "" when it is nobody's */
	char rule[RULE_LONGEST + 32]; /* "allow group:lab-a tcp/22", "default", "isolated", "network 'x' is isolated" */
};

int filter_judge(const struct filter_intent *intent, const struct filter_question *question, struct filter_verdict *ret_verdict,
		 struct err *e) must_check;

/* Whether any connection at all from one workspace to the other would pass, with one of the two on that network; exceptions
 * (`deny`) that name services do not count. The intent needs no others. For what names may be told. */
bool filter_may_talk(const struct filter_intent *intent, const char *from, const char *to, const char *network);
/* Whether it may go anywhere that has a name outside of the workspaces. */
bool filter_may_leave_site(const struct spec *spec);

/* Packets (denied) or connections (allowed) that met a rule since the workspace came. */
struct filter_count {
	char workspace[20];
	enum filter_side side;
	bool allowed;
	char rule[RULE_LONGEST + 32];
	uint64_t packets, bytes;
};

struct filter_counts {
	struct filter_count *items;
	size_t count;
};
void filter_counts_done(struct filter_counts *c);

/* What another program's rules or a setting do to our traffic. */
struct filter_fact {
	char what[160];   /* "table ip filter, chain FORWARD drops what nobody accepts (Docker)" */
	char advice[320];
};

struct filter;

/* Nothing is touched yet. */
struct filter *filter_new(const char *instance);
void filter_free(struct filter *f); /* the tables stay: workspaces outlive the agent */

/* The kernel has what `intent` says; connections that it no longer allows are ended. The first call replaces the tables
 * whole. */
int filter_apply(struct filter *f, const struct filter_intent *intent, struct err *e) must_check;
/* The same for one workspace that is new in the intent: at most 1 ms when its rules are known. Before the port is made. */
int filter_add(struct filter *f, const struct filter_intent *intent, const char *id, struct err *e) must_check;
/* One that was added and is (still) in the intent or not any more; unknown: fine. Its connections end. */
int filter_remove(struct filter *f, const char *id, struct err *e) must_check;

int filter_counters(struct filter *f, struct filter_counts *ret_counts, struct err *e) must_check;
/* An address that the site's DHCP gave to a workspace on a bridge of the site, as the kernel has learned it. */
struct filter_lease {
	char port[NETWORK_DEVICE_LENGTH + 1];
	unsigned char mac[6], address[4];
};
typedef void filter_lease_seen(void *context, const struct filter_lease *lease);
int filter_leases(struct filter *f, filter_lease_seen *seen, void *context, struct err *e) must_check;
/* It is nobody's from now on; one that is not there is fine. */
int filter_end_lease(struct filter *f, const struct filter_lease *lease, struct err *e) must_check;

/* 1: the kernel has something else than was applied (filter_apply repairs it and *ret_what says what it was); 2: it may have,
 * as another program's change came between ours (filter_apply makes sure); 0: as applied. */
int filter_check(struct filter *f, char ret_what[static 160], struct err *e) must_check;
/* Both tables go. For the end of an installation, and tests. */
int filter_remove_all(const char *instance, struct err *e) must_check;

/* At most `most` facts; the number found, for `carrel doctor`. Reads only. */
int filter_facts(struct filter_fact *facts, size_t most, struct err *e) must_check;

#endif
