/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A source owns a descriptor or a child that makes the stream, and up to 64 KiB that were read to see what it is; of a packed
 * one up to 1 MiB, whose beginning carrel-tar unpacks. Looking is a help for the user only: the service looks again and
 * believes nothing of it.
 *
 * The order is open, read until 0, finish. A child that failed is found when its stream ends, and then the read fails, so that
 * the upload breaks off and a truncated archive is never taken for a whole one; finish tells the child's words instead of the
 * connection's error.
 *
 * A Debian is built by mmdebstrap, which is a program of the user's machine; its first byte is awaited before the upload
 * begins, because it takes a minute and would be the service's time-out. A kernel alone is a variant without packages and a
 * hook that unpacks them.
 */
#include "cli/source.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/packed.h"

#define HEAD_MOST (64 << 10)
#define PACKED_HEAD_MOST (1 << 20) /* more than one block of any packing */

/* --- what it is --- */

static bool is_layout_member(const char *name)
{
	static const char *const names[] = { "oci-layout", "index.json", "manifest.json", "repositories" };

	if (str_starts(name, "./"))
		name += 2;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (str_eq(name, names[i]))
			return true;
	size_t hex = strspn(name, "0123456789abcdef"); /* docker save before 25: ID/, ID.json */
	return str_starts(name, "blobs/sha256") || (hex == 64 && (name[64] == '/' || str_eq(name + 64, ".json")));
}

/* Disk images by their magic, an OVA by its first member; a raw disk by its boot sector, when it is no tar. The service looks
 * again. */
static bool is_disk(const char *bytes, size_t length)
{
	static const struct {
		const char *magic;
		size_t at, length;
	} magics[] = { { "QFI\xfb", 0, 4 },		   { "KDMV", 0, 4 },	{ "COWD", 0, 4 },
		       { "# Disk DescriptorFile", 0, 21 }, { "vhdxfile", 0, 8 }, { "conectix", 0, 8 },
		       { "\x7f\x10\xda\xbe", 64, 4 },    { "QED\0", 0, 4 },	{ "WithoutFreeSpace", 0, 16 },
		       { "WithouFreSpacExt", 0, 16 } };

	if (length >= 21 && memcmp(bytes, "# Disk DescriptorFile", 21) == 0) /* may be a short text */
		return true;
	if (length < 512)
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(magics); i++)
		if (memcmp(bytes + magics[i].at, magics[i].magic, magics[i].length) == 0)
			return true;
	if (memcmp(bytes + 257, "ustar", 5) == 0) {
		size_t name = strnlen(bytes, 100);
		return name > 4 && strncasecmp(bytes + name - 4, ".ovf", 4) == 0;
	}
	return memcmp(bytes + 510, "\x55\xaa", 2) == 0;
}

/* "disk" for disk images and OVAs; "oci" when the first members of a tar are those of an OCI image layout or of `docker save`,
 * else "tar". */
static const char *detect(const char *bytes, size_t length)
{
	if (is_disk(bytes, length))
		return "disk";
	for (size_t at = 0; at + 512 <= length;) {
		const char *header = bytes + at;
		if (memcmp(header + 257, "ustar", 5) != 0)
			break;
		own_str char *name = mem_strndup(header, strnlen(header, 100));
		if (is_layout_member(name))
			return "oci";
		char type = header[156];
		if (type != 'x' && type != 'g' &&
		    !(type == '5' && (str_eq(name, "./") || str_eq(name, "blobs/") || str_eq(name, "./blobs/"))))
			break; /* a layout has nothing else at its beginning */
		char size[13] = { 0 };
		memcpy(size, header + 124, 12);
		at += 512 + (strtoull(size, NULL, 8) + 511) / 512 * 512;
	}
	return "tar";
}

static int fill_head(struct source *s, size_t most, struct err *e)
{
	while (s->head.length < most) {
		str_reserve(&s->head, most);
		ssize_t n = read(s->fd, s->head.bytes + s->head.length, most - s->head.length);
		if (n < 0 && errno == EINTR && !cli_interrupted)
			continue;
		if (n < 0)
			return err_errno(e, errno, "read the archive");
		if (n == 0)
			break;
		s->head.length += (size_t)n;
	}
	return 0;
}

/* What is packed, as far as it can be seen; NULL: it cannot. A helper that has seen enough does not read on. */
static const char *detect_packed(const struct str *head)
{
	own_str char *helper = pipe_helper("carrel-tar");
	const char *const argv[] = { helper, "look", NULL };
	own_pipe struct pipe_child child = PIPE_NONE;
	own_strbuf struct str plain = { 0 };
	void (*before)(int) = signal(SIGPIPE, SIG_IGN);

	bool seen = pipe_start(&child, argv, PIPE_BOTH, NULL) == 0;
	if (seen) {
		(void)!fs_write_all(child.back_fd, head->bytes, head->length, NULL);
		own_close(&child.back_fd);
		seen = fs_read_fd(child.fd, HEAD_MOST, &plain, NULL) == 0 && plain.length > 0;
	}
	(void)signal(SIGPIPE, before);
	return seen ? detect(str_text(&plain), plain.length) : NULL;
}

