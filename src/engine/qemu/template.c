/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/qemu/template.h"

#include <string.h>

#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "engine/qemu/arguments.h"
#include "engine/qemu/machine_plan.h"
#include "engine/qemu/size.h"
#include "engine/workspace/request.h"

static int template_arguments(const struct launch *l, char ***ret_argv, struct err *e)
{
	const struct launch_machine *host = l->host_machine;
	struct launch_size size = machine_size(l);
	const struct qemu_machine m = { .board = host->board, .type = host->type, .cpu = host->processor, .id = "template",
					.kvm = host->kvm, .system = request_is_system(l),
					.processors = size.processors, .memory_bytes = size.memory_bytes,
					.memory_file = true };

	return machine_arguments(&m, ret_argv, e);
}

/* Other boards have not been tried: where firmware leaves windows for devices that come later is their own affair. */
bool template_fits(const struct launch *l)
{
	return l->host_machine && !l->image->machine && !l->maintenance && !l->paused && l->host_machine->kernel &&
	       str_eq(l->host_machine->board->architecture, "amd64");
}

static void add_text(struct hash *h, const char *text) { hash_add(h, text, strlen(text) + 1); }

static const char *name_of(const char *path)
{
	const char *slash = strrchr(path, '/');
	return slash ? slash + 1 : path;
}

int template_words(const struct launch *l, char out[DIGEST_TEXT_SIZE], struct err *e)
{
	own_hash struct hash *h = hash_new();
	char **argv = NULL;
	int r = template_arguments(l, &argv, e);

	if (r < 0)
		return r;
	for (size_t i = 0; argv[i]; i++)
		add_text(h, argv[i]);
	add_text(h, name_of(l->host_machine->kernel)); /* both are named by digests */
	add_text(h, name_of(l->host_machine->initramfs));
	machine_arguments_free(argv);
	struct digest d = hash_end(h);
	(void)digest_text(&d, out);
	return 0;
}

/* As of a full system: nothing inside is a session of the runner's. */
static int plan_outside(const struct launch *l, struct request *ret_request, struct err *e)
{
	static const char *const nothing[] = { "" }; /* a plan has partitions; plan_encode_outside leaves them out */
	struct launch outside = *l;
	struct image image = *l->image;
	struct spec spec = *l->spec;

	image.init = true;
	spec.mode = MODE_SYSTEM;
	outside.image = &image;
	outside.spec = &spec;
	outside.partitions = nothing;
	outside.partition_count = 1;
	outside.machine = true;
	return request_plan(&outside, ret_request, e);
}

int template_plan(const struct launch *l, struct str *ret_plan, struct err *e)
{
	static char nothing[] = "";
	const struct launch_machine *of = l->host_machine;
	own_strbuf struct str host = { 0 };
	struct request request;
	size_t words = 0, places = 0;
	char **argv = NULL;
	int r = template_arguments(l, &argv, e);

	if (r < 0 || (r = plan_outside(l, &request, e)) < 0) {
		machine_arguments_free(argv);
		return r;
	}
	plan_encode_outside(&request.plan, &host);
	while (argv[words])
		words++;
	while (of->board->places[places])
		places++;
	const struct machine_plan p = { .host = { host.bytes, host.length }, .argv = { argv, words },
					.places = { (char **)(uintptr_t)of->board->places, places },
					.kernel = (char *)(uintptr_t)of->kernel, .initramfs = (char *)(uintptr_t)of->initramfs,
					.memory = (char *)(uintptr_t)l->memory->path, .private_shim = nothing,
					.template = TEMPLATE_MADE, .queues = 1, .id = l->first_id + LAUNCH_IDS - 1,
					.kvm = of->kvm, .boot_ms = of->boot_ms };
	machine_plan_encode(&p, ret_plan);
	machine_arguments_free(argv);
	request_done(&request);
	return 0;
}
