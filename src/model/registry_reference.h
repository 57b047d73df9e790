/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MODEL_REGISTRY_REFERENCE_H
#define MODEL_REGISTRY_REFERENCE_H

/*
 * Where an image is in a registry, as people write it: [docker://][host[:port]/]name[:tag][@sha256:HEX] (the grammar of
 * github.com/distribution/reference). Without a host it is docker.io, whose names of one component are in "library/".
 */

#include <stdbool.h>

#include "base/err.h"
#include "base/hash.h"

struct registry_reference {
	char host[264];      /* "registry.example.org", with ":5000" when a port was given; lower case; "docker.io" */
	char repository[256];
	char tag[129];       /* "latest" when neither tag nor digest was given; empty when only the digest counts */
	bool has_digest;
	struct digest digest; /* counts more than the tag */
};

int registry_reference_parse(const char *text, struct registry_reference *ret_reference, struct err *e) must_check;
/* "https://registry-1.docker.io", or plain "http://..." for loopback hosts (localhost, 127.0.0.0/8, [::1]) only. */
void registry_reference_base(const struct registry_reference *r, char *out, size_t size);
/* host:port is this machine itself. Names count only when they cannot be anything else: "localhost". */
bool registry_host_is_loopback(const char *host);

#endif