static int look_at_head(struct source *s, struct err *e)
{
	int r = fill_head(s, HEAD_MOST, e);

	if (r == 0 && packed_is(str_text(&s->head), s->head.length) && (r = fill_head(s, PACKED_HEAD_MOST, e)) == 0)
		s->format = detect_packed(&s->head);
	if (r < 0)
		return r;
	if (!s->format)
		s->format = detect(str_text(&s->head), s->head.length);
	/* a fixed VHD is a raw disk with something behind it */
	char tail[512];
	if (s->total_bytes > sizeof tail &&
	    pread(s->fd, tail, sizeof tail, (off_t)(s->total_bytes - sizeof tail)) == (ssize_t)sizeof tail &&
	    memcmp(tail, "conectix", 8) == 0)
		s->format = "disk";
	return s->head.length ? 0 : err_set(e, ERR_INVALID, "the archive is empty");
}

/* --- where it comes from --- */

static int open_file(struct source *s, const char *path, const struct source_options *options, struct err *e)
{
	struct stat st;

	s->fd = str_eq(path, "-") ? fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3) : open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (s->fd < 0)
		return err_errno(e, errno, "open %s", path);
	if (isatty(s->fd))
		return err_set(e, ERR_INVALID, "an archive is expected on standard input, which is a terminal");
	if (fstat(s->fd, &st) == 0 && S_ISREG(st.st_mode))
		s->total_bytes = (uint64_t)st.st_size;
	s->format = options->format;
	return s->format ? 0 : look_at_head(s, e);
}

static int open_folder(struct source *s, const char *path, const struct source_options *options, struct err *e)
{
	own_str char *helper = pipe_helper("carrel-tar");
	own_str char *mark = mem_printf("%s/oci-layout", path);
	const char *const argv[] = { helper, "pack", path, ".", "owners", NULL };

	s->format = options->format ? options->format : fs_exists(AT_FDCWD, mark) ? "oci" : "tar";
	return pipe_start(&s->child, argv, PIPE_READ_ITS_OUTPUT, e);
}

/* "I: extracting archives..." becomes the step of the progress. */
static void on_line(void *data, const char *line)
{
	struct source *s = data;
	if (str_starts(line, "I: "))
		progress_step(s->progress, line + 3);
}

/* What mmdebstrap does before its first byte takes a minute; the service shall not wait for it. */
static int wait_for_first_byte(struct source *s, struct err *e)
{
	for (;;) {
		struct pollfd p[] = { { .fd = s->child.fd, .events = POLLIN }, { .fd = s->child.errors_fd, .events = POLLIN } };
		int n = poll(p, 2, -1);
		if (cli_interrupted)
			return err_set(e, ERR_CANCELLED, "interrupted");
		if (n < 0 && errno != EINTR)
			return err_errno(e, errno, "poll");
		if (n > 0 && p[1].revents)
			pipe_hear(&s->child, on_line, s);
		if (n > 0 && (p[0].revents & POLLIN))
			return 0;
		if (n > 0 && (p[0].revents & (POLLHUP | POLLERR))) {
			int r = pipe_finish(&s->child, e);
			return r < 0 ? r : err_set(e, ERR_INTERNAL, "%s made nothing", s->child.name);
		}
	}
}

/* A root of nothing but a kernel package's files. A metapackage stands for the kernel that it depends on, which may be several
 * packages. */
static const char kernel_hook[] =
	"set -eu; export APT_CONFIG=\"$MMDEBSTRAP_APT_CONFIG\"; cd \"$1\"; "
	"p=$(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces "
	"--no-enhances \"$CARREL_KERNEL\" | grep -E '^linux-(image|binary|modules)-' || true); "
	"apt-get -q download $(printf '%s\\n' $CARREL_KERNEL $p | sort -u) >&2; "
	"for d in ./linux-*.deb; do dpkg-deb -x $d .; rm $d; done";

static int start_debian(struct source *s, const char *const *argv, struct err *e)
{
	s->format = "tar";
	int r = pipe_start(&s->child, argv, PIPE_READ_ITS_OUTPUT, e);
	if (r == -ENOENT) {
		(void)err_set(e, ERR_UNSUPPORTED, "mmdebstrap, which builds a Debian, is not installed");
		return err_hint(e, "apt install mmdebstrap");
	}
	return r < 0 ? r : wait_for_first_byte(s, e);
}

static int check_suite(const char *suite, struct err *e)
{
	if (!*suite || strspn(suite, "abcdefghijklmnopqrstuvwxyz0123456789.-") != strlen(suite) || suite[0] == '-')
		return err_set(e, ERR_INVALID, "'debian:%.40s' names no suite of Debian, such as bookworm", suite);
	return 0;
}

