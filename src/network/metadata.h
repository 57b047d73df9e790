/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NETWORK_METADATA_H
#define NETWORK_METADATA_H

/*
 * The metadata address, 169.254.169.254 and fd00:ec2::254: what a workspace may know about itself, in the forms of EC2
 * (docs.aws.amazon.com, "Instance metadata", with tokens of version 2) and OpenStack (docs.openstack.org/nova, "Metadata
 * service").
 *
 * carrel-metadata FOLDER is the server of one host: a process without rights but to ask the kernel which interface a connection
 * came in by. The filter marks each connection with its attachment's number, so the caller is known by its interface and never
 * by its address. FOLDER holds one file for each attachment, NUMBER.json (docs/formats/metadata.md), and is written by the
 * agent.
 *
 * This header is the part without input and output. Requests are HTTP/1.x with a head of at most METADATA_HEAD_MOST bytes and
 * no body; each connection carries one.
 */

#include <jansson.h>

#include "base/str.h"
#include "model/assignment.h"

#define METADATA_HEAD_MOST 8192
#define METADATA_TTL_MOST 21600 /* seconds, as EC2 */

enum metadata_method { METADATA_GET, METADATA_HEAD, METADATA_PUT };

struct metadata_request {
	enum metadata_method method;
	char path[512];  /* decoded, without doubled and trailing slashes */
	char token[128]; /* "": none was sent */
	uint32_t ttl;    /* 0: none was asked for */
	bool forwarded;  /* by a proxy: such a request gets no token */
};

struct metadata_key {
	uint8_t bytes[32];
};

/* 1: the head is complete; 0: more is needed; negative: this will never be a request. */
int metadata_parse(const char *bytes, size_t length, struct metadata_request *ret_request, struct err *e) must_check;
/* The whole response. `identity` NULL: the caller is nobody we know. Tokens are bound to the attachment and good until a time;
 * they are made with the key and not kept. */
void metadata_answer(const struct metadata_request *r, const json_t *identity, uint64_t attachment,
		     const struct metadata_key *key, uint64_t now_s, struct str *ret_response);

/* What the agent writes into NUMBER.json for attachment `which` of a workspace; a new reference. */
json_t *metadata_identity(const struct assignment *a, size_t which);

#endif
