/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Machines as an engine: the request becomes the plan that carrel-init carries out inside (the same that namespaces get, in its
 * form for machines), QEMU's command line, and what the runner needs of both. Disks go by serial: p0, p1, ... are the image's
 * partitions, lowest first, `root` is the root volume, v0, v1, ... are the others, `kernel` is the kernel's partition, and
 * those of a workspace that travels are in model/travel.h.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/own.h"
#include "engine/engine.h"
#include "engine/qemu/arguments.h"
#include "engine/qemu/disk_engine.h"
#include "engine/qemu/machine_plan.h"
#include "engine/qemu/size.h"
#include "engine/qemu/template.h"
#include "engine/workspace/describe.h"
#include "engine/workspace/request.h"
#include "model/travel.h"

#define SERIAL_SIZE (GUEST_SERIAL_LONGEST + 1)
#define KERNEL_SERIAL "kernel"

struct disks {
	struct machine_disk *items;
	char **partitions; /* serials */
	char **places; /* where carrel-inner mounts them; NULL: nobody travels */
	struct guest_volume *volumes;
	size_t count, partition_count, volume_count;
};

static void disks_done(struct disks *d)
{
	free(d->items);
	for (size_t i = 0; d->places && i < d->partition_count; i++)
		free(d->places[i]);
	free(d->places);
	free(d->partitions);
	free(d->volumes);
}
#define own_disks __attribute__((cleanup(disks_done)))

static char *add_disk(struct disks *d, const char *prefix, size_t number, bool writable)
{
	struct machine_disk *disk = &d->items[d->count++];

	if (writable && !*prefix)
		(void)snprintf(disk->serial, sizeof disk->serial, "root");
	else
		(void)snprintf(disk->serial, sizeof disk->serial, "%s%zu", prefix, number);
	disk->writable = writable;
	return disk->serial;
}

static void add_named(struct disks *d, const char *serial, bool writable)
{
	struct machine_disk *disk = &d->items[d->count++];

	(void)snprintf(disk->serial, sizeof disk->serial, "%s", serial);
	disk->writable = writable;
}

static void list_travel(struct disks *d)
{
	add_named(d, TRAVEL_TOOLS, false);
	add_named(d, TRAVEL_LUGGAGE, true);
	add_named(d, TRAVEL_IMAGES, false);
	d->places = mem_alloc_array(d->partition_count + 1, sizeof *d->places);
	for (size_t i = 0; i < d->partition_count; i++)
		d->places[i] = mem_printf(TRAVEL_SCRATCH "/%s", d->partitions[i]);
}

static void list_disks(const struct launch *l, struct disks *d)
{
	d->items = mem_alloc_array(l->partition_count + l->volume_count + 5, sizeof *d->items);
	d->partitions = mem_alloc_array(l->partition_count + 1, sizeof *d->partitions);
	d->volumes = mem_alloc_array(l->volume_count + 1, sizeof *d->volumes);
	d->partition_count = l->partition_count;
	d->volume_count = l->volume_count;
	for (size_t i = 0; i < l->partition_count; i++)
		d->partitions[i] = add_disk(d, "p", i, false);
	(void)add_disk(d, "", 0, true);
	for (size_t i = 0; i < l->volume_count; i++)
		d->volumes[i] = (struct guest_volume){ (char *)(uintptr_t)l->volumes[i].name, add_disk(d, "v", i, true) };
	(void)snprintf(d->items[d->count++].serial, SERIAL_SIZE, KERNEL_SERIAL);
	if (l->travel)
		list_travel(d);
}

static void put_travel(const struct launch_travel *t, struct guest_config *c)
{
	static char luggage[] = TRAVEL_LUGGAGE, images[] = TRAVEL_IMAGES;

	c->luggage = luggage;
	if (t->arrives)
		c->images = images;
	while (t->features && t->features[c->features.count])
		c->features.count++;
	c->features.items = (char **)(uintptr_t)t->features;
}

/* Ports and bridges are the host's: inside there are interfaces. */
static void put_config(const struct launch *l, const struct plan *inside, const struct disks *d, struct str *out)
{
	static char root[] = "root", kernel[] = KERNEL_SERIAL;
	own_strbuf struct str bytes = { 0 };
	struct plan plan = *inside;
	struct guest_config c = { .partitions = { d->partitions, d->partition_count }, .root = root, .kernel = kernel,
				  .volumes = { d->volumes, d->volume_count } };

	machine_links_inside(inside->interfaces, &c.interfaces);
	if (l->travel)
		put_travel(l->travel, &c);
	else
		plan.interfaces = NULL; /* what travels is asked for interfaces that are not of this list */
	plan_encode(&plan, &bytes);
	c.plan = (struct guest_bytes){ bytes.bytes, bytes.length };
	guest_encode(&guest_config_shape, &c, out);
	machine_links_inside_done(&c.interfaces);
}

