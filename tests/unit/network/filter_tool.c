/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The filter by JSON lines, for tests and benchmarks that are not written in C. A request is an object {"do": VERB, ...}, an
 * answer {"ok": true, ...} or {"error": SENTENCE}; each has "us", the microseconds it took.
 *
 *   intent            "intent": networks, members, workspaces: what the next requests are about
 *   compile           "text"
 *   apply | add | remove (with "id") | check | counters | facts | remove-all
 *   fast              the short way for the ports of the intent (but those of "slow", a list); from then on flows are learned
 *                     and cared for
 *   fast-counts       "counts": of each port the packets that took it
 *   judge             "from", "to": {"workspace", "address"}, "protocol", "port", "ipv6", "published"
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "model/assignment.h"
#include "network/fast.h"
#include "network/filter.h"

struct tool {
	struct filter *filter;
	struct fast *fast;
	struct filter_intent intent;
	struct network *networks;
	struct filter_network *filter_networks;
	struct member *members;
	struct filter_workspace *workspaces;
};

static void decode_or_die(json_t *json, const struct shape *shape, void *to)
{
	struct err e;
	if (decode_json(json, "intent", shape, to, &e) < 0) {
		fprintf(stderr, "%s\n", e.message);
		exit(2);
	}
}

static char *text_of(const json_t *object, const char *key)
{
	return mem_strdup(json_string_value(json_object_get(object, key)));
}

static void read_workspace(json_t *json, struct filter_workspace *w)
{
	struct spec *spec = mem_alloc(sizeof *spec);
	json_t *list = json_object_get(json, "attachments");
	struct attachment *attachments = mem_alloc_array(json_array_size(list) + 1, sizeof *attachments);

	decode_or_die(json_object_get(json, "spec"), &spec_shape, spec);
	for (size_t i = 0; i < json_array_size(list); i++)
		decode_or_die(json_array_get(list, i), &attachment_shape, &attachments[i]);
	*w = (struct filter_workspace){ .id = text_of(json, "id"), .spec = spec, .attachments = attachments,
					.attachment_count = json_array_size(list),
					.owner_uid = (uint64_t)json_integer_value(json_object_get(json, "owner")) };
}

/* What was read before is left: a test's process is short. */
static void read_intent(struct tool *s, json_t *json)
{
	json_t *networks = json_object_get(json, "networks"), *members = json_object_get(json, "members"),
	       *workspaces = json_object_get(json, "workspaces");

	s->networks = mem_alloc_array(json_array_size(networks) + 1, sizeof *s->networks);
	s->filter_networks = mem_alloc_array(json_array_size(networks) + 1, sizeof *s->filter_networks);
	s->members = mem_alloc_array(json_array_size(members) + 1, sizeof *s->members);
	s->workspaces = mem_alloc_array(json_array_size(workspaces) + 1, sizeof *s->workspaces);
	for (size_t i = 0; i < json_array_size(networks); i++) {
		decode_or_die(json_object_get(json_array_get(networks, i), "network"), &network_shape, &s->networks[i]);
		s->filter_networks[i] = (struct filter_network){ &s->networks[i],
								 text_of(json_array_get(networks, i), "device") };
	}
	for (size_t i = 0; i < json_array_size(members); i++)
		decode_or_die(json_array_get(members, i), &member_shape, &s->members[i]);
	for (size_t i = 0; i < json_array_size(workspaces); i++)
		read_workspace(json_array_get(workspaces, i), &s->workspaces[i]);
	s->intent = (struct filter_intent){ .instance = text_of(json, "instance"), .networks = s->filter_networks,
					    .network_count = json_array_size(networks), .members = s->members,
					    .member_count = json_array_size(members), .workspaces = s->workspaces,
					    .workspace_count = json_array_size(workspaces),
					    .metadata_port = (uint16_t)json_integer_value(json_object_get(json,
													  "metadata-port")),
					    .connections_most = (uint64_t)json_integer_value(json_object_get(json,
													     "connections")) };
	if (!s->filter)
		s->filter = filter_new(s->intent.instance);
}

