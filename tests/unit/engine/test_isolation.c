/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Proof that the wall holds: from inside a workspace, as its root, with the rights of a program and with those of a full
 * system. Each probe is a command that would succeed if the wall had a hole; a probe that proves nothing (because the tool is
 * missing) would print "not found" and is treated as a failure of the test.
 */
#include "../test.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "fixture.h"

static char out[65536];

static int set_up(void **state)
{
	static struct fixture f;

	fixture_open(&f, NULL, NULL);
	*state = &f;
	return 0;
}

static int tear_down(void **state) { return fixture_close(*state) ? 0 : -1; }

/* Must fail everywhere. */
static const char *const refused_everywhere[] = {
	"echo 1 > /proc/sys/vm/drop_caches",
	"echo x > /proc/sys/kernel/core_pattern",
	"echo 1 > /proc/sys/kernel/panic",
	"echo c > /proc/sysrq-trigger",
	"umount /proc/sys && echo x > /proc/sys/kernel/core_pattern",
	"umount /proc/sysrq-trigger && echo h > /proc/sysrq-trigger",
	"mount -o remount,rw,bind /proc/sys /proc/sys && echo x > /proc/sys/kernel/core_pattern",
	"echo 0 > /sys/kernel/profiling",
	"mount -o remount,rw /sys && echo 0 > /sys/kernel/profiling",
	"echo mem > /sys/power/state",
	"mkdir /sys/fs/cgroup/x/../../../kernel/x",
	"[ -s /proc/kcore ] && head -c 64 /proc/kcore | grep -q ELF",
	"[ -n \"$(cat /proc/keys)\" ]",
	"[ -n \"$(cat /proc/timer_list)\" ]",
	"dmesg | grep -q .",
	"printf x > /tmp/x.ko; insmod /tmp/x.ko",
	"modprobe loop",
	"mknod /root/disk b 7 0 && head -c 1 /root/disk",
	"mknod /root/mem c 1 1 && head -c 1 /root/mem",
	"mknod /dev/kmsg2 c 1 11 && head -c 1 /dev/kmsg2",
	"head -c 1 /dev/mem",
	"head -c 1 /dev/kmsg",
	"[ -e /dev/vda ] || [ -e /dev/sda ] || [ -e /dev/loop0 ] || [ -e /dev/loop-control ] || [ -e /dev/kvm ]",
	"mount -t ext4 /dev/loop0 /mnt",
	"mount -t erofs /dev/loop0 /mnt",
	"mount -t debugfs none /mnt",
	"mount -t tracefs none /mnt",
	"mount -t securityfs none /mnt",
	"mount -t devtmpfs none /mnt",
	"mount -t cgroup -o memory none /mnt && echo -1 > /mnt/memory.limit_in_bytes",
	"mount -t cgroup -o memory none /mnt && echo $$ > /mnt/../cgroup.procs && [ $(ls /mnt | grep -c carrel) != 0 ]",
	"date -s 2001-01-01 && [ $(date +%Y) = 2001 ]",
	"hwclock",
	"losetup -f /root/file",
	"swapon /root/file",
	"ls -l /proc/1/root/proc/1/exe | grep -q carrel-run && cat /proc/1/exe > /dev/null",
	"[ \"$(ls /../..)\" != \"$(ls /)\" ]",
	"mkdir /root/c && chroot /root/c /bin/true",
	"[ $(cat /proc/net/dev | grep -c :) != 1 ]",
	"[ $(cat /proc/net/unix | wc -l) -gt 20 ]",
	"find / -xdev -name run.sock | grep -q .",
	"grep -q carrel-engine /proc/mounts",
	"grep -q /dev/loop /proc/mounts && head -c 1 $(grep -o '/dev/loop[0-9]*' /proc/mounts | head -1)",
};

