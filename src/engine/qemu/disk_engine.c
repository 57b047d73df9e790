/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A launch of an image that is a disk, as a plan for the runner: QEMU's command line and what stays outside. Nothing is carried
 * out inside, so what a spec says about that - a command, a user, environment - is refused and not passed over.
 */
#include "engine/qemu/disk_engine.h"

#include <stdlib.h>

#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "engine/qemu/disk_machine.h"
#include "engine/qemu/machine_plan.h"
#include "engine/qemu/size.h"
#include "engine/workspace/request.h"

#define BOOT_MS 60000

static int refuse(const char *what, struct err *e)
{
	(void)err_set(e, ERR_INVALID, "the image is a disk, which boots as it is: %s", what);
	return err_hint(e, "what its machine does when it starts is said by user-data");
}

static int check_spec(const struct launch *l, struct err *e)
{
	const struct spec *s = l->spec;

	if (!str_eq(l->host_machine->board->architecture, "amd64"))
		return err_set(e, ERR_UNSUPPORTED, "disks for the processor %s cannot be booted yet",
			       l->host_machine->board->architecture);
	if (s->command.count || s->environment.count || s->user || s->directory)
		return refuse("it takes no command, environment, user or directory", e);
	if (s->mode == MODE_PROGRAM || s->terminal || s->interactive)
		return refuse("it is no program", e);
	for (size_t i = 0; i < l->volume_count; i++)
		if (str_starts(l->volumes[i].name, "disk") || str_eq(l->volumes[i].name, "nvram"))
			return refuse("names of volumes that begin with 'disk', and 'nvram', are the machine's own", e);
	if (s->network == NETWORK_HOST)
		return refuse("a machine cannot be on the host's network", e);
	return 0;
}

static struct machine_queues queues_of(const struct launch *l, const struct machine_wish *wish, unsigned processors)
{
	if (wish->nic == NIC_E1000)
		return (struct machine_queues){ .count = 1, .e1000 = true };
	return machine_queues(l->host_machine->vhost, processors);
}

/* What the spec does not say the image may. */
static struct disk_machine make_machine(const struct launch *l, const struct machine_link *links, size_t link_count)
{
	static const struct image_machine nothing;
	const struct launch_machine *host = l->host_machine;
	const struct image_machine *image = l->image->machine ? l->image->machine : &nothing;
	struct launch_size size = machine_size(l);
	struct machine_wish wish = machine_choose(l->spec->machine, image);

	return (struct disk_machine){
		.machine = { .board = host->board, .type = host->type, .cpu = host->processor, .id = l->id, .kvm = host->kvm,
			     .processors = size.processors, .memory_bytes = size.memory_bytes, .links = links,
			     .link_count = link_count, .queues = queues_of(l, &wish, size.processors),
			     .memory_file = l->memory != NULL, .incoming = l->memory && l->memory->state_fd >= 0 },
		.wish = wish,
		.disk_count = l->partition_count,
		.volumes = l->volumes,
		.volume_count = l->volume_count,
	};
}

static int list_links(const struct plan *whole, struct machine_link *links, size_t *ret_count, struct err *e)
{
	size_t count = machine_link_count(whole->interfaces);
	int r = 0;

	for (size_t i = 0; r >= 0 && i < count && i < MACHINE_LINKS_MOST; i++)
		r = machine_link_read(whole->interfaces + i * INTERFACE_TEXTS, &links[i], e);
	*ret_count = count;
	return r < 0 ? r :
	       count <= MACHINE_LINKS_MOST ?
		       0 :
		       err_set(e, ERR_UNSUPPORTED, "%zu networks, a machine takes at most %d", count, MACHINE_LINKS_MOST);
}

/* The runner's part of a plan, as of any full system; what would happen inside is left out. */
static int plan_outside(const struct launch *l, struct request *ret_request, struct err *e)
{
	struct launch outside = *l;
	struct image image = *l->image;

	image.init = true;
	outside.image = &image;
	outside.machine = true;
	return request_plan(&outside, ret_request, e);
}

