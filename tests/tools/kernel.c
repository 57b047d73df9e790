/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For tests that boot a machine without a service.
 *
 * kernel build PACKAGE PARTITION        a kernel partition from a distribution's kernel package
 * kernel show PARTITION                 what it is
 * kernel initramfs PARTITION INIT FOLDER  the initramfs for it with INIT (carrel-init), in FOLDER
 *
 * Answers with one line of JSON on standard output; an error is {"error":{"kind","message","hint"}} and exit status 1.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err_json.h"
#include "base/hash.h"
#include "base/own.h"
#include "base/str.h"
#include "store/initramfs.h"
#include "store/kernel.h"

static int open_file(const char *path, int flags, int *ret_fd, struct err *e)
{
	*ret_fd = open(path, flags | O_CLOEXEC, 0644);
	return *ret_fd < 0 ? err_errno(e, errno, "open %s", path) : 0;
}

static int show(int fd, json_t **ret_answer, struct err *e)
{
	struct kernel_about about;
	struct digest d;
	struct stat st;
	char name[DIGEST_TEXT_SIZE];
	int r = kernel_describe(fd, &about, e);

	if (r < 0 || (r = hash_fd(fd, &d, e)) < 0)
		return r;
	if (fstat(fd, &st) < 0)
		return err_errno(e, errno, "look at the partition");
	*ret_answer = json_pack("{s:s, s:s, s:s, s:I, s:I}", "partition", digest_text(&d, name), "release", about.release,
				"architecture", about.architecture, "bytes", (json_int_t)st.st_size, "modules",
				(json_int_t)about.modules);
	return 0;
}

static int run(int argc, char **argv, json_t **ret_answer, struct err *e)
{
	own_fd int first = -1, second = -1, third = -1;
	char name[INITRAMFS_NAME_SIZE];
	struct digest kernel;
	int r;

	if (argc == 4 && str_eq(argv[1], "build")) {
		if ((r = open_file(argv[2], O_RDONLY, &first, e)) < 0 ||
		    (r = open_file(argv[3], O_RDWR | O_CREAT | O_EXCL, &second, e)) < 0 ||
		    (r = kernel_build(first, second, e)) < 0)
			return r;
		return show(second, ret_answer, e);
	}
	if (argc == 3 && str_eq(argv[1], "show")) {
		r = open_file(argv[2], O_RDONLY, &first, e);
		return r < 0 ? r : show(first, ret_answer, e);
	}
	if (argc == 5 && str_eq(argv[1], "initramfs")) {
		if ((r = open_file(argv[2], O_RDONLY, &first, e)) < 0 || (r = open_file(argv[3], O_RDONLY, &second, e)) < 0 ||
		    (r = open_file(argv[4], O_RDONLY | O_DIRECTORY, &third, e)) < 0 ||
		    (r = hash_fd(first, &kernel, e)) < 0 || (r = initramfs_get(third, &kernel, first, second, name, e)) < 0)
			return r;
		*ret_answer = json_pack("{s:s}", "name", name);
		return 0;
	}
	return err_set(e, ERR_INVALID, "use: kernel build PACKAGE PARTITION | show PARTITION | initramfs PARTITION INIT FOLDER");
}

int main(int argc, char **argv)
{
	struct err e = { 0 };
	json_t *answer = NULL;
	int r = run(argc, argv, &answer, &e);

	if (r < 0)
		answer = json_pack("{s:o}", "error", err_to_json(&e));
	char *text = answer ? json_dumps(answer, JSON_COMPACT) : NULL;
	(void)puts(text ? text : "{\"error\":{\"kind\":\"internal\",\"message\":\"the answer is no text\",\"hint\":\"\"}}");
	free(text);
	json_decref(answer);
	return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