/* Of a clone: seed and clock are the runner's. */
static void put_identity(const struct launch *l, const struct plan *whole, struct str *out)
{
	own_str char *machine_id = request_machine_id(l->id);
	struct guest_identity i = { .host_name = (char *)(uintptr_t)whole->host_name, .machine_id = machine_id,
				    .clone = l->memory ? l->memory->clone : 0 };

	if (!i.clone)
		return;
	machine_links_inside(whole->interfaces, &i.interfaces);
	guest_encode(&guest_identity_shape, &i, out);
	machine_links_inside_done(&i.interfaces);
}

static struct machine_queues queues_of(const struct launch *l)
{
	return machine_queues(l->host_machine->vhost, machine_size(l).processors);
}

static int list_links(const struct plan *whole, struct machine_link *links, size_t *ret_count, struct err *e)
{
	size_t count = machine_link_count(whole->interfaces);
	int r = 0;

	for (size_t i = 0; r >= 0 && i < count; i++)
		r = machine_link_read(whole->interfaces + i * INTERFACE_TEXTS, &links[i], e);
	*ret_count = count;
	return r;
}

static int make_arguments(const struct launch *l, const struct disks *d, const struct plan *whole, char ***ret_argv,
			  struct err *e)
{
	const struct launch_machine *host = l->host_machine;
	struct launch_size size = machine_size(l);
	struct machine_link links[INTERFACES_MOST];
	size_t link_count;
	int r = list_links(whole, links, &link_count, e);

	if (r < 0)
		return r;
	const struct qemu_machine m = { .board = host->board, .type = host->type, .cpu = host->processor, .id = l->id,
					.kvm = host->kvm, .system = (whole->flags & PLAN_SYSTEM) != 0,
					.processors = size.processors, .memory_bytes = size.memory_bytes, .disks = d->items,
					.disk_count = d->count, .links = links, .link_count = link_count,
					.queues = queues_of(l), .memory_file = l->memory != NULL,
					.incoming = l->memory && l->memory->state_fd >= 0 };

	return machine_arguments(&m, ret_argv, e);
}

/* The plan inside names no path of the host's. */
static struct launch launch_inside(const struct launch *l, const struct disks *d)
{
	struct launch inside = *l;

	inside.machine = !l->travel;
	inside.inner = l->travel;
	inside.partitions = (const char *const *)(l->travel ? d->places : d->partitions);
	inside.run_dir = inside.log_path = NULL;
	inside.cgroups = (struct launch_cgroups){ 0 };
	if (l->travel && l->cgroups.v2)
		inside.cgroups = (struct launch_cgroups){ .v2 = TRAVEL_CGROUP, .freeze_path = TRAVEL_CGROUP "/cgroup.freeze",
							  .freeze_text = "1", .thaw_text = "0" };
	return inside;
}

static int put_plan(const struct launch *l, const struct disks *d, const struct plan *inside, const struct plan *whole,
		    struct str *out, struct err *e)
{
	own_strbuf struct str config = { 0 }, host = { 0 }, identity = { 0 };
	const struct launch_machine *of = l->host_machine;
	const char *shim = l->memory && l->memory->private_shim ? l->memory->private_shim : "";
	char **argv = NULL;
	size_t words = 0, places = 0;
	int r = make_arguments(l, d, whole, &argv, e);

