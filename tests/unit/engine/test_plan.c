/* SPDX-License-Identifier: Apache-2.0 */
/* Launch requests against the plans they must give. CARREL_GOLDEN=update writes the files anew: look at the difference before
 * committing. */
#include "../golden.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "engine/engine.h"
#include "engine/workspace/plan.h"
#include "engine/workspace/request.h"

static struct err e;

static const char *const partitions[] = { "/run/carrel/node/partitions/aa", "/run/carrel/node/partitions/bb" };
static const char *const v1[] = { "/sys/fs/cgroup/memory/carrel/0123456789abcdef",
				  "/sys/fs/cgroup/pids/carrel/0123456789abcdef", NULL };
static const struct launch_volume volumes[] = { { .name = "data", .fd = -1, .mount = "/srv/data" },
						{ .name = "logs", .fd = -1, .mount = "/var/log", .read_only = true } };

struct request_case {
	struct spec spec;
	struct spec_resources resources;
	struct image_run run;
	struct image image;
	struct launch launch;
};

static void set_up(struct request_case *c)
{
	*c = (struct request_case){ 0 };
	c->image = (struct image){ .name = mem_strdup("debian:bookworm"), .run = &c->run };
	c->launch = (struct launch){ .id = "0123456789abcdef", .name = "web", .spec = &c->spec, .image = &c->image,
				     .first_id = 655360, .partitions = partitions, .partition_count = 2, .root_fd = -1,
				     .run_dir = "/run/carrel/node/workspaces/0123456789abcdef",
				     .log_path = "/var/lib/carrel/log", .run = 3,
				     .cgroups = { .v1 = v1, .v2 = "/sys/fs/cgroup/unified/carrel/0123456789abcdef",
						  .freeze_path = "/sys/fs/cgroup/unified/carrel/0123456789abcdef/cgroup.freeze",
						  .freeze_text = "1", .thaw_text = "0" } };
}

static void tear_down(struct request_case *c)
{
	texts_done(&c->spec.command);
	pairs_done(&c->spec.environment);
	texts_done(&c->run.entrypoint);
	texts_done(&c->run.command);
	texts_done(&c->run.environment);
	free(c->image.name);
}

static void compare(const struct launch *l, const char *name)
{
	json_t *plan = NULL;
	own_str char *file = mem_printf("engine/golden/%s.json", name);

	assert_ok(engine_plan(l, &plan, &e), &e);
	own_str char *dumped = json_dumps(plan, JSON_INDENT(2) | JSON_SORT_KEYS);
	own_str char *text = mem_printf("%s\n", dumped);
	json_decref(plan);
	assert_golden(text, file);
}

static void test_program(void **state)
{
	struct request_case c;

	(void)state;
	set_up(&c);
	texts_add(&c.run.entrypoint, "/usr/sbin/nginx");
	texts_add(&c.run.command, "-g");
	texts_add(&c.run.environment, "PATH=/opt/bin:/usr/bin");
	texts_add(&c.run.environment, "MODE=image");
	pairs_set(&c.spec.environment, "MODE", "spec");
	c.run.user = (char *)(uintptr_t)"www-data";
	c.run.stop_signal = (char *)(uintptr_t)"SIGQUIT";
	c.spec.interactive = true;
	c.launch.volumes = volumes;
	c.launch.volume_count = 2;
	compare(&c.launch, "program");
	tear_down(&c);
}

static void test_system(void **state)
{
	struct request_case c;

	(void)state;
	set_up(&c);
	c.image.init = true;
	c.resources.memory_bytes = 512 << 20;
	c.spec.resources = &c.resources;
	c.launch.paused = true;
	compare(&c.launch, "system");
	c.spec.travels = true;
	compare(&c.launch, "system-that-travels");
	tear_down(&c);
}

static void test_host_network(void **state)
{
	struct request_case c;

	(void)state;
	set_up(&c);
	texts_add(&c.spec.command, "true");
	c.spec.network = NETWORK_HOST;
	c.spec.terminal = true;
	c.launch.throw_away = c.launch.held = true;
	compare(&c.launch, "host-network");
	tear_down(&c);
}

static void test_machine(void **state)
{
	struct request_case c;
	json_t *plan = NULL;

	(void)state;
	set_up(&c);
	c.launch.machine = true;
	c.launch.first_id = 0;
	c.image.init = true;
	compare(&c.launch, "machine-system");
	texts_add(&c.spec.command, "true");
	c.spec.terminal = true;
	c.launch.volumes = volumes;
	c.launch.volume_count = 2;
	compare(&c.launch, "machine-program");
	c.spec.network = NETWORK_HOST;
	assert_fails(engine_plan(&c.launch, &plan, &e), &e, ERR_INVALID, "host's network");
	tear_down(&c);
}

static void test_maintenance(void **state)
{
	struct request_case c;

	(void)state;
	set_up(&c);
	c.image.init = true;
	c.launch.maintenance = true;
	compare(&c.launch, "maintenance");
	tear_down(&c);
}

static void test_refusals(void **state)
{
	struct request_case c;
	json_t *plan = NULL;

	(void)state;
	set_up(&c);
	assert_fails(engine_plan(&c.launch, &plan, &e), &e, ERR_INVALID, "no command");
	assert_true(strstr(e.hint, "carrel run") != NULL);
	texts_add(&c.spec.command, "true");
	c.launch.first_id = 1000;
	assert_fails(engine_plan(&c.launch, &plan, &e), &e, ERR_INVALID, "id range");
	c.launch.first_id = UINT32_MAX - 100;
	assert_fails(engine_plan(&c.launch, &plan, &e), &e, ERR_INVALID, "id range");
	c.launch.first_id = 65536;
	c.launch.id = "../x";
	assert_fails(engine_plan(&c.launch, &plan, &e), &e, ERR_INVALID, "not a workspace id");
	c.launch.id = "0123456789abcdef";
	c.launch.partition_count = 0;
	assert_fails(engine_plan(&c.launch, &plan, &e), &e, ERR_INVALID, "no partition");
	c.launch.partition_count = 2;
	c.spec.engine = ENGINE_KVM;
	assert_fails(engine_plan(&c.launch, &plan, &e), &e, ERR_UNSUPPORTED, "virtual machines"); /* of a host without */
	c.spec.engine = ENGINE_XEN;
	assert_fails(engine_plan(&c.launch, &plan, &e), &e, ERR_UNSUPPORTED, "xen");
	tear_down(&c);
}

/* What was encoded comes back; what is cut anywhere is refused. */
static void test_format(void **state)
{
	struct request_case c;
	struct plan p;
	own_strbuf struct str bytes = { 0 }, again = { 0 };

	(void)state;
	set_up(&c);
	texts_add(&c.spec.command, "true");
	assert_ok(engine_workspace.plan(&c.launch, &bytes, &e), &e);
	assert_ok(plan_decode(bytes.bytes, bytes.length, &p, &e), &e);
	assert_string_equal(p.argv[0], "true");
	assert_string_equal(p.host_name, "web");
	plan_encode(&p, &again);
	assert_int_equal(bytes.length, again.length);
	assert_memory_equal(bytes.bytes, again.bytes, bytes.length);
	plan_release(&p);
	for (size_t cut = 0; cut < bytes.length; cut += 7)
		assert_true(plan_decode(bytes.bytes, cut, &p, &e) < 0);
	tear_down(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_program), cmocka_unit_test(test_system),      cmocka_unit_test(test_host_network),
		cmocka_unit_test(test_machine), cmocka_unit_test(test_maintenance), cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_format),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
