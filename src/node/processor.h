/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_PROCESSOR_H
#define NODE_PROCESSOR_H

/* This host's processor, read once. From any thread. */

#include "model/processor.h"

/* Lives as long as the process. With "vendor:NAME" at the end of the features, as a memory state names it. */
const struct processor_host *processor_here(void);

#endif