static int open_debian_kernel(struct source *s, const char *suite, const struct source_options *options, struct err *e)
{
	own_str char *hook = mem_printf("--customize-hook=%s", kernel_hook);
	own_str char *architecture = options->architecture ? mem_printf("--architectures=%s", options->architecture) : NULL;
	const char *argv[12] = { "mmdebstrap", "--mode=auto", "--format=tar", "--variant=custom", "--skip=check/qemu", hook };
	size_t count = 6;
	int r = check_suite(suite, e);

	if (r < 0)
		return r;
	if (architecture)
		argv[count++] = architecture;
	argv[count++] = suite;
	argv[count++] = "-";
	argv[count++] = options->mirror;
	(void)setenv("CARREL_KERNEL", options->kernel, 1);
	return start_debian(s, argv, e);
}

/* Packages are configured by their own programs, so this host has to run them. */
#define FOREIGN_HINT "packages of another processor are set up by their own programs: apt install arch-test, and " \
		     "carrel doctor --fix as root; " \
		     "--variant extract runs none"

static int open_debian(struct source *s, const char *suite, const struct source_options *options, struct err *e)
{
	own_str char *variant = mem_printf("--variant=%s", options->variant ? options->variant : "important");
	own_str char *include = options->include ? mem_printf("--include=%s", options->include) : NULL;
	own_str char *architecture = options->architecture ? mem_printf("--architectures=%s", options->architecture) : NULL;
	const char *argv[10] = { "mmdebstrap", "--mode=auto", "--format=tar", variant };
	size_t count = 4;
	int r = check_suite(suite, e);

	if (r < 0)
		return r;
	if (include)
		argv[count++] = include;
	if (architecture)
		argv[count++] = architecture;
	if (options->variant && (str_eq(options->variant, "extract") || str_eq(options->variant, "custom")))
		argv[count++] = "--skip=check/qemu"; /* nothing of it is executed */
	argv[count++] = suite;
	argv[count++] = "-";
	argv[count++] = options->mirror;
	/* The same packages on the same day give the same bytes; SOURCE_DATE_EPOCH of the caller goes further. */
	own_str char *today = mem_printf("%lld", (long long)time(NULL) / 86400 * 86400);
	(void)setenv("SOURCE_DATE_EPOCH", today, 0);
	int started = start_debian(s, argv, e);
	return started < 0 && options->architecture && e->kind == ERR_INTERNAL ? err_hint(e, FOREIGN_HINT) : started;
}

int source_open(struct source *s, const char *text, const struct source_options *options, struct progress *progress,
		struct err *e)
{
	struct stat st;

	s->progress = progress;
	if (strstr(text, "://") && stat(text, &st) < 0) {
		(void)err_set(e, ERR_INVALID, "'%.200s' is no source: of addresses there is only docker://HOST/NAME:TAG", text);
		return err_hint(e, "curl -fL URL | carrel image import NAME -");
	}
	if (str_starts(text, "debian:"))
		return (options->kernel ? open_debian_kernel : open_debian)(s, text + strlen("debian:"), options, e);
	if (!str_eq(text, "-") && stat(text, &st) == 0 && S_ISDIR(st.st_mode))
		return open_folder(s, text, options, e);
	return open_file(s, text, options, e);
}

/* --- the bytes --- */

static ssize_t read_some(struct source *s, char *buffer, size_t size)
{
	if (s->head.length) {
		size_t n = s->head.length < size ? s->head.length : size;
		memcpy(buffer, s->head.bytes, n);
		str_drop_front(&s->head, n);
		return (ssize_t)n;
	}
	for (;;) {
		if (s->child.errors_fd >= 0)
			pipe_hear(&s->child, on_line, s);
		ssize_t n = read(s->child.pidfd >= 0 ? s->child.fd : s->fd, buffer, size);
		if (n >= 0 || errno != EINTR || cli_interrupted)
			return n;
	}
}

long source_read(void *data, char *buffer, size_t size)
{
	struct source *s = data;
	ssize_t n = cli_interrupted ? -1 : read_some(s, buffer, size);

	if (cli_interrupted)
		return -ECANCELED;
	if (n < 0)
		return -errno;
	/* A stream that its maker did not finish must not end as if it had. */
	if (n == 0 && s->child.pidfd >= 0 && pipe_finish(&s->child, &s->failure) < 0)
		return -ECANCELED;
	s->done_bytes += (uint64_t)n;
	progress_bytes(s->progress, s->done_bytes, s->total_bytes, 0);
	return n;
}

int source_finish(struct source *s, struct err *e)
{
	if (s->failure.kind == ERR_NONE)
		return 0;
	*e = s->failure;
	return -(s->failure.number ? s->failure.number : EIO);
}

void source_done(struct source *s)
{
	pipe_done(&s->child);
	if (s->fd >= 0)
		(void)close(s->fd);
	str_done(&s->head);
}
