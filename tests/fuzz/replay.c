/* SPDX-License-Identifier: Apache-2.0 */
/* Runs a fuzz target over each file of a corpus folder, without libFuzzer: the corpus is a unit test. TAP on stdout. */
#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>

#include "base/fs.h"
#include "base/own.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int main(int argc, char **argv)
{
	struct err e;
	int count = 0;
	own_dir DIR *dir = argc == 2 ? opendir(argv[1]) : NULL;

	if (!dir) {
		(void)fprintf(stderr, "usage: replay FOLDER\n");
		return 2;
	}
	for (struct dirent *entry; (entry = readdir(dir));) {
		own_strbuf struct str content = { 0 };
		if (entry->d_name[0] == '.')
			continue;
		if (fs_read_file(dirfd(dir), entry->d_name, 64 << 20, &content, &e) < 0) {
			(void)fprintf(stderr, "%s\n", e.message);
			return 1;
		}
		(void)LLVMFuzzerTestOneInput((const uint8_t *)content.bytes, content.length);
		(void)printf("ok %d - %s\n", ++count, entry->d_name);
		(void)fflush(stdout);
	}
	(void)printf("1..%d\n", count);
	return count ? 0 : 1;
}
