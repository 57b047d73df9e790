/* SPDX-License-Identifier: Apache-2.0 */
/* In place of archive.c where there is no libarchive for the processor (tools/foreign-init). */
#include "engine/workspace/archive.h"

static int absent(struct err *e)
{
	(void)err_set(e, ERR_UNSUPPORTED, "machines of another processor take no copies in this version");
	return err_hint(e, "carrel exec -i NAME -- tar x <FILE does it when the image has tar");
}

int archive_unpack(const char *path, struct err *e)
{
	(void)path;
	return absent(e);
}

int archive_pack(const char *path, struct err *e)
{
	(void)path;
	return absent(e);
}
