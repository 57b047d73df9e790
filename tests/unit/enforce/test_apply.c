/* SPDX-License-Identifier: Apache-2.0 */
/* The real control groups of this host, below a parent of our own. */
#include "../test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "enforce/enforce.h"

static struct enforce_layout layout;
static char parent[64];
static struct err e;

static int setup(void **state)
{
	(void)state;
	(void)snprintf(parent, sizeof parent, "carrel-test-%d", (int)getpid());
	return enforce_layout_read(&layout, &e);
}

static void remove_parent(const char *mount)
{
	own_str char *path = mount ? mem_printf("%s/%s", mount, parent) : mem_strdup("/nonexistent");
	(void)rmdir(path);
}

static int teardown(void **state)
{
	(void)state;
	remove_parent(layout.v2);
	for (int c = 0; c < ENFORCE_CONTROLLERS; c++)
		remove_parent(layout.v1[c]);
	enforce_layout_done(&layout);
	return 0;
}

static struct enforce_plan plan_for(const char *id, const struct enforce_limits *l)
{
	struct enforce_plan p;
	assert_ok(enforce_plan(&layout, parent, id, l, 1000000, &p, &e), &e);
	return p;
}

static void enter(const char *folder)
{
	own_str char *path = mem_printf("%s/cgroup.procs", folder);
	own_fd int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (write(fd, "0", 1) != 1)
		_exit(99);
}

/* A child that runs `body`; returns when it stands in the groups of `p`. */
static pid_t start_inside(const struct enforce_plan *p, void (*body)(void))
{
	int pair[2];
	char byte;
	assert_int_equal(pipe2(pair, O_CLOEXEC), 0);
	pid_t pid = fork();
	if (pid != 0) {
		(void)close(pair[1]);
		assert_int_equal(read(pair[0], &byte, 1), 1);
		(void)close(pair[0]);
		return pid;
	}
	for (char *const *folder = p->v1; folder && *folder; folder++)
		enter(*folder);
	if (p->v2)
		enter(p->v2);
	if (write(pair[1], "x", 1) != 1)
		_exit(99);
	body();
	_exit(0);
}

