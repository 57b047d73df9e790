/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An answer is made once, never changed, and counted: whoever holds one keeps it, and a QEMU that was upgraded gets a new one.
 * `all` has an entry for each path ever asked for, which are those of the configuration. One lock is held while QEMU is asked
 * (it is started twice), so that twenty machines that start at once ask once.
 *
 * "Replaced" is seen by inode, size and time of the file; a program that changes between its two answers is asked again, 16
 * times at most.
 */
#include "node/emulator.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/proc.h"
#include "base/str.h"

#define ANSWER_MOST 65536
#define TRIES 16

/* Never changed once it is made. */
struct answer {
	struct emulator said; /* first: what holders have */
	atomic_uint holders;
	char *version, *list; /* of machines, taken apart */
	const char **machines;
};

struct known {
	char *program;
	struct stat file;
	struct answer *answer;
	struct known *next;
};

static struct known *all;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void let_go(struct answer *a)
{
	if (!a || atomic_fetch_sub(&a->holders, 1) > 1)
		return;
	free(a->version);
	free(a->list);
	free(a->machines);
	free(a);
}

void emulator_unref(const struct emulator *m) { let_go((struct answer *)(uintptr_t)m); }

/* "QEMU emulator version 7.2.22 (Debian ...)" */
static char *version_of(const char *text)
{
	const char *at = strstr(text, "version ");

	if (!at)
		return NULL;
	at += strlen("version ");
	return mem_strndup(at, strcspn(at, " ,\n"));
}

static const char **list_machines(char *list)
{
	const char **machines = mem_alloc_array(strlen(list) / 2 + 2, sizeof *machines);
	size_t count = 0;

	for (char *save = NULL, *line = strtok_r(list, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		line[strcspn(line, " ")] = '\0';
		machines[count++] = line;
	}
	machines[count] = NULL;
	return machines;
}

static int ask(const char *program, struct answer **ret_answer, struct err *e)
{
	const char *const version[] = { program, "--version", NULL }, *const machines[] = { program, "-machine", "help", NULL };
	own_strbuf struct str text = { 0 }, list = { 0 };
	int r = proc_run(version, ANSWER_MOST, &text, e);

	if (r == 0)
		r = proc_run(machines, ANSWER_MOST, &list, e);
	if (r < 0)
		return r;
	own_str char *told = version_of(str_text(&text));
	if (!told)
		return err_set(e, ERR_UNSUPPORTED, "%s does not tell its version", program);
	struct answer *a = mem_alloc(sizeof *a);
	a->version = TAKE(told);
	a->list = str_take(&list);
	a->machines = list_machines(a->list);
	a->said = (struct emulator){ a->version, a->machines };
	atomic_init(&a->holders, 1);
	*ret_answer = a;
	return 0;
}

static struct known *find(const char *program)
{
	struct known *k = all;

	while (k && !str_eq(k->program, program))
		k = k->next;
	if (k)
		return k;
	k = mem_alloc(sizeof *k);
	*k = (struct known){ .program = mem_strdup(program), .next = all };
	all = k;
	return k;
}

/* It is asked twice, and both shall be the same program's answers: not replaced in between. */
static int ask_one_file(const char *program, struct stat *file, struct answer **ret_answer, struct err *e)
{
	struct stat after;

	for (unsigned i = 0; i < TRIES; i++) {
		struct answer *a = NULL;
		int r = ask(program, &a, e);
		if (r == 0 && stat(program, &after) < 0)
			r = err_errno(e, errno, "%s", program);
		if (r == 0 && fs_same_file(file, &after)) {
			*ret_answer = a;
			return 0;
		}
		let_go(a);
		if (r < 0)
			return r;
		*file = after;
	}
	return err_set(e, ERR_UNAVAILABLE, "%s is being replaced", program);
}

static int look(struct known *k, struct err *e)
{
	struct answer *newer = NULL;
	struct stat st;

	if (stat(k->program, &st) < 0)
		return err_errno(e, errno, "%s", k->program);
	if (k->answer && fs_same_file(&st, &k->file))
		return 0;
	int r = ask_one_file(k->program, &st, &newer, e);
	if (r < 0)
		return r;
	let_go(k->answer);
	k->answer = newer;
	k->file = st;
	return 0;
}

int emulator_get(const char *program, const struct emulator **ret_emulator, struct err *e)
{
	(void)pthread_mutex_lock(&lock);
	struct known *k = find(program);
	int r = look(k, e);
	if (r == 0) {
		atomic_fetch_add(&k->answer->holders, 1);
		*ret_emulator = &k->answer->said;
	}
	(void)pthread_mutex_unlock(&lock);
	return r;
}
