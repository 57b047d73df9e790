/* SPDX-License-Identifier: Apache-2.0 */
#include "fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/loop.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/proc.h"
#include "model/name.h"

#define IDS_FROM 900000000u

static int run_quietly(const char *const *argv)
{
	own_strbuf struct str output = { 0 };
	struct err e;
	int r = proc_run(argv, 1 << 20, &output, &e);

	if (r < 0)
		(void)fprintf(stderr, "# %s: %s\n", argv[0], e.message);
	return r;
}

const char *fixture_missing(void)
{
	static const char *const programs[] = { "/usr/bin/mkfs.erofs", "/sbin/mkfs.ext4", "/bin/busybox", "/dev/loop-control" };

	if (geteuid() != 0)
		return "needs root";
	for (size_t i = 0; i < ARRAY_SIZE(programs); i++)
		if (access(programs[i], F_OK) < 0)
			return programs[i];
	return NULL;
}

static void must(bool good, const char *what)
{
	if (!good) {
		perror(what);
		abort();
	}
}

static void must_do(int r, struct err *e)
{
	if (r < 0) {
		(void)fprintf(stderr, "# fixture: %s\n", e->message);
		abort();
	}
}

static void make_busybox(const char *to, const char *change)
{
	own_str char *script = mem_printf(
		"set -e; d=$(mktemp -d /tmp/carrel-engine-bb-XXXXXX); cd $d; mkdir -p bin sbin etc proc sys dev tmp root var "
		"run usr/bin home/ann mnt\n"
		"cp /bin/busybox bin/; for a in $(bin/busybox --list); do [ -e bin/$a ] || ln -s busybox bin/$a; done\n"
		"ln -s ../bin/busybox sbin/init; echo '::sysinit:/bin/touch /run/up' > etc/inittab; echo '::respawn:/bin/sleep "
		"1000' >> etc/inittab\n"
		"printf 'root:x:0:0::/root:/bin/sh\\nann:x:1000:1000::/home/ann:/bin/sh\\n' > etc/passwd\n"
		"printf 'root:x:0:\\nann:x:1000:\\nstaff:x:50:ann\\n' > etc/group; chmod 1777 tmp; chown 1000:1000 home/ann\n"
		"echo data > etc/notexec; %s\nmkfs.erofs $d.img $d >/dev/null 2>&1; mv $d.img %s; rm -rf $d",
		change ? change : ":", to);
	const char *const argv[] = { "/bin/sh", "-c", script, NULL };
	must(run_quietly(argv) >= 0, "make busybox image");
}

static void mount_image(struct fixture *f, const char *rootfs, const char *change)
{
	own_str char *own = mem_printf("%s/image.erofs", f->folder);

	if (!rootfs)
		make_busybox(own, change);
	f->image_mount = mem_printf("%s/image", f->folder);
	must(mkdir(f->image_mount, 0755) == 0, "make mount point");
	if (mount(rootfs ? rootfs : own, f->image_mount, "erofs", MS_RDONLY, NULL) == 0)
		return;
	const char *const argv[] = {
		"/bin/mount", "-t", "erofs", "-o", "ro,loop", rootfs ? rootfs : own, f->image_mount, NULL
	};
	must(run_quietly(argv) >= 0, "mount the image");
}

int fixture_volume(struct fixture *f, const char *name, bool root)
{
	own_str char *path = mem_printf("%s/%s.ext4", f->folder, name), *content = mem_printf("%s/%s.d", f->folder, name);
	own_str char *script = mem_printf("set -e; mkdir -p %s/%s; [ %d = 0 ] || mkdir -p %s/work; truncate -s 256M %s; "
					  "mkfs.ext4 -q -F -m0 -E root_owner=0:0,lazy_itable_init=0 -d %s %s; rm -rf %s",
					  content, root ? "upper" : "data", root, content, path, content, path, content);
	const char *const argv[] = { "/bin/sh", "-c", script, NULL };

	if (access(path, F_OK) < 0)
		must(run_quietly(argv) >= 0, "make volume");
	int fd = open(path, O_RDWR | O_CLOEXEC);
	must(fd >= 0, "open volume");
	for (int i = 0; flock(fd, LOCK_EX | LOCK_NB) < 0; i++) {
		must(i < PATIENCE_MS / 10, "lock volume"); /* the loop device of the last run still goes away */
		(void)poll(NULL, 0, 10);
	}
	return fd;
}