static int status_of(pid_t pid)
{
	int status = 0;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void body_sleep(void) { (void)pause(); }

static void body_fork_many(void)
{
	int born = 0;
	for (; born < 50; born++) {
		pid_t pid = fork();
		if (pid == 0)
			(void)pause();
		if (pid < 0)
			break;
	}
	_exit(born);
}

static void body_eat_memory(void)
{
	for (size_t eaten = 0; eaten < (256 << 20); eaten += 1 << 20) {
		char *p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (p == MAP_FAILED)
			_exit(98);
		memset(p, 1, 1 << 20);
	}
}

static void body_use_devices(void)
{
	const char *folder = getenv("DEVICE_FOLDER");
	own_str char *null = mem_printf("%s/null", folder), *kmsg = mem_printf("%s/kmsg", folder);
	if (mknod(null, S_IFCHR | 0600, makedev(1, 3)) < 0 || open(null, O_RDWR | O_CLOEXEC) < 0)
		_exit(1);
	int made = mknod(kmsg, S_IFCHR | 0600, makedev(1, 11));
	_exit(made < 0 && errno == EPERM ? 0 : 2);
}

static void everything_goes_away_again(void **state)
{
	(void)state;
	struct enforce_plan p = plan_for("life", &(struct enforce_limits){ .cpu_milli = 500, .memory_bytes = 64 << 20,
									   .processes = 10 });
	struct texts ids = { 0 };
	struct enforce_usage u;

	assert_ok(enforce_apply(&p, &e), &e);
	assert_ok(enforce_apply(&p, &e), &e);
	pid_t pid = start_inside(&p, body_sleep);
	assert_ok(enforce_list(&layout, parent, &ids, &e), &e);
	assert_int_equal(ids.count, 1);
	assert_string_equal(ids.items[0], "life");
	texts_done(&ids);
	assert_ok(enforce_usage(&p, &u, &e), &e);
	assert_true(u.processes == 1 || u.processes == UINT64_MAX);
	struct enforce_plan wider = plan_for("life", &(struct enforce_limits){ .memory_bytes = 128 << 20 });
	assert_ok(enforce_apply(&wider, &e), &e);
	struct enforce_plan tighter = plan_for("life", &(struct enforce_limits){ .memory_bytes = 32 << 20, .processes = 5 });
	assert_ok(enforce_apply(&tighter, &e), &e);
	assert_ok(enforce_remove(&p, &e), &e);
	assert_int_equal(WTERMSIG(status_of(pid)), SIGKILL);
	assert_ok(enforce_list(&layout, parent, &ids, &e), &e);
	assert_int_equal(ids.count, 0);
	assert_ok(enforce_remove(&p, &e), &e);
	assert_fails(enforce_usage(&p, &u, &e), &e, ERR_NOT_FOUND, "no group");
	enforce_plan_done(&p);
	enforce_plan_done(&wider);
	enforce_plan_done(&tighter);
}

static void a_frozen_workspace_can_be_killed(void **state)
{
	(void)state;
	struct enforce_plan p = plan_for("frozen", &(struct enforce_limits){ 0 });
	assert_ok(enforce_apply(&p, &e), &e);
	pid_t pid = start_inside(&p, body_sleep);
	assert_non_null(p.freeze_path);
	own_fd int fd = open(p.freeze_path, O_WRONLY | O_CLOEXEC);
	assert_int_equal(write(fd, p.freeze_text, strlen(p.freeze_text)), strlen(p.freeze_text));
	assert_ok(enforce_kill(&p, &e), &e);
	assert_int_equal(WTERMSIG(status_of(pid)), SIGKILL);
	assert_ok(enforce_remove(&p, &e), &e);
	enforce_plan_done(&p);
}

static void limits_hold(void **state)
{
	(void)state;
	struct enforce_usage u;
	struct enforce_plan p = plan_for("limits", &(struct enforce_limits){ .memory_bytes = 32 << 20, .processes = 8 });
	assert_ok(enforce_apply(&p, &e), &e);
	if (!p.usage.pids || !p.usage.memory) {
		enforce_plan_done(&p);
		print_message("this host has no pids or memory controller\n");
		skip();
	}
	int status = status_of(start_inside(&p, body_fork_many));
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 7); /* with the parent: eight */
	assert_ok(enforce_kill(&p, &e), &e);
	status = status_of(start_inside(&p, body_eat_memory));
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	assert_ok(enforce_usage(&p, &u, &e), &e);
	assert_true(u.out_of_memory_kills >= 1);
	assert_true(u.memory_peak_bytes <= 32 << 20);
	assert_ok(enforce_remove(&p, &e), &e);
	enforce_plan_done(&p);
}

static int held[2];

