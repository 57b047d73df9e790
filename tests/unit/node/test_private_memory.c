/* SPDX-License-Identifier: Apache-2.0 */
/* Pages that a process has written over a file that it maps privately, read from outside. The process here is no QEMU, but the
 * kernel's tables are. */
#include "../test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "model/memory_place.h"
#include "node/private_memory.h"

#define PAGES 3000u
#define PAGE 4096u

static struct err e;

struct world {
	char path[64];
	int folder, base, to;
};

static void begin(struct world *w)
{
	static char content[PAGE];

	(void)snprintf(w->path, sizeof w->path, "/tmp/carrel-private-XXXXXX");
	assert_non_null(mkdtemp(w->path));
	assert_ok(fs_open_dir(AT_FDCWD, w->path, &w->folder, &e), &e);
	w->base = openat(w->folder, MEMORY_BASE, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	w->to = openat(w->folder, "to", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(ftruncate(w->base, PAGES * PAGE), 0);
	for (unsigned i = 0; i < PAGES; i += 3) { /* the rest are holes */
		memset(content, (int)(i % 251) + 1, sizeof content);
		assert_int_equal(pwrite(w->base, content, PAGE, (off_t)i * PAGE), PAGE);
		assert_int_equal(pwrite(w->to, content, PAGE, (off_t)i * PAGE), PAGE);
	}
	assert_int_equal(ftruncate(w->to, PAGES * PAGE), 0);
}

static void end(struct world *w)
{
	(void)close(w->folder);
	(void)close(w->base);
	(void)close(w->to);
	assert_ok(fs_remove_tree(AT_FDCWD, w->path, &e), &e);
}

/* Writes some pages, reads others, and says so; again for each byte that it gets. */
static pid_t start_writer(int base, const int ask[2], const int done[2])
{
	pid_t pid = fork();

	if (pid != 0)
		return pid;
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	char *memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, base, 0), byte;
	for (unsigned round = 1; memory != MAP_FAILED && read(ask[0], &byte, 1) == 1; round++) {
		for (unsigned i = 0; i < PAGES; i += 7)
			memset(memory + (size_t)i * PAGE, (int)(round * 100), PAGE / 2);
		for (unsigned i = 0; i < PAGES; i += 5)
			byte = (char)(byte ^ *(volatile char *)(memory + (size_t)i * PAGE));
		if (write(done[1], &byte, 1) != 1)
			break;
	}
	_exit(0);
}

static void check(const struct world *w, unsigned round)
{
	static char is[PAGE], expected[PAGE];

	for (unsigned i = 0; i < PAGES; i++) {
		memset(expected, i % 3 ? 0 : (int)(i % 251) + 1, PAGE);
		if (i % 7 == 0 && round)
			memset(expected, (int)(round * 100), PAGE / 2);
		assert_int_equal(pread(w->to, is, PAGE, (off_t)i * PAGE), PAGE);
		assert_memory_equal(is, expected, PAGE);
	}
}

static void test_private(void **state)
{
	int ask[2], done[2];
	struct world w;
	char byte = 0;

	(void)state;
	begin(&w);
	assert_true(private_memory_is(w.folder));
	assert_int_equal(pipe(ask) | pipe(done), 0);
	pid_t pid = start_writer(w.base, ask, done);
	for (unsigned round = 1; round <= 2; round++) {
		assert_int_equal(write(ask[1], "x", 1), 1);
		assert_int_equal(read(done[0], &byte, 1), 1);
		if (private_memory_update(w.folder, pid, w.to, &e) < 0 && e.number == EPERM)
			break; /* a container without CAP_SYS_PTRACE */
		check(&w, round);
	}
	(void)kill(pid, SIGKILL);
	(void)waitpid(pid, NULL, 0);
	assert_true(private_memory_update(w.folder, getpid(), w.to, &e) < 0); /* which has not mapped it */
	for (int i = 0; i < 2; i++) {
		(void)close(ask[i]);
		(void)close(done[i]);
	}
	end(&w);
}

static void test_nothing_of_its_own(void **state)
{
	struct world w;

	(void)state;
	begin(&w);
	assert_int_equal(unlinkat(w.folder, MEMORY_BASE, 0), 0);
	assert_false(private_memory_is(w.folder));
	assert_ok(private_memory_update(w.folder, getpid(), w.to, &e), &e);
	check(&w, 0);
	end(&w);
}

static void test_shared(void **state)
{
	static char content[PAGE];
	struct world w;

	(void)state;
	begin(&w);
	memset(content, 100, PAGE / 2);
	for (unsigned i = 0; i < PAGES; i += 7)
		assert_int_equal(pwrite(w.base, content, PAGE / 2, (off_t)i * PAGE), PAGE / 2);
	assert_ok(shared_memory_update(w.base, w.to, &e), &e);
	check(&w, 1);
	end(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_private), cmocka_unit_test(test_nothing_of_its_own),
					    cmocka_unit_test(test_shared) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
