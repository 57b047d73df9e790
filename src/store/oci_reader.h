/* SPDX-License-Identifier: Apache-2.0 */
#ifndef STORE_OCI_READER_H
#define STORE_OCI_READER_H

/* The parsers of oci.h run in a child without rights; what it found comes back as a short document of known keys only. */

#include "base/str.h"
#include "store/oci.h"

int oci_read_document(const struct str *bytes, const char *source, struct oci_document *ret_document, struct err *e) must_check;
int oci_read_config(const struct str *bytes, const char *source, struct oci_config *ret_config, struct err *e) must_check;
int oci_read_saved(const struct str *bytes, const char *source, struct oci_saved *ret_saved, struct err *e) must_check;

#endif
