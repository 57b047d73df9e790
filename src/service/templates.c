/* SPDX-License-Identifier: Apache-2.0 */
/* Templates of machines are their host's: it is asked, and nothing of them is kept here. */
#include "service/handlers.h"
#include "service/host.h"
#include "service/views.h"

struct template_view {
	char *id, *engine, *architecture, *emulator, *used;
	uint64_t memory, processors, size;
};
#define T(member) offsetof(struct template_view, member)
static const struct field template_fields[] = {
	{ "id", FIELD_TEXT, T(id), "name: a digest of all that its memory depends on", .required = true },
	{ "engine", FIELD_TEXT, T(engine), "emulator or kvm", .required = true },
	{ "architecture", FIELD_TEXT, T(architecture), "processor of its machines", .required = true },
	{ "emulator", FIELD_TEXT, T(emulator), "version of QEMU", .required = true },
	{ "memory", FIELD_NUMBER, T(memory), "bytes of memory of its machines", .required = true },
	{ "processors", FIELD_NUMBER, T(processors), "processors of its machines", .required = true },
	{ "size", FIELD_NUMBER, T(size), "bytes on disk", .required = true },
	{ "used", FIELD_TEXT, T(used), "when a machine went on from it last, or it was made", .required = true },
	{ 0 },
};
const struct shape template_shape = { "template", sizeof(struct template_view), template_fields,
				      "What machines go on from instead of booting.", .open = true };

static int find_host(struct request *r, struct host **ret_host, struct err *e)
{
	const char *name = request_query(r, "host");
	struct host *h = name ? host_find(r->service, name) : host_choose(r->service);

	if (name && !h)
		return err_set(e, ERR_NOT_FOUND, "no host '%s'", name);
	if (!h || !host_connected(h))
		return err_set(e, ERR_UNAVAILABLE, "%s is not connected", h ? h->name : "no host");
	*ret_host = h;
	return 0;
}

int handle_templates_list(struct request *r, struct err *e)
{
	struct host *h;
	int result = find_host(r, &h, e);

	if (result == 0)
		host_ask(h, json_pack("{s:s}", "type", "templates"), r);
	return result;
}

int handle_template_remove(struct request *r, struct err *e)
{
	struct host *h;
	int result = find_host(r, &h, e);

	if (result == 0)
		host_ask(h, json_pack("{s:s, s:s}", "type", "templates", "remove", r->params[0]), r);
	return result;
}
