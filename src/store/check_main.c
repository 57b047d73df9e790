/* SPDX-License-Identifier: Apache-2.0 */
/*
 * carrel-check              the volume on descriptor 3 (store/check.h)
 * carrel-check disk BYTES   the disk there, above a partition of so many bytes (store/overlay_check.h)
 *
 * Answers with one line of JSON on standard output, {} or {"error":...}.
 *
 * This process reads the superblock only, as a fixed number of bytes. The rest is e2fsck's, in a child of which nothing is
 * believed but its exit status (e2fsck(8): 0 whole, 1 finished what was begun, 4 faults are left) and, for people, its last
 * lines.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err_json.h"
#include "base/fault.h"
#include "base/loop.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/sandbox.h"
#include "base/str.h"
#include "store/check.h"
#include "store/ext4_super.h"
#include "store/overlay_check.h"

#define OUTPUT_MOST 4096
#define MEMORY_MOST (UINT64_C(4) << 30)

static const char *const places[] = { "/usr/sbin/e2fsck", "/sbin/e2fsck",     "/usr/lib",  "/lib",
				      "/lib64",           "/etc/ld.so.cache", "/dev/null", NULL };

static void be_e2fsck(const char *how, bool writes, int output)
{
	static const char volume[] = "/proc/self/fd/3";
	const char *const argv[] = { access("/usr/sbin/e2fsck", X_OK) == 0 ? "/usr/sbin/e2fsck" : "/sbin/e2fsck", how, volume,
				     NULL };
	const struct sandbox_program p = { .argv = argv,
					   .readable = places,
					   .file = CHECK_FD,
					   .writes = writes,
					   .memory_bytes = MEMORY_MOST,
					   .cpu_seconds = CHECK_SECONDS };
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	struct err e;

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (null >= 0 && dup2(null, 0) == 0 && dup2(output, 1) == 1 && dup2(output, 2) == 2) {
		(void)syscall(SYS_close_range, CHECK_FD + 1, ~0U, 0);
		if (sandbox_exec(&p, &e) < 0)
			(void)!write(2, e.message, strlen(e.message));
	}
	_exit(127);
}

/* Keeps the end of what it says. False: it took too long. */
static bool listen_to(int fd, struct str *output)
{
	uint64_t until = loop_now_ms() + CHECK_SECONDS * UINT64_C(1000);
	char buffer[1024];

	for (;;) {
		uint64_t now = loop_now_ms();
		struct pollfd polled = { .fd = fd, .events = POLLIN };
		if (now >= until || poll(&polled, 1, (int)(until - now)) == 0)
			return false;
		ssize_t n = read(fd, buffer, sizeof buffer);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return true;
		str_add(output, buffer, (size_t)n);
		if (output->length > OUTPUT_MOST)
			str_drop_front(output, output->length - OUTPUT_MOST);
	}
}

