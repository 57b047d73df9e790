/* SPDX-License-Identifier: Apache-2.0 */
/* Archives of images: what the sandboxed reader does with them. */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/own.h"
#include "store/layout.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
	own_fd int input = memfd_create("fuzz", MFD_CLOEXEC), output = open("/dev/null", O_WRONLY | O_CLOEXEC);
	struct err e = { 0 };

	if (input < 0 || output < 0 || write(input, bytes, length) != (ssize_t)length || lseek(input, 0, SEEK_SET) < 0)
		return 0;
	if (layout_unpack(input, output, &e) < 0 && !e.message[0])
		abort();
	return 0;
}