static int judge(struct tool *s, json_t *request, json_t *answer, struct err *e)
{
	const json_t *from = json_object_get(request, "from"), *to = json_object_get(request, "to");
	const char *protocol = json_string_value(json_object_get(request, "protocol"));
	struct filter_verdict v;
	struct filter_question q = {
		.from = { json_string_value(json_object_get(from, "workspace")),
			  json_string_value(json_object_get(from, "address")) },
		.to = { json_string_value(json_object_get(to, "workspace")),
			json_string_value(json_object_get(to, "address")) },
		.port = (uint16_t)json_integer_value(json_object_get(request, "port")),
		.ipv6 = json_is_true(json_object_get(request, "ipv6")),
		.published = json_is_true(json_object_get(request, "published")),
	};

	for (unsigned i = 0; rule_protocol_names[i]; i++)
		if (protocol && !strcmp(protocol, rule_protocol_names[i]))
			q.protocol = i;
	if (filter_judge(&s->intent, &q, &v, e) < 0)
		return -1;
	json_object_set_new(answer, "allowed", json_boolean(v.allowed));
	json_object_set_new(answer, "side", json_string(filter_side_names[v.side]));
	json_object_set_new(answer, "workspace", json_string(v.workspace));
	json_object_set_new(answer, "rule", json_string(v.rule));
	return 0;
}

static int counters(struct tool *s, json_t *answer, struct err *e)
{
	struct filter_counts counts = { 0 };
	json_t *list = json_array();

	if (filter_counters(s->filter, &counts, e) < 0)
		return -1;
	for (size_t i = 0; i < counts.count; i++)
		json_array_append_new(list, json_pack("{s:s,s:s,s:b,s:s,s:I,s:I}", "workspace", counts.items[i].workspace,
						      "side", filter_side_names[counts.items[i].side], "allowed",
						      (int)counts.items[i].allowed, "rule", counts.items[i].rule, "packets",
						      (json_int_t)counts.items[i].packets, "bytes",
						      (json_int_t)counts.items[i].bytes));
	json_object_set_new(answer, "counters", list);
	filter_counts_done(&counts);
	return 0;
}

static int facts(json_t *answer, struct err *e)
{
	struct filter_fact found[16];
	json_t *list = json_array();
	int count = filter_facts(found, 16, e);

	for (int i = 0; i < count; i++)
		json_array_append_new(list, json_pack("{s:s,s:s}", "what", found[i].what, "advice", found[i].advice));
	json_object_set_new(answer, "facts", list);
	return count;
}

static bool is_slow(json_t *request, const char *port)
{
	json_t *list = json_object_get(request, "slow");

	for (size_t i = 0; i < json_array_size(list); i++)
		if (str_eq(json_string_value(json_array_get(list, i)), port))
			return true;
	return false;
}

static const char *bridge_of(const struct tool *s, const char *network)
{
	for (size_t i = 0; i < s->intent.network_count; i++)
		if (str_eq(s->filter_networks[i].network->name, network) &&
		    s->filter_networks[i].network->kind != NETWORK_BRIDGE)
			return s->filter_networks[i].bridge;
	return NULL;
}

static int set_fast(struct tool *s, json_t *request, struct err *e)
{
	struct fast_port *ports = mem_alloc_array(s->intent.workspace_count * NETWORK_INTERFACES + 1, sizeof *ports);
	size_t count = 0;

	if (!s->fast && (fast_probe(e) < 0 || fast_new(&s->fast, e) < 0))
		return -1;
	for (size_t i = 0; i < s->intent.workspace_count; i++)
		for (size_t k = 0; k < s->workspaces[i].attachment_count; k++) {
			const struct attachment *a = &s->workspaces[i].attachments[k];
			const char *bridge = bridge_of(s, a->network);
			if (!bridge || !fast_port_set(&ports[count], a, bridge))
				continue;
			ports[count++].slow = is_slow(request, a->port);
		}
	int r = fast_set_ports(s->fast, ports, count, e);
	free(ports);
	return r;
}