static void fill_launch(struct fixture *f)
{
	f->layers[0] = f->image_mount;
	f->image = (struct image){ .name = (char *)(uintptr_t)"busybox" };
	f->launch = (struct launch){ .id = f->id, .name = "test", .spec = &f->spec, .image = &f->image, .partitions = f->layers,
				     .partition_count = 1, .root_fd = -1, .volumes = f->volumes, .run_dir = f->run_dir,
				     .log_path = f->log_path, .run = 1,
				     .first_id = IDS_FROM + (uint32_t)(strtoul(f->id, NULL, 16) % 10000) * LAUNCH_IDS };
}

/* Where an installation would have them. */
void fixture_use_build(void)
{
	const char *build = getenv("CARREL_BUILD_ROOT");

	if (!build || getenv("CARREL_PREFIX"))
		return;
	own_str char *prefix = mem_printf("%s/tests/prefix", build), *folder = mem_printf("%s/libexec", prefix),
		     *link = mem_printf("%s/carrel", folder), *programs = mem_printf("%s/src/runner", build);
	must_do(fs_mkdirs(folder, 0755, &(struct err){ 0 }), &(struct err){ 0 });
	must(symlink(programs, link) == 0 || errno == EEXIST, "link to the build folder");
	must(setenv("CARREL_PREFIX", prefix, 1) == 0, "setenv");
}

void fixture_open(struct fixture *f, const char *rootfs, const char *change)
{
	fixture_use_build();
	*f = (struct fixture){ .folder = "/tmp/carrel-engine-XXXXXX",
			       .how_much = { .memory_bytes = 256 << 20, .processes = 200 } };
	must(mkdtemp(f->folder) != NULL, "make folder");
	must(chmod(f->folder, 0711) == 0, "chmod");
	id_new(f->id);
	mount_image(f, rootfs, change);
	f->run_dir = mem_printf("%s/run", f->folder);
	f->log_path = mem_printf("%s/log", f->folder);
	must(mkdir(f->run_dir, 0700) == 0, "make run folder");
	fill_launch(f);
	must_do(enforce_layout_read(&f->layout, &f->e), &f->e);
}

static void limit(struct fixture *f)
{
	own_str char *parent = mem_printf("carrel-engine-%s", f->folder + strlen(f->folder) - 6);

	enforce_plan_done(&f->limits);
	must_do(enforce_plan(&f->layout, parent, f->id, &f->how_much, f->launch.first_id, &f->limits, &f->e), &f->e);
	must_do(enforce_apply(&f->limits, &f->e), &f->e);
	f->launch.cgroups = (struct launch_cgroups){ .v1 = (const char *const *)f->limits.v1, .v2 = f->limits.v2,
						     .freeze_path = f->limits.freeze_path, .freeze_text = f->limits.freeze_text,
						     .thaw_text = f->limits.thaw_text };
}

int fixture_launch(struct fixture *f, const char *const *argv)
{
	struct launch_result result;

	texts_done(&f->spec.command);
	for (; argv && *argv; argv++)
		texts_add(&f->spec.command, *argv);
	limit(f);
	f->launch.root_fd = fixture_volume(f, "root", true);
	int r = engine_launch(&f->launch, &result, &f->e);
	(void)close(f->launch.root_fd);
	return r;
}

int fixture_host(const char *script)
{
	const char *const argv[] = { "/bin/sh", "-c", script, NULL };

	return run_quietly(argv) < 0;
}

static int last_status(const char *text)
{
	int status = -EIO;

	(void)sscanf(text, "{\"exit\":%d}", &status);
	return status;
}

int fixture_collect(int stream, char *output, size_t size)
{
	static char frame[RUNNER_FRAME_LONGEST + 1];
	size_t at = 0;
	int status = -EPIPE;

	for (;;) {
		struct pollfd p = { .fd = stream, .events = POLLIN };
		if (poll(&p, 1, PATIENCE_MS) <= 0)
			return -ETIMEDOUT;
		ssize_t n = recv(stream, frame, RUNNER_FRAME_LONGEST, 0);
		if (n <= 0)
			break;
		frame[n] = '\0';
		if (frame[0] == '{') {
			status = last_status(frame);
			if (status < 0)
				at += (size_t)snprintf(output + at, size - at, "%s", frame);
			break;
		}
		size_t take = (size_t)n - 1 < size - 1 - at ? (size_t)n - 1 : size - 1 - at;
		memcpy(output + at, frame + 1, take);
		at += take;
	}
	output[at < size ? at : size - 1] = '\0';
	return status;
}

