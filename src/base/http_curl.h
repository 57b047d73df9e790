/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_HTTP_CURL_H
#define BASE_HTTP_CURL_H

/* The same requests by libcurl, for "https://" and plain "http://" to this machine. The library is loaded by the first call. */

#include "base/http.h"

struct http_curl;

int http_curl_new(const char *address, struct http_curl **ret_curl, struct err *e) must_check;
void http_curl_free(struct http_curl *c);
int http_curl_do(struct http_curl *c, const struct http_request *request, struct http_answer *ret_answer,
		 struct err *e) must_check;

#endif