/* Must fail for programs; an init needs them. */
static const char *const refused_to_programs[] = {
	"mount -t tmpfs none /mnt",
	"mount -o bind / /mnt",
	"umount /proc/sys",
	"umount /dev/shm",
	"unshare -U true",
	"unshare -n true",
	"unshare -m true",
	"hostname other",
	"ip link set lo down",
	"pivot_root / /tmp",
	"reboot -f",
	"mkdir /sys/fs/cgroup/x",
	"grep . /proc/1/environ",
	"ls /proc/1/fd | grep .",
	"grep 'Seccomp:.*0' /proc/1/status",
	"grep 'NoNewPrivs:.*0' /proc/1/status",
	"grep CapBnd /proc/1/status | grep -v 0000000000000020",
};

static void expect_refused(struct fixture *f, const char *const *probes, size_t count)
{
	own_strbuf struct str script = { 0 };

	for (size_t i = 0; i < count; i++)
		str_printf(&script,
			   "( %s ) >/tmp/o 2>&1 && echo 'HOLE: %zu'; grep -q 'sh: .*not found' /tmp/o && echo 'NO TOOL: %zu'; "
			   "umount /mnt 2>/dev/null\n",
			   probes[i], i, i);
	str_puts(&script, "echo done\n");
	assert_int_equal(fixture_exec(f, NULL, str_text(&script), out, sizeof out), 0);
	if (!str_eq(out, "done\n")) {
		char *at = strstr(out, ": ");
		fail_msg("%s%s", out, at ? probes[strtoul(at + 2, NULL, 10) % count] : "");
	}
}

static const char *const sleeper[] = { "/bin/sleep", "1000", NULL };

static void launch_program(struct fixture *f)
{
	assert_ok(fixture_launch(f, sleeper), &f->e);
	/* the first process becomes what it is while the program runs already */
	assert_int_equal(fixture_exec(f, NULL, "until grep -q first /proc/1/comm; do usleep 1000; done", out, sizeof out), 0);
}

static void launch_system(struct fixture *f)
{
	f->spec.mode = MODE_SYSTEM;
	assert_ok(fixture_launch(f, NULL), &f->e);
	f->spec.mode = MODE_AUTO;
	assert_int_equal(fixture_exec(f, NULL, "while [ ! -e /run/up ]; do usleep 1000; done", out, sizeof out), 0);
}

static void test_program_is_walled_in(void **state)
{
	launch_program(*state);
	expect_refused(*state, refused_everywhere, ARRAY_SIZE(refused_everywhere));
	expect_refused(*state, refused_to_programs, ARRAY_SIZE(refused_to_programs));
}

static void test_system_is_walled_in(void **state)
{
	launch_system(*state);
	expect_refused(*state, refused_everywhere, ARRAY_SIZE(refused_everywhere));
}

/* A system manages its own world, and is told to end it in its own way. */
static void test_system_has_its_own(void **state)
{
	struct fixture *f = *state;

	launch_system(f);
	assert_int_equal(
		fixture_exec(
			f, NULL,
			"mount -t tmpfs none /mnt && hostname other && "
			"ip link set lo down && mkdir /sys/fs/cgroup/mine && cat /etc/machine-id | wc -c && cat /proc/1/comm",
			out, sizeof out),
		0);
	assert_string_equal(out, "33\ninit\n");
	assert_ok(runner_stop(f->run_dir, PATIENCE_MS, &f->e), &f->e);
	assert_int_equal(fixture_wait(f, PATIENCE_MS), 0);
}

static void test_sees_no_host_processes(void **state)
{
	struct fixture *f = *state;
	own_str char *script = mem_printf("ls /proc | grep -c '^[0-9]'; kill -0 %d 2>&1; kill -9 -1; echo alive",
					  (int)getpid());

	launch_program(f);
	int status = fixture_exec(f, NULL, script, out, sizeof out);
	assert_true(status == 0 || status == 128 + SIGKILL);
	assert_true(strtol(out, NULL, 10) <= 6);
	assert_non_null(strstr(out, "No such process"));
}

