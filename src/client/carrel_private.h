/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLIENT_CARREL_PRIVATE_H
#define CLIENT_CARREL_PRIVATE_H

/* What the files behind the public header share. */

#include "client/client.h"

struct carrel {
	struct client *client; /* NULL: opening failed */
	struct err error;      /* of the last call */
};

int carrel_begin(struct carrel *c); /* forgets the last error */

#endif
