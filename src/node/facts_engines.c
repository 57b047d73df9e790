/* SPDX-License-Identifier: Apache-2.0 */
/* Which engines this host has, and for which processors; why not, where not. */
#include "node/facts_engines.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/own.h"
#include "model/memory.h"
#include "node/checkpoint.h"
#include "node/emulator.h"
#include "node/foreign.h"
#include "node/kvm.h"
#include "node/machine.h"
#include "node/processor.h"

static void add(json_t *items, const char *name, int result, const char *detail, const struct err *e)
{
	bool ok = result >= 0;

	(void)json_array_append_new(items, json_pack("{s:s, s:b, s:s, s:s, s:s}", "name", name, "ok", ok, "need", "optional",
						     "detail", ok ? detail : e->message, "hint", ok ? "" : e->hint));
}

static void add_foreign(json_t *items, const struct machine_board *board)
{
	own_str char *emulator = mem_printf("engine-emulator-%s", board->architecture);
	own_str char *programs = mem_printf("engine-workspace-%s", board->architecture);
	struct err e = { 0 };

	add(items, emulator, machines_check(board, &e), board->program, &e);
	e = (struct err){ 0 };
	add(items, programs, foreign_check(board, &e), board->user_program, &e);
}

static void add_suspend(json_t *items)
{
	char version[CHECKPOINT_VERSION_SIZE] = "";
	struct err e = { 0 };
	int r = checkpoint_probe(version, &e);
	own_str char *detail = mem_printf("CRIU %s writes processes and makes them again", version);

	add(items, "suspend-workspace", r, detail, &e);
}

/* What machines are given here by themselves. */
static void add_processor(json_t *items, const struct machine_board *here, bool kvm)
{
	struct processor p = { 0 };
	struct err e = { 0 };
	int r = processor_choose(here->architecture, NULL, kvm, processor_here(), 1, &p, &e);
	own_str char *detail = mem_printf("%s%s%s",
					  p.level ? p.level :
					  p.model ? p.model :
						    "",
					  p.level ? ": " : "", p.level ? p.model : "");

	add(items, kvm ? "processor-kvm" : "processor-emulator", r, detail, &e);
	processor_done(&p);
}

static void add_program(struct memory_facts *f, const char *name, const char *version, const char *const *machines)
{
	struct memory_program *programs = mem_grow_array(f->programs.items, f->programs.count + 1, sizeof *programs);
	struct memory_program *p = &programs[f->programs.count];

	*p = (struct memory_program){ .name = mem_strdup(name), .version = mem_strdup(version) };
	for (; machines && *machines; machines++)
		if (strchr(*machines, '-')) /* with a version */
			texts_add(&p->machines, *machines);
	f->programs = (struct objects){ programs, f->programs.count + 1 };
}

json_t *facts_resume(void)
{
	const struct machine_board *here = machine_board_here();
	char version[CHECKPOINT_VERSION_SIZE];
	struct memory_facts f = { .architecture = mem_strdup(here ? here->architecture : "unknown") };

	for (const char *const *feature = processor_here()->features; feature && *feature; feature++)
		texts_add(&f.features, *feature);
	for (const struct machine_board *b = machine_boards; b->architecture; b++) {
		own_emulator const struct emulator *q = NULL;
		if (emulator_get(b->program, &q, NULL) == 0)
			add_program(&f, strrchr(b->program, '/') + 1, q->version, q->machines);
	}
	if (checkpoint_probe(version, NULL) >= 0)
		add_program(&f, "criu", version, NULL);
	json_t *json = encode(&memory_facts_shape, &f);
	shape_done(&memory_facts_shape, &f);
	return json;
}

void facts_add_engines(json_t *items, const struct node *n)
{
	const struct machine_board *here = machine_board_here();
	struct err e = { 0 };

	if (here) {
		int r = machines_check(here, &e);
		add(items, "engine-emulator", r, here->program, &e);
		if (r >= 0) {
			add_processor(items, here, false);
			r = kvm_check(n, &e);
		}
		add(items, "engine-kvm", r, "executes guest kernels", &e);
		if (r >= 0)
			add_processor(items, here, true);
	}
	for (const struct machine_board *b = machine_boards; b->architecture; b++)
		if (b != here)
			add_foreign(items, b);
	add_suspend(items);
}
