/* SPDX-License-Identifier: Apache-2.0 */
/* What can be exported how. */
#include "store/export.h"

const char *const export_format_names[] = { "oci", "oci-zstd", "partitions", "tar", "raw", "qcow2", "vmdk", "ova", NULL };

int export_check(const struct image *image, enum export_format format, struct err *e)
{
	bool of_disks = format >= EXPORT_RAW;

	if (of_disks && !image->machine) {
		(void)err_set(e, ERR_UNSUPPORTED, "the image is a set of files, no disk: it cannot be exported as %s",
			      export_format_names[format]);
		return err_hint(e, "its forms are oci, oci-zstd, partitions and tar");
	}
	if (!of_disks && image->machine) {
		(void)err_set(e, ERR_UNSUPPORTED, "the image is a disk: it cannot be exported as %s",
			      export_format_names[format]);
		return err_hint(e, "its forms are qcow2, vmdk, ova and raw");
	}
	if (of_disks && format != EXPORT_OVA && image->partitions.count > 1) {
		(void)err_set(e, ERR_UNSUPPORTED, "the image has %zu disks, and %s holds one", image->partitions.count,
			      export_format_names[format]);
		return err_hint(e, "export it as ova");
	}
	return 0;
}