static int run_e2fsck(const char *how, bool writes, int *ret_status, struct str *output, struct err *e)
{
	int pair[2], status = 0;

	if (pipe2(pair, O_CLOEXEC) < 0)
		return err_errno(e, errno, "make a pipe");
	pid_t pid = fork();
	if (pid == 0)
		be_e2fsck(how, writes, pair[1]);
	(void)close(pair[1]);
	own_fd int reading = pair[0];
	if (pid < 0)
		return err_errno(e, errno, "make a process");
	bool in_time = listen_to(reading, output);
	if (!in_time)
		(void)kill(pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (!in_time || (WIFSIGNALED(status) && WTERMSIG(status) == SIGXCPU))
		return err_set(e, ERR_TIMEOUT, "e2fsck %s did not end in %d seconds", how, CHECK_SECONDS);
	if (WIFSIGNALED(status))
		return err_set(e, ERR_CORRUPT, "e2fsck %s was ended by signal %d", how, WTERMSIG(status));
	if (WEXITSTATUS(status) >= 8)
		return err_set(e, WEXITSTATUS(status) == 127 ? ERR_INTERNAL : ERR_CORRUPT,
			       "e2fsck %s ended with status %d: %.300s", how, WEXITSTATUS(status), str_text(output));
	*ret_status = WEXITSTATUS(status);
	return 0;
}

/* Headings, the summary, and that it cannot look at this host's mounts. */
static bool is_chatter(const char *line)
{
	static const char *const parts[] = { "Pass ", "e2fsck ", "ext2fs_check_if_mount", "Filesystem still has errors" };

	for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
		if (strstr(line, parts[i]))
			return true;
	return false;
}

/* Its first complaint. */
static void first_fault(const struct str *output, char *out, size_t size)
{
	own_str char *text = mem_strdup(str_text(output));
	char *rest = text, *kept = NULL;

	out[0] = '\0';
	for (char *line; (line = strtok_r(rest, "\n", &kept)) && !out[0]; rest = NULL)
		if (!is_chatter(line))
			(void)snprintf(out, size, "%.160s", line);
}

static int check(struct err *e)
{
	uint8_t block[EXT4_SUPER_BYTES];
	own_strbuf struct str finishing = { 0 }, reading = { 0 };
	struct ext4_super super;
	struct stat st;
	char fault[200];
	int status = 0, r = 0;

	if (fstat(CHECK_FD, &st) < 0 || !S_ISREG(st.st_mode))
		return err_set(e, ERR_INVALID, "descriptor %d is no volume", CHECK_FD);
	if (pread(CHECK_FD, block, sizeof block, EXT4_SUPER_AT) != (ssize_t)sizeof block)
		return err_set(e, ERR_CORRUPT, "it is too short for a file system");
	if ((r = ext4_super_check(block, (uint64_t)st.st_size, &super, e)) < 0)
		return r;
	(void)fault_point("check-begin");
	if (super.unfinished && (r = run_e2fsck("-p", true, &status, &finishing, e)) < 0)
		return r;
	(void)fault_point("check-finished");
	if (status >= 2) {
		first_fault(&finishing, fault, sizeof fault);
		return err_set(e, ERR_CORRUPT, "its file system was not unmounted and cannot be finished: %s", fault);
	}
	if ((r = run_e2fsck("-fn", false, &status, &reading, e)) < 0)
		return r;
	if (status != 0) {
		first_fault(&reading, fault, sizeof fault);
		return err_set(e, ERR_CORRUPT, "its file system has faults: %s", fault);
	}
	/* e2fsck may have written the superblock: what is mounted is what was held against the rules. */
	if (pread(CHECK_FD, block, sizeof block, EXT4_SUPER_AT) != (ssize_t)sizeof block)
		return err_set(e, ERR_CORRUPT, "it cannot be read");
	return ext4_super_check(block, (uint64_t)st.st_size, &super, e);
}

static int check_own_disk(const char *base, struct err *e)
{
	uint64_t base_bytes = 0;

	if (str_to_u64(base, UINT64_MAX, &base_bytes) < 0)
		return err_set(e, ERR_INVALID, "'%s' is no length", base);
	int r = sandbox_enter(0, NULL, e);
	return r < 0 ? r : overlay_check(CHECK_FD, base_bytes, e);
}

int main(int argc, char **argv)
{
	struct err e = { 0 };
	bool disk = argc == 3 && str_eq(argv[1], "disk");
	int r = disk ? check_own_disk(argv[2], &e) : check(&e);

	if (!disk && fchown(CHECK_FD, geteuid(), getegid()) < 0 && r == 0)
		r = err_errno(&e, errno, "take the volume back");
	json_t *answer = r < 0 ? json_pack("{s:o}", "error", err_to_json(&e)) : json_object();
	char *text = json_dumps(answer, JSON_COMPACT);
	(void)puts(text ? text : "{}");
	free(text);
	json_decref(answer);
	return r < 0;
}
