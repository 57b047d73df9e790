/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NETWORK_QUESTION_H
#define NETWORK_QUESTION_H

/*
 * What somebody asks a name server (RFC 1035, 4.1), as far as it decides whether they may: one question of class IN. And how
 * the process that reads it (names_front.h) puts it to the agent, which knows who may talk to whom: messages of one size.
 */

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define QUESTION_HEADER 12
#define QUESTION_MOST 4096     /* longest query that is looked at */
#define QUESTION_NAME_SIZE 256 /* of a name as text */

/* In small letters, without the last dot; bytes that no host name has are '?'. 0, or -EINVAL: not a query of that kind.
 * ret_end: where the question ends. */
int question_parse(const unsigned char *bytes, size_t length, char ret_name[static QUESTION_NAME_SIZE], size_t *ret_end);

enum names_kind {
	NAMES_HERE = 1, /* NAME.ZONE, or NAME alone: `name` */
	NAMES_ADDRESS,  /* whose address is it: `about` */
	NAMES_OUTSIDE,  /* anything else, in `name` whole: perhaps of another network */
};

enum names_verdict {
	NAMES_NOBODY,  /* who asks is none of ours: no answer */
	NAMES_ANSWER,
	NAMES_HIDDEN,  /* there is no such name for them */
	NAMES_REFUSED, /* they may not ask that */
	NAMES_FORGET,  /* no answer: what was decided before may be otherwise now */
};

struct names_address {
	unsigned char bytes[16]; /* the first 4 when IPv4 */
	uint8_t ipv6;
};

struct names_question {
	uint32_t id;
	uint8_t kind;
	struct names_address asker, about;
	char name[QUESTION_NAME_SIZE];
};

struct names_decision {
	uint32_t id;
	uint8_t verdict;
	bool elsewhere;              /* it is for the dnsmasq of another network, */
	struct names_address server; /* of which this is a gateway */
};

/* Fills kind, name and about. */
void question_classify(const char *name, const char *zone, struct names_question *out);
/* The query in place becomes the answer that says no (a response code of RFC 1035, 4.1.1); returns its length. */
size_t question_refuse(unsigned char *bytes, size_t end, unsigned code);
#define QUESTION_NXDOMAIN 3
#define QUESTION_REFUSED 5

#endif
