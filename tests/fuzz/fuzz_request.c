/* SPDX-License-Identifier: Apache-2.0 */
/* A request as the API meets it: "METHOD TARGET\n" and a body; the address is taken apart and found, the body decoded for its route. */
#include <stdint.h>
#include <string.h>

#include "base/mem.h"
#include "base/own.h"
#include "service/routes.h"
#include "service/service.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static void decode_for(const struct route *route, const char *body, size_t length)
{
	struct err e;
	void *value = mem_alloc(route->request->size);

	if (decode_text(body, length, "request body", route->request, value, &e) == 0)
		shape_done(route->request, value);
	free(value);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
	static struct service service = { .config = { .admin_group = (char *)(uintptr_t)"a", .user_group = (char *)(uintptr_t)"b",
						      .viewer_group = (char *)(uintptr_t)"c" } };
	own_str char *text = mem_strndup((const char *)bytes, length);
	struct request r = { .service = &service, .who = { .admin = true, .user = true, .viewer = true } };
	char *target = strchr(text, ' '), *end = strchr(text, '\n');
	struct err e;

	if (!target || !end || target > end)
		return 0;
	*target++ = '\0';
	*end++ = '\0';
	if (uri_parse(target, &r.uri, &e) < 0)
		return 0;
	if (routes_find(&r, text, &e) == 0 && r.route->request)
		decode_for(r.route, end, length - (size_t)(end - text));
	struct page page;
	if (page_parse(&r, &page, &e) == 0 && (page.limit == 0 || page.limit > 1000))
		__builtin_trap();
	uri_done(&r.uri);
	return 0;
}