static int fast_count_list(struct tool *s, json_t *answer, struct err *e)
{
	struct fast_count *counts;
	size_t count;
	json_t *list = json_object();

	if (fast_counts(s->fast, &counts, &count, e) < 0)
		return -1;
	for (size_t i = 0; i < count; i++)
		json_object_set_new(list, counts[i].port, json_integer((json_int_t)counts[i].packets));
	json_object_set_new(answer, "counts", list);
	free(counts);
	return 0;
}

static int act(struct tool *s, const char *verb, json_t *request, json_t *answer, struct err *e)
{
	const char *id = json_string_value(json_object_get(request, "id"));
	char what[160] = "";
	int result = 0;

	if (!strcmp(verb, "compile")) {
		struct str text = { 0 };
		result = filter_compile(&s->intent, &text, e);
		json_object_set_new(answer, "text", json_string(str_text(&text)));
		str_done(&text);
	} else if (!strcmp(verb, "apply")) {
		result = filter_apply(s->filter, &s->intent, e);
	} else if (!strcmp(verb, "add")) {
		result = filter_add(s->filter, &s->intent, id, e);
	} else if (!strcmp(verb, "remove")) {
		result = filter_remove(s->filter, id, e);
	} else if (!strcmp(verb, "check")) {
		result = filter_check(s->filter, what, e);
		json_object_set_new(answer, "drift", json_string(result == 1 ? what : ""));
		json_object_set_new(answer, "unsure", json_boolean(result == 2));
	} else if (!strcmp(verb, "counters")) {
		result = counters(s, answer, e);
	} else if (!strcmp(verb, "fast")) {
		result = set_fast(s, request, e);
	} else if (!strcmp(verb, "fast-counts")) {
		result = fast_count_list(s, answer, e);
	} else if (!strcmp(verb, "judge")) {
		result = judge(s, request, answer, e);
	} else if (!strcmp(verb, "facts")) {
		result = facts(answer, e);
	} else if (!strcmp(verb, "remove-all")) {
		result = filter_remove_all(s->intent.instance, e);
	} else {
		exit(2);
	}
	bool changed = !strcmp(verb, "apply") || !strcmp(verb, "add") || !strcmp(verb, "remove");
	if (s->fast && result >= 0 && changed && fast_rules_changed(s->fast, e) < 0)
		return -1;
	return result;
}

static double microseconds(void)
{
	struct timespec t;
	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

/* Until there is a request. */
static void look_after_fast(struct tool *s)
{
	static double care_at;
	struct err e = { 0 };

	while (s->fast) {
		struct pollfd p[] = { { .fd = 0, .events = POLLIN }, { .fd = fast_fd(s->fast), .events = POLLIN } };
		(void)poll(p, 2, FAST_CARE_MS);
		if (p[1].revents && fast_learn(s->fast, &e) < 0)
			fprintf(stderr, "%s\n", e.message);
		if (microseconds() >= care_at) {
			care_at = microseconds() + FAST_CARE_MS * 1e3;
			if (fast_care(s->fast, &e) < 0)
				fprintf(stderr, "%s\n", e.message);
		}
		if (p[0].revents)
			return;
	}
}

int main(void)
{
	struct tool s = { 0 };
	char *line = NULL;
	size_t room = 0;

	(void)setvbuf(stdin, NULL, _IONBF, 0); /* nothing waits where poll does not see it */
	while (look_after_fast(&s), getline(&line, &room, stdin) > 0) {
		struct err e = { 0 };
		json_t *request = json_loads(line, 0, NULL), *answer = json_object();
		const char *verb = json_string_value(json_object_get(request, "do"));
		if (!verb)
			return 2;
		if (!strcmp(verb, "intent"))
			read_intent(&s, json_object_get(request, "intent"));
		double start = microseconds();
		int result = strcmp(verb, "intent") ? act(&s, verb, request, answer, &e) : 0;
		json_object_set_new(answer, "us", json_real(microseconds() - start));
		json_object_set_new(answer, result < 0 ? "error" : "ok", result < 0 ? json_string(e.message) : json_true());
		if (result < 0)
			json_object_set_new(answer, "hint", json_string(e.hint));
		(void)json_dumpf(answer, stdout, 0);
		(void)putchar('\n');
		(void)fflush(stdout);
		json_decref(answer);
		json_decref(request);
	}
	return 0;
}