static void test_fork_bomb_is_bounded(void **state)
{
	struct fixture *f = *state;
	struct enforce_usage usage;

	f->how_much.processes = 50;
	launch_program(f);
	(void)fixture_exec(f, NULL, "i=0; while [ $i -lt 200 ]; do sleep 1000 & i=$((i+1)); done", out, sizeof out);
	assert_non_null(strstr(out, "fork"));
	assert_ok(enforce_usage(&f->limits, &usage, &f->e), &f->e);
	assert_true(usage.processes <= 50);
}

static void test_memory_is_bounded(void **state)
{
	struct fixture *f = *state;
	struct runner_status s;

	f->how_much.memory_bytes = 32 << 20;
	assert_int_equal(fixture_shell(f, "exec dd if=/dev/zero of=/dev/null bs=200M count=1", out, sizeof out), 128 + SIGKILL);
	assert_ok(runner_read_status(f->run_dir, &s, &f->e), &f->e);
	assert_true(s.killed_for_memory);
}

static void test_disk_is_bounded(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(fixture_shell(f, "dd if=/dev/zero of=/root/big bs=1M count=400 2>&1", out, sizeof out), 1);
	assert_non_null(strstr(out, "No space left"));
}

static unsigned processes_of(const struct fixture *f)
{
	struct enforce_usage usage = { .processes = 0 };

	return enforce_usage(&f->limits, &usage, NULL) < 0 ? 0 : (unsigned)usage.processes;
}

static void test_nothing_runs_after_stop(void **state)
{
	struct fixture *f = *state;

	launch_program(f);
	assert_int_equal(fixture_exec(f, NULL, "trap '' TERM HUP; setsid sh -c 'trap \"\" TERM HUP INT; sleep 999 & sleep 999' "
					       ">/dev/null 2>&1 </dev/null &",
				      out, sizeof out), 0);
	assert_true(processes_of(f) >= 3);
	assert_ok(runner_stop(f->run_dir, 300, &f->e), &f->e);
	assert_true(fixture_wait(f, PATIENCE_MS) >= 0);
	for (int i = 0; processes_of(f) && i < 30000; i++)
		(void)poll(NULL, 0, 2); /* the dead leave their cgroup a moment later */
	assert_int_equal(processes_of(f), 0);
}

/* No descriptor of the host, no environment of the agent. */
static void test_inherits_nothing(void **state)
{
	struct fixture *f = *state;

	(void)setenv("CARREL_SECRET", "1", 1);
	launch_program(f); /* processes 1 (ours) and 2 */
	assert_int_equal(fixture_exec(f, NULL,
				      "echo /proc/2/fd/*; tr '\\0' '\\n' < /proc/2/environ | grep -c CARREL_; ls /proc/self/fd",
				      out, sizeof out),
			 0);
	assert_string_equal(out, "/proc/2/fd/0 /proc/2/fd/1 /proc/2/fd/2\n0\n0\n1\n2\n3\n");
	assert_ok(runner_kill(f->run_dir, &f->e), &f->e);
	assert_true(fixture_wait(f, PATIENCE_MS) >= 0);
	assert_int_equal(fixture_shell(f, "grep -E 'CapBnd|NoNewPrivs|Seccomp:' /proc/self/status", out, sizeof out), 0);
	assert_non_null(strstr(out, "CapBnd:\t00000000a80425fb"));
	assert_non_null(strstr(out, "NoNewPrivs:\t1"));
	assert_non_null(strstr(out, "Seccomp:\t2"));
}

/* --- hostile images: nothing outside is touched, and the reason is told --- */

struct hostile {
	const char *change, *refusal; /* NULL: it runs */
};

