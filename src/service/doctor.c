/* SPDX-License-Identifier: Apache-2.0 */
/* What hosts can do: each that is connected is asked to look anew, since what it lacked may have been installed a second
 * ago. */
#include "service/doctor.h"

#include <stdlib.h>

#include "base/mem.h"
#include "service/handlers.h"
#include "service/host.h"

#define LOOK_MS 5000

struct look {
	struct request *request;
	json_int_t id;
	unsigned awaited;
	struct loop_source *timer;
	struct look *next;
};
static struct look *looks;

static void reply(struct request *r)
{
	struct db_counters counters = db_count(r->service->db);
	json_t *hosts = json_array();

	for (struct host *h = r->service->hosts; h; h = h->next)
		(void)json_array_append_new(hosts, json_pack("{s:s, s:b, s:O}", "name", h->name, "connected", host_connected(h),
							     "facts", h->facts));
	request_reply_json(r, 200,
			   json_pack("{s:s, s:{s:i, s:I, s:I}, s:o}", "version", CARREL_VERSION, "database", "schema",
				     db_schema_version(), "commits", (json_int_t)counters.commits, "commit_microseconds",
				     (json_int_t)(counters.commits ? counters.commit_us / counters.commits : 0), "hosts",
				     hosts));
}

static void end(struct look *l)
{
	for (struct look **at = &looks; *at; at = &(*at)->next)
		if (*at == l) {
			*at = l->next;
			break;
		}
	loop_remove(l->timer);
	reply(l->request);
	free(l);
}

/* What it knew before is told. */
static void too_late(void *data)
{
	struct look *l = data;

	l->timer = NULL;
	end(l);
}

void doctor_looked(json_int_t id)
{
	for (struct look *l = looks; l; l = l->next)
		if (l->id == id) {
			if (--l->awaited == 0)
				end(l);
			return;
		}
}

int handle_doctor(struct request *r, struct err *e)
{
	static json_int_t last;
	struct look *l = mem_alloc(sizeof *l);

	(void)e;
	*l = (struct look){ .request = r, .id = ++last, .next = looks };
	looks = l;
	for (struct host *h = r->service->hosts; h; h = h->next)
		if (host_connected(h)) {
			host_send(h, json_pack("{s:s, s:I}", "type", "look", "id", l->id));
			l->awaited++;
		}
	if (l->awaited)
		l->timer = loop_add_timer(r->service->loop, LOOK_MS, too_late, l);
	else
		end(l);
	return 0;
}