	if (r < 0)
		return r;
	put_config(l, inside, d, &config);
	put_identity(l, whole, &identity);
	struct plan outside = *whole;
	if (!l->travel)
		outside.flags &= ~(uint64_t)PLAN_TRAVELS;
	plan_encode_outside(&outside, &host);
	while (argv[words])
		words++;
	while (of->board->places[places])
		places++;
	const struct machine_plan p = { .host = { host.bytes, host.length }, .config = { config.bytes, config.length },
					.identity = { identity.bytes, identity.length },
					.argv = { argv, words }, .places = { (char **)(uintptr_t)of->board->places, places },
					.kernel = (char *)(uintptr_t)of->kernel, .initramfs = (char *)(uintptr_t)of->initramfs,
					.disks = d->count, .travels = l->travel != NULL,
					.arrives = l->travel && l->travel->arrives,
					.memory = (char *)(uintptr_t)(l->memory ? l->memory->path : ""),
					.private_memory = l->memory && l->memory->private_shim,
					.private_shim = (char *)(uintptr_t)shim,
					.template = l->memory && l->memory->template ? TEMPLATE_USED : TEMPLATE_NONE,
					.resumes = l->memory && l->memory->state_fd >= 0 && !l->memory->template,
					.waits = l->memory && l->memory->whole_fd,
					.queues = queues_of(l).count, .vhost = of->vhost,
					.fixed_links = !str_eq(of->board->architecture, "amd64"),
					.id = l->first_id + LAUNCH_IDS - 1, .kvm = of->kvm, .boot_ms = of->boot_ms,
					.processors = (char *)(uintptr_t)l->cgroups.processors };
	machine_plan_encode(&p, out);
	machine_arguments_free(argv);
	return 0;
}

static int check_host(const struct launch *l, struct err *e)
{
	if (l->host_machine)
		return 0;
	(void)err_set(e, ERR_UNSUPPORTED, "this host runs no virtual machines");
	return err_hint(e, "carrel doctor says what is missing");
}

static int machine_plan_bytes(const struct launch *l, struct str *ret_plan, struct err *e)
{
	own_disks struct disks d = { 0 };
	struct request inside, whole;
	int r = check_host(l, e);

	if (r < 0)
		return r;
	if (l->makes_template)
		return template_plan(l, ret_plan, e);
	if (l->image->machine)
		return disk_engine_plan(l, ret_plan, e);
	list_disks(l, &d);
	struct launch l_inside = launch_inside(l, &d), l_whole = *l;
	l_whole.machine = true;
	if ((r = request_plan(&l_inside, &inside, e)) < 0)
		return r;
	if ((r = request_plan(&l_whole, &whole, e)) >= 0) {
		r = put_plan(l, &d, &inside.plan, &whole.plan, ret_plan, e);
		request_done(&whole);
	}
	request_done(&inside);
	return r;
}

static int machine_check(const struct launch *l, struct err *e)
{
	own_strbuf struct str plan = { 0 };

	return machine_plan_bytes(l, &plan, e);
}

static json_t *words_of(char **argv)
{
	json_t *list = json_array();

	for (size_t i = 0; argv[i]; i++)
		(void)json_array_append_new(list, json_string(argv[i]));
	return list;
}

static int machine_describe(const struct launch *l, json_t **ret_plan, struct err *e)
{
	own_disks struct disks d = { 0 };
	struct request inside;
	char **argv = NULL;
	int r = check_host(l, e);

	if (r < 0)
		return r;
	if (l->image->machine)
		return disk_engine_describe(l, ret_plan, e);
	list_disks(l, &d);
	struct launch l_inside = launch_inside(l, &d);
	if ((r = request_plan(&l_inside, &inside, e)) < 0)
		return r;
	if ((r = make_arguments(l, &d, &inside.plan, &argv, e)) >= 0) {
		json_t *plan = describe_plan(&inside.plan);
		(void)json_object_set_new(plan, "engine", json_string(l->host_machine->kvm ? "kvm" : "emulator"));
		(void)json_object_set_new(plan, "qemu", words_of(argv));
		machine_arguments_free(argv);
		*ret_plan = plan;
	}
	request_done(&inside);
	return r;
}

static int machine_layout_of(const struct launch *l, char out[DIGEST_TEXT_SIZE], struct err *e)
{
	own_disks struct disks d = { 0 };
	struct request whole;
	char **argv = NULL;
	struct launch of = *l;
	int r = check_host(l, e);

	if (r < 0)
		return r;
	if (l->image->machine)
		return disk_engine_layout(l, out, e);
	list_disks(l, &d);
	of.machine = true;
	if ((r = request_plan(&of, &whole, e)) < 0)
		return r;
	if ((r = make_arguments(l, &d, &whole.plan, &argv, e)) >= 0)
		machine_layout(argv, out);
	machine_arguments_free(argv);
	request_done(&whole);
	return r;
}

const struct engine engine_emulator = {
	.name = "emulator",
	.check = machine_check,
	.plan = machine_plan_bytes,
	.describe = machine_describe,
	.layout = machine_layout_of,
	.machine = true,
};

const struct engine engine_kvm = {
	.name = "kvm",
	.check = machine_check,
	.plan = machine_plan_bytes,
	.describe = machine_describe,
	.layout = machine_layout_of,
	.machine = true,
};