static const struct hostile hostile_images[] = {
	{ "rm -rf dev; ln -s /tmp dev", "/dev of the image is a symbolic link" },
	{ "rm -rf proc; ln -s ../../../../../../etc proc", "/proc of the image is a symbolic link" },
	{ "rm -rf sys; ln -s / sys", "/sys of the image is a symbolic link" },
	{ "rm -rf dev; touch dev", "/dev" },
	{ "mv etc etc2; ln -s /proc/1/root/etc etc", NULL },
	{ "mv etc etc2; ln -s ../../../../../../../../../../etc2 etc", NULL },
	{ "ln -s /etc/shadow etc/hostname; ln -s /dev/null etc/hosts; mkfifo etc/machine-id", NULL },
	{ "rm etc/passwd; mkfifo etc/passwd; rm etc/group; ln -s /dev/zero etc/group", NULL },
	{ "mkdir -p srv; ln -s / srv/data", NULL },
	{ "mkdir -p srv; ln -s ../../../../../../../tmp srv/data", NULL },
	{ "mkdir -p srv; ln -s /proc/self/root srv/data", NULL },
};

static void try_hostile(const struct hostile *h)
{
	struct fixture f;
	struct stat before, after;

	fixture_open(&f, NULL, h->change);
	assert_int_equal(stat("/etc/hostname", &before), 0);
	f.volumes[0] = (struct launch_volume){ .name = "data", .fd = fixture_volume(&f, "data", false), .mount = "/srv/data" };
	f.launch.volume_count = 1;
	int r = fixture_launch(&f, sleeper);
	(void)close(f.volumes[0].fd);
	if (h->refusal && (r >= 0 || !strstr(f.e.message, h->refusal)))
		fail_msg("%s: %d %s", h->change, r, f.e.message);
	assert_int_equal(stat("/etc/hostname", &after), 0);
	assert_memory_equal(&before.st_mtim, &after.st_mtim, sizeof before.st_mtim);
	assert_int_equal(before.st_ino, after.st_ino);
	assert_true(fixture_close(&f));
}

static void test_hostile_images(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(hostile_images); i++)
		try_hostile(&hostile_images[i]);
}

/* --- hostile volumes --- */

static void try_volume(struct fixture *f, const char *damage, const char *part)
{
	own_str char *path = mem_printf("%s/data.ext4", f->folder);
	own_str char *command = mem_printf("v=%s; %s", path, damage);

	(void)unlink(path);
	(void)close(fixture_volume(f, "data", false));
	assert_int_equal(fixture_host(command), 0);
	f->volumes[0] = (struct launch_volume){ .name = "data", .fd = fixture_volume(f, "data", false), .mount = "/srv/data" };
	f->launch.volume_count = 1;
	int r = fixture_launch(f, sleeper);
	(void)close(f->volumes[0].fd);
	if (r >= 0 || !strstr(f->e.message, part))
		fail_msg("%s: %d %s", damage, r, f->e.message);
}

static void test_hostile_volumes(void **state)
{
	struct fixture *f = *state;

	try_volume(f, "dd if=/dev/urandom of=$v bs=4096 count=64 conv=notrunc 2>/dev/null", "volume data");
	try_volume(f, "truncate -s 0 $v", "volume data");
	try_volume(f, "debugfs -w -R 'rmdir data' $v 2>/dev/null", "data/ of volume data");
	try_volume(f, "debugfs -w -f - $v >/dev/null 2>&1 <<E\nrmdir data\nsymlink data /etc\nE\n", "data/ of volume data");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(program_is_walled_in), TEST(system_is_walled_in),
		TEST(system_has_its_own),   TEST(sees_no_host_processes),
		TEST(fork_bomb_is_bounded), TEST(memory_is_bounded),
		TEST(disk_is_bounded),      TEST(nothing_runs_after_stop),
		TEST(inherits_nothing),     cmocka_unit_test(test_hostile_images),
		TEST(hostile_volumes),
	};
	const char *missing = fixture_missing();

	if (missing) {
		(void)printf("1..0 # SKIP needs %s\n", missing);
		return 0;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