int fixture_run(struct fixture *f, const char *const *argv, char *output, size_t size)
{
	own_fd int stream = -1;

	output[0] = '\0';
	f->launch.held = true;
	int r = fixture_launch(f, argv);
	f->launch.held = false;
	if (r < 0 || (r = runner_attach(f->run_dir, 0, 0, true, &stream, &f->e)) < 0)
		return r;
	r = fixture_collect(stream, output, size);
	(void)fixture_wait(f, PATIENCE_MS);
	return r;
}

int fixture_shell(struct fixture *f, const char *script, char *output, size_t size)
{
	const char *const argv[] = { "/bin/sh", "-c", script, NULL };

	return fixture_run(f, argv, output, size);
}

int fixture_exec(struct fixture *f, const char *user, const char *script, char *output, size_t size)
{
	const char *const argv[] = { "/bin/sh", "-c", script, NULL };
	struct runner_exec what = { .command = argv, .user = user };
	own_fd int stream = -1;

	output[0] = '\0';
	int r = runner_exec(f->run_dir, &what, &stream, &f->e);
	return r < 0 ? r : fixture_collect(stream, output, size);
}

int fixture_wait(struct fixture *f, unsigned timeout_ms)
{
	struct runner_status s = { .exit_status = -1 };
	own_fd int watch = -1;
	uint64_t end = loop_now_ms() + timeout_ms;
	int r = runner_watch(f->run_dir, &watch, NULL);

	while (r >= 0) {
		struct pollfd p = { .fd = watch, .events = POLLIN };
		if (loop_now_ms() >= end || poll(&p, 1, (int)(end - loop_now_ms())) <= 0)
			return -1;
		while ((r = runner_watch_read(watch, &s, NULL)) > 0)
			;
	}
	return runner_read_status(f->run_dir, &s, NULL) < 0 ? -1 : s.exit_status;
}

/* What the kernel holds goes with the last process, a moment later. */
static bool left_behind(struct fixture *f)
{
	own_strbuf struct str mounts = { 0 };
	own_str char *loops = mem_printf("losetup -nO BACK-FILE | grep -q %s", f->folder);
	const char *const argv[] = { "/bin/sh", "-c", loops, NULL };

	must_do(fs_read_file(AT_FDCWD, "/proc/self/mountinfo", 16 << 20, &mounts, &f->e), &f->e);
	if (strstr(mounts.bytes, f->folder))
		return true;
	own_strbuf struct str ignored = { 0 };
	return proc_run(argv, 65536, &ignored, NULL) >= 0;
}

void fixture_remove_parents(const struct enforce_plan *limits)
{
	for (char **folder = limits->folders; folder && *folder; folder++) {
		own_str char *parent = mem_strndup(*folder, (size_t)(strrchr(*folder, '/') - *folder));
		(void)rmdir(parent); /* not empty: another has it still */
	}
}

bool fixture_close(struct fixture *f)
{
	bool clean = true;

	(void)!runner_kill(f->run_dir, NULL);
	(void)fixture_wait(f, PATIENCE_MS);
	if (f->limits.v1 || f->limits.v2)
		must_do(enforce_remove(&f->limits, &f->e), &f->e);
	fixture_remove_parents(&f->limits);
	enforce_plan_done(&f->limits);
	enforce_layout_done(&f->layout);
	must(umount2(f->image_mount, MNT_DETACH) == 0, "unmount image");
	for (int i = 0; left_behind(f); i++) {
		if (i == PATIENCE_MS / 20) {
			(void)fprintf(stderr, "# something of %s is left behind\n", f->folder);
			clean = false;
			break;
		}
		(void)poll(NULL, 0, 20);
	}
	must_do(fs_remove_tree(AT_FDCWD, f->folder, &f->e), &f->e);
	texts_done(&f->spec.command);
	free(f->image_mount);
	free(f->run_dir);
	free(f->log_path);
	return clean;
}
