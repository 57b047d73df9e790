/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. The board has its version in the name (q35, virt of aarch64), because its devices shall look the same to a memory
 * image that is resumed with a later QEMU. Nothing is there by default (-nodefaults): each word below is a decision.
 *
 * Memory is a memory file that is shared, so that a suspend need not copy it. Disks are descriptors of a set (-add-fd): QEMU's
 * block layer opens them again by "/dev/fdset/N" with the same access and no more. Locks are the agent's.
 */
#include "engine/qemu/arguments.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "base/str.h"
#include "engine/qemu/arguments_private.h"

/* A login on the console without waiting for udev to show its device, which images without udev never do. */
#define SYSTEM_WORDS " systemd.getty_auto=no systemd.wants=console-getty.service"

#define DEFAULT_MEMORY (UINT64_C(512) << 20)

void machine_word(struct machine_words *w, const char *fmt, ...)
{
	struct str text = { 0 };
	va_list args;

	va_start(args, fmt);
	str_vprintf(&text, fmt, args);
	va_end(args);
	MEM_PUSH_ROOM(w->items, w->count, w->room);
	w->items[w->count++] = str_take(&text);
}

unsigned machine_processors(uint64_t cpu_milli, unsigned host_processors)
{
	unsigned most = host_processors < MACHINE_PROCESSORS_MOST ? host_processors : MACHINE_PROCESSORS_MOST;
	uint64_t wanted = cpu_milli ? (cpu_milli + 999) / 1000 : 1;

	if (most == 0)
		most = 1;
	return wanted > most ? most : (unsigned)wanted;
}

uint64_t machine_memory(uint64_t memory_bytes)
{
	uint64_t bytes = memory_bytes ? memory_bytes >> 20 << 20 : DEFAULT_MEMORY;

	return bytes < MACHINE_MEMORY_LEAST ? MACHINE_MEMORY_LEAST : bytes;
}

static void add_board(struct machine_words *w, const struct qemu_machine *m)
{
	machine_word(w, "%s", m->board->program);
	machine_word(w, "-name");
	machine_word(w, "carrel-%s,debug-threads=on", m->id);
	machine_word(w, "-nodefaults");
	machine_word(w, "-no-user-config");
	machine_word(w, "-no-reboot"); /* a machine that starts again is a new run: the agent's to decide */
	machine_word(w, "-S");
	machine_word(w, "-sandbox");
	machine_word(w, "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
	machine_word(w, "-machine");
	machine_word(w, "%s,memory-backend=memory,%s", m->type, m->board->options);
	machine_word(w, "-accel");
	if (m->kvm)
		machine_word(w, "kvm");
	else
		machine_word(w, "tcg,thread=multi,tb-size=%u", TRANSLATED_MIB);
	machine_word(w, "-cpu");
	machine_word(w, "%s", m->cpu);
	machine_word(w, "-smp");
	machine_word(w, "%u", m->processors);
	machine_word(w, "-m");
	machine_word(w, "%" PRIu64 "M", m->memory_bytes >> 20);
	machine_word(w, "-object");
	if (m->memory_file)
		machine_word(w, "memory-backend-file,id=memory,size=%" PRIu64 "M,mem-path=" MACHINE_MEMORY ",share=on",
			     m->memory_bytes >> 20);
	else
		machine_word(w, "memory-backend-memfd,id=memory,size=%" PRIu64 "M,share=on", m->memory_bytes >> 20);
	if (m->incoming) {
		machine_word(w, "-incoming");
		machine_word(w, "defer");
	}
	machine_word(w, "-rtc");
	machine_word(w, "base=utc,clock=host");
}

static void add_kernel(struct machine_words *w, const struct qemu_machine *m)
{
	machine_word(w, "-kernel");
	machine_word(w, MACHINE_KERNEL);
	machine_word(w, "-initrd");
	machine_word(w, MACHINE_INITRAMFS);
	machine_word(w, "-append");
	machine_word(w, "console=%s quiet panic=-1%s%s", m->board->console, m->board->words ? m->board->words : "",
		     m->system ? SYSTEM_WORDS : "");
}

static int check(const struct qemu_machine *m, struct err *e)
{
	if (m->disk_count > MACHINE_DISKS_MOST)
		return err_set(e, ERR_UNSUPPORTED, "%zu partitions and volumes, a machine takes at most %d", m->disk_count,
			       MACHINE_DISKS_MOST);
	if (m->link_count > MACHINE_LINKS_MOST)
		return err_set(e, ERR_UNSUPPORTED, "%zu networks, a machine takes at most %d", m->link_count,
			       MACHINE_LINKS_MOST);
	for (size_t i = 0; i < m->link_count; i++)
		if (m->links[i].place >= MACHINE_LINKS_MOST)
			return err_set(e, ERR_UNSUPPORTED, "an interface with number %u, the highest of a machine is %d",
				       m->links[i].place, MACHINE_LINKS_MOST - 1);
	return 0;
}

int machine_arguments(const struct qemu_machine *m, char ***ret_argv, struct err *e)
{
	struct machine_words w = { 0 };
	int r = check(m, e);

	if (r < 0)
		return r;
	add_board(&w, m);
	add_kernel(&w, m);
	machine_add_devices(&w, m);
	MEM_PUSH_ROOM(w.items, w.count, w.room);
	w.items[w.count] = NULL;
	*ret_argv = w.items;
	return 0;
}

static bool is_of_host(const char *option)
{
	static const char *const options[] = { "-name", "-object", "-netdev", "-add-fd", "-blockdev", "-chardev", "-vnc" };

	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		if (str_eq(options[i], option))
			return true;
	return false;
}

/*
 * Without what a state fits to anyway: a hardware address, for a clone gets another, and what only a booting kernel reads and
 * was not told when the first states were written.
 */
static void add_word(struct hash *h, const char *word)
{
	const char *other = strstr(word, ",mac=");

	if (!other)
		other = strstr(word, " no_timer_check");
	if (other) {
		hash_add(h, word, (size_t)(other - word));
		word = other + 1 + strcspn(other + 1, ", ");
	}
	hash_add(h, word, strlen(word) + 1);
}

void machine_layout(char *const *argv, char out[DIGEST_TEXT_SIZE])
{
	own_hash struct hash *h = hash_new();

	for (size_t i = 1; argv[i]; i++) {
		if (str_eq(argv[i], "-incoming") || is_of_host(argv[i])) {
			if (argv[i + 1])
				i++;
			continue;
		}
		add_word(h, argv[i]);
	}
	struct digest d = hash_end(h);
	(void)digest_text(&d, out);
}

void machine_arguments_free(char **argv)
{
	for (size_t i = 0; argv && argv[i]; i++)
		free(argv[i]);
	free(argv);
}
