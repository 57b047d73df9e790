/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_ERR_JSON_H
#define BASE_ERR_JSON_H

#include <jansson.h>

#include "base/err.h"

/* {"kind","message","hint"}, the form that all our programs tell errors in; no hint: no key. A sentence may quote any bytes
 * (names of files, what a peer said): what is not UTF-8 becomes U+FFFD. A new reference. */
json_t *err_to_json(const struct err *e);
/* `text` with each byte that is not part of valid UTF-8 replaced; the caller frees. */
char *utf8_or_replaced(const char *text);

#endif
