/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MODEL_MEMORY_PLACE_H
#define MODEL_MEMORY_PLACE_H

/* Names in a workspace's folder that agent and runner agree on; see model/memory.h. */

#define MEMORY_FOLDER "memory"
#define MEMORY_RESTORED "memory.restored" /* of a snapshot, about to take the folder's place */
#define MEMORY_MANIFEST "manifest.json"
#define MEMORY_RAM "ram"       /* the machine's memory: there as long as it lives, and part of the state when it is suspended */
/* in its place while it lives: what its memory was, and stays; what was written since is in QEMU's process */
#define MEMORY_BASE "base"
#define MEMORY_STATE "state"   /* of its devices */
/* of a machine that boots a disk: the seed that it was started with, for its guest may have it open */
#define MEMORY_SEED "seed"
#define MEMORY_MACHINE "machine.json" /* what was started: the part of the manifest that is known then */
#define MEMORY_PACKED ".packed"       /* behind the name of a file: its packed form is there in its place */
#define MEMORY_LEFT ".left"           /* behind the name of a file: it is nothing any more, and is removed when there is time */

#endif