static void put_plan(const struct launch *l, const struct disk_machine *d, const struct plan *whole, char **argv,
		     struct str *out)
{
	static char nothing[] = "";
	own_strbuf struct str host = { 0 };
	const struct launch_machine *of = l->host_machine;
	size_t words = 0, places = 0;

	plan_encode_outside(whole, &host);
	while (argv[words])
		words++;
	while (of->board->places[places])
		places++;
	const struct machine_plan p = { .host = { host.bytes, host.length }, .argv = { argv, words },
					.places = { (char **)(uintptr_t)of->board->places, places }, .kernel = nothing,
					.initramfs = nothing,
					.memory = l->memory ? (char *)(uintptr_t)l->memory->path : nothing,
					.resumes = l->memory && l->memory->state_fd >= 0,
					.waits = l->memory && l->memory->whole_fd, .disks = disk_machine_fds(d),
					.queues = d->machine.queues.count, .vhost = d->machine.queues.vhost,
					.e1000 = d->machine.queues.e1000, .boots_disk = 1,
					.display = d->wish.display != DISPLAY_NONE, .id = l->first_id + LAUNCH_IDS - 1,
					.kvm = of->kvm, .boot_ms = BOOT_MS,
					.processors = (char *)(uintptr_t)l->cgroups.processors };
	machine_plan_encode(&p, out);
}

static int make(const struct launch *l, char ***ret_argv, struct disk_machine *ret_machine, struct request *ret_request,
		struct err *e)
{
	struct machine_link links[MACHINE_LINKS_MOST];
	size_t link_count;
	int r = check_spec(l, e);

	if (r < 0 || (r = plan_outside(l, ret_request, e)) < 0)
		return r;
	r = list_links(&ret_request->plan, links, &link_count, e);
	if (r >= 0) {
		*ret_machine = make_machine(l, links, link_count);
		r = disk_machine_arguments(ret_machine, ret_argv, e);
		ret_machine->machine.links = NULL;
	}
	if (r < 0)
		request_done(ret_request);
	return r;
}

int disk_engine_plan(const struct launch *l, struct str *ret_plan, struct err *e)
{
	struct disk_machine d;
	struct request request;
	char **argv = NULL;
	int r = make(l, &argv, &d, &request, e);

	if (r < 0)
		return r;
	put_plan(l, &d, &request.plan, argv, ret_plan);
	machine_arguments_free(argv);
	request_done(&request);
	return 0;
}

/* Its words alone; free them by machine_arguments_free. */
static int make_words(const struct launch *l, char ***ret_argv, struct disk_machine *ret_machine, struct err *e)
{
	struct request request;
	int r = make(l, ret_argv, ret_machine, &request, e);

	if (r >= 0)
		request_done(&request);
	return r;
}

int disk_engine_layout(const struct launch *l, char out[DIGEST_TEXT_SIZE], struct err *e)
{
	struct disk_machine d;
	char **argv = NULL;
	int r = make_words(l, &argv, &d, e);

	if (r < 0)
		return r;
	machine_layout(argv, out);
	machine_arguments_free(argv);
	return 0;
}

int disk_engine_describe(const struct launch *l, json_t **ret_plan, struct err *e)
{
	struct disk_machine d;
	char **argv = NULL;
	int r = make_words(l, &argv, &d, e);

	if (r < 0)
		return r;
	json_t *words = json_array();
	for (size_t i = 0; argv[i]; i++)
		(void)json_array_append_new(words, json_string(argv[i]));
	*ret_plan = json_pack("{s:s, s:s, s:s, s:s, s:s, s:o}", "engine", l->host_machine->kvm ? "kvm" : "emulator", "mode",
			      "disk", "firmware", machine_firmware_names[d.wish.firmware], "disk-bus",
			      machine_bus_names[d.wish.disk_bus], "nic", machine_nic_names[d.wish.nic], "qemu", words);
	machine_arguments_free(argv);
	return 0;
}
