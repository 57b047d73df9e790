/* SPDX-License-Identifier: Apache-2.0 */
/*
 * carrel-copy in|out PATH: files of a workspace as a tar stream on standard input or output.
 *
 * Started by carrel-run in the workspace's cgroups, with the first process, the plan and a socket open
 * (engine/workspace/enter.h). Before it looks at any path or any byte of an archive it goes into all namespaces of the
 * workspace, becomes its root with the capabilities that files need, and takes on its seccomp filter, without a descriptor of
 * the host but the streams: whatever links, mounts or archives say, they cannot reach more than the workspace itself can. What
 * it uses is counted there, and it dies with it.
 *
 * An error is told on standard error as "KIND\nSENTENCE", and exit status 1.
 */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/err.h"
#include "base/str.h"
#include "engine/workspace/archive.h"
#include "engine/workspace/enter.h"

int main(int argc, char **argv)
{
	struct err e = { 0 };

	if (argc != 3 || fcntl(ENTER_SYNC, F_GETFD) < 0) {
		(void)fprintf(stderr, "invalid\ncarrel-copy is started by carrel-run\n");
		return 2;
	}
	int r = enter_confined(&e);
	if (r >= 0 && argv[2][0] != '/')
		r = err_set(&e, ERR_INVALID, "path \"%s\" is not absolute", argv[2]);
	if (r >= 0)
		r = str_eq(argv[1], "in") ? archive_unpack(argv[2], STDIN_FILENO, &e) :
					    archive_pack(argv[2], STDOUT_FILENO, &e);
	if (r < 0)
		(void)fprintf(stderr, "%s\n%s", err_kind_name(e.kind), e.message);
	_exit(r < 0); /* nothing that runs at exit (a sanitizer's search for leaks) may look at the workspace it stands in */
}
