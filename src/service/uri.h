/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SERVICE_URI_H
#define SERVICE_URI_H

/* The target of a request, taken apart: path segments and query, percent-decoded. Pure; refuses what is ambiguous. */

#include "base/decode.h"

#define URI_SEGMENTS_MOST 8
#define URI_QUERY_MOST 32

struct uri {
	char *segments[URI_SEGMENTS_MOST]; /* "/v1/images/a%2Fb": "v1", "images", "a/b" */
	size_t segment_count;
	struct pairs query; /* in the order of the source; names are unique */
};

/* Refused: no '/' at the start, empty segments, bad or control bytes (%00 too), more than the limits, a parameter given
 * twice. */
int uri_parse(const char *target, struct uri *ret_uri, struct err *e) must_check;
void uri_done(struct uri *u);

#endif
