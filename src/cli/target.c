/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/target.h"

#include <stdlib.h>
#include <sys/stat.h>

#include "base/mem.h"

int target_of(const char *file, char **ret_path, struct err *e)
{
	struct stat there;
	char *real = stat(file, &there) == 0 ? realpath(file, NULL) : NULL;

	if (real && !S_ISREG(there.st_mode)) {
		free(real);
		(void)err_set(e, ERR_INVALID, "%s is there, and no regular file", file);
		return err_hint(e, S_ISDIR(there.st_mode) ? "name a file in it" : "write a file, and copy that");
	}
	*ret_path = real ? real : mem_strdup(file);
	return 0;
}