static void body_hold_memory(void)
{
	char *p = mmap(NULL, 64 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (p != MAP_FAILED && write(held[1], "x", 1) == 1)
		(void)pause();
}

/* Nothing of it is done, nobody is killed, and what the kernel says is what it said. */
static void less_than_is_in_use_is_refused(void **state)
{
	static const struct enforce_limits room = { .cpu_milli = 800, .memory_bytes = 128 << 20, .processes = 10, .processors = 1 },
					   tight = { .cpu_milli = 300, .memory_bytes = 32 << 20, .processes = 5, .processors = 1 },
					   fits = { .cpu_milli = 300, .memory_bytes = 96 << 20, .processors = 1 };
	(void)state;
	struct enforce_plan p = plan_for("change", &room), less = plan_for("change", &tight), other = plan_for("change", &fits);
	const struct enforce_plan *plans[] = { &p, &less, &p, &other, &p };
	own_strbuf struct str before = { 0 }, after = { 0 };

	char byte;
	assert_ok(enforce_apply(&p, &e), &e);
	bool counts = p.usage.memory != NULL;
	assert_int_equal(pipe2(held, O_CLOEXEC), 0);
	pid_t pid = start_inside(&p, body_hold_memory);
	assert_int_equal(read(held[0], &byte, 1), 1);
	if (counts) {
		for (int i = 0; i < 2; i++) {
			for (size_t w = 0; w < p.write_count; w++) {
				own_strbuf struct str content = { 0 };
				if (!p.writes[w].once && fs_read_file(AT_FDCWD, p.writes[w].path, 4096, &content, NULL) == 0)
					str_puts(i ? &after : &before, str_text(&content));
			}
			if (i == 0)
				assert_fails(enforce_change(&less, &e), &e, ERR_CONFLICT, "cannot be held in 32.0 MiB");
		}
		assert_string_equal(before.bytes, after.bytes);
	}
	for (size_t i = 2; i < ARRAY_SIZE(plans); i++) /* quotas of the whole and its part go down and up in the right order */
		assert_ok(enforce_change(plans[i], &e), &e);
	assert_int_equal(kill(pid, 0), 0);
	assert_ok(enforce_remove(&p, &e), &e);
	assert_int_equal(WTERMSIG(status_of(pid)), SIGKILL);
	enforce_plan_done(&p);
	enforce_plan_done(&less);
	enforce_plan_done(&other);
	if (!counts) {
		print_message("this host has no memory controller\n");
		skip();
	}
}

/* The number of /dev/kvm is allowed with it and refused without; a device that nobody is given stays refused. */
static void body_make_kvm(void)
{
	bool wanted = getenv("DEVICE_KVM") != NULL;
	own_str char *kvm = mem_printf("%s/kvm", getenv("DEVICE_FOLDER")),
		     *other = mem_printf("%s/other", getenv("DEVICE_FOLDER"));

	if ((mknod(kvm, S_IFCHR | 0600, makedev(10, 232)) == 0) != wanted)
		_exit(1);
	_exit(mknod(other, S_IFCHR | 0600, makedev(10, 231)) == 0 ? 2 : 0);
}

static void kvm_is_for_machines(void **state)
{
	(void)state;
	char folder[] = "/tmp/carrel-test-kvm-XXXXXX";
	if (!layout.v2) {
		print_message("this host has no cgroup2 tree\n");
		skip();
	}
	assert_non_null(mkdtemp(folder));
	assert_int_equal(setenv("DEVICE_FOLDER", folder, 1), 0);
	for (int kvm = 0; kvm < 2; kvm++) {
		own_str char *group = mem_printf("%s/%s/kvm-%d", layout.v2, parent, kvm);
		struct enforce_plan only_v2 = { .v2 = group };
		assert_ok(fs_mkdirs(group, 0755, &e), &e);
		assert_ok(enforce_devices_attach(group, kvm, &e), &e);
		if (kvm)
			assert_int_equal(setenv("DEVICE_KVM", "1", 1), 0);
		int status = status_of(start_inside(&only_v2, body_make_kvm));
		assert_int_equal(rmdir(group), 0);
		assert_true(WIFEXITED(status));
		assert_int_equal(WEXITSTATUS(status), 0);
	}
	assert_ok(fs_remove_tree(AT_FDCWD, folder, &e), &e);
}

static void device_rules_by_program(void **state)
{
	(void)state;
	char folder[] = "/tmp/carrel-test-devices-XXXXXX";
	if (!layout.v2) {
		print_message("this host has no cgroup2 tree\n");
		skip();
	}
	assert_non_null(mkdtemp(folder));
	own_str char *group = mem_printf("%s/%s/program", layout.v2, parent);
	assert_ok(fs_mkdirs(group, 0755, &e), &e);
	assert_ok(enforce_devices_attach(group, false, &e), &e);
	assert_int_equal(setenv("DEVICE_FOLDER", folder, 1), 0);
	struct enforce_plan only_v2 = { .v2 = group };
	int status = status_of(start_inside(&only_v2, body_use_devices));
	assert_ok(fs_remove_tree(AT_FDCWD, folder, &e), &e);
	assert_int_equal(rmdir(group), 0);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(everything_goes_away_again),
					    cmocka_unit_test(a_frozen_workspace_can_be_killed), cmocka_unit_test(limits_hold),
					    cmocka_unit_test(less_than_is_in_use_is_refused),
					    cmocka_unit_test(device_rules_by_program), cmocka_unit_test(kvm_is_for_machines) };
	if (geteuid() != 0) {
		(void)printf("1..0 # SKIP control groups can be made by root only\n");
		return 0;
	}
	return cmocka_run_group_tests(tests, setup, teardown);
}
