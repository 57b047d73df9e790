/* SPDX-License-Identifier: Apache-2.0 */
#include "base/mem.h"
#include "base/str.h"
#include "cli/change.h"
#include "cli/spec_edit.h"
#include "model/network.h"

static int add_ports(struct cli *cli, const struct args *a, const char *name, const json_t *spec, json_t *body, struct err *e)
{
	own_json json_t *list = spec_edit_list(spec, "publish");
	bool changed = false;
	int r = 0;

	(void)name;
	if (a->operand_count == 1) {
		spec_edit_print(cli, list);
		return 0;
	}
	for (size_t i = 1; r == 0 && i < a->operand_count; i++) {
		r = network_check_publish(args_operand(a, i), e);
		if (r == 0)
			changed |= spec_edit_add(list, args_operand(a, i));
	}
	return r == 0 && changed ? json_object_set(body, "publish", list) : r;
}

static int publish(struct cli *cli, const struct args *a, struct err *e)
{
	return spec_edit(cli, a, args_operand(a, 0), add_ports, e);
}

/* As it was published, or only its port of the host: "8080", "8080/udp". */
static bool matches(const char *published, const char *asked)
{
	struct network_publish p;

	if (str_eq(published, asked))
		return true;
	if (network_parse_publish(published, &p, NULL) < 0)
		return false;
	own_str char *port = mem_printf("%u%s", p.outside, p.udp ? "/udp" : "");
	own_str char *tcp = mem_printf("%u/tcp", p.outside);
	return str_eq(port, asked) || (!p.udp && str_eq(tcp, asked));
}

static int take_ports(struct cli *cli, const struct args *a, const char *name, const json_t *spec, json_t *body, struct err *e)
{
	own_json json_t *list = spec_edit_list(spec, "publish");
	int r = 0;

	(void)cli;
	for (size_t i = 1; r == 0 && i < a->operand_count; i++) {
		bool found = false;
		for (size_t j = json_array_size(list); j-- > 0;)
			if (matches(json_string_value(json_array_get(list, j)), args_operand(a, i))) {
				(void)json_array_remove(list, j);
				found = true;
			}
		if (!found) {
			(void)err_set(e, ERR_NOT_FOUND, "workspace '%s' does not publish %.64s", name, args_operand(a, i));
			r = err_hint(e, "carrel publish %s lists what it publishes", name);
		}
	}
	return r < 0 ? r : json_object_set(body, "publish", list);
}

static int unpublish(struct cli *cli, const struct args *a, struct err *e)
{
	return spec_edit(cli, a, args_operand(a, 0), take_ports, e);
}

static const struct operand publish_operands[] = { { "WORKSPACE", "workspace", COMPLETE_WORKSPACE },
						   { "PORT", "[ADDRESS:]OUTSIDE:INSIDE[/tcp|/udp]", .optional = true,
						     .many = true },
						   { 0 } };
static const struct operand unpublish_operands[] = { { "WORKSPACE", "workspace", COMPLETE_WORKSPACE },
						     { "PORT", "as it was published, or the host's port: 8080, 53/udp",
						       .many = true },
						     { 0 } };
static const struct example publish_examples[] = {
	{ "carrel publish web 8080:80", "port 8080 of the host leads to port 80 of web, also while it runs" },
	{ "carrel publish web 127.0.0.1:5353:53/udp", "from the host itself only" },
	{ "carrel publish web", "list what it publishes" },
	{ 0 },
};
static const struct example unpublish_examples[] = { { "carrel unpublish web 8080", "no new connections by that port" },
						     { 0 } };
const struct verb verb_publish = { "publish", "let a port of the host lead into a workspace", NULL, publish_operands, NULL,
				   change_options, publish_examples, publish };
const struct verb verb_unpublish = { "unpublish",    "take a published port back", NULL,     unpublish_operands, NULL,
				     change_options, unpublish_examples,           unpublish };
