/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_WORKSPACE_CHECKPOINT_HELPER_H
#define ENGINE_WORKSPACE_CHECKPOINT_HELPER_H

/*
 * Between carrel-run and carrel-checkpoint, which writes a workspace to disk and makes it again with CRIU. carrel-run starts it
 * with
 *   carrel-checkpoint dump PID        and descriptors: 3 socket, 4 plan, 5 folder, 6-8 our ends of the pipes, 9 the terminal's
 *                                     slave side
 *   carrel-checkpoint restore COUNT   and descriptors: 3 socket, 4 plan, 5 folder, then COUNT mounts of volumes
 * Inside a machine carrel-inner starts it, with the word `inside` behind: it then asks for what is the host's
 * (MESSAGE_NAMESPACES, MESSAGE_READY). It sends messages (engine/workspace/message.h): MESSAGE_ENTERED with a pidfd of CRIU,
 * then MESSAGE_PREPARED or MESSAGE_FAILED. The former brings, of a restore, the first process's pidfd and our ends of its
 * streams: the terminal and its other side, or input (when the plan has it), output, errors. The first process is then a child
 * of carrel-run, as one that it made; so is CRIU.
 */

enum { CHECKPOINT_SOCKET = 3, CHECKPOINT_PLAN, CHECKPOINT_FOLDER, CHECKPOINT_STREAMS,
       CHECKPOINT_TERMINAL = CHECKPOINT_STREAMS + 3 };
#define CHECKPOINT_VOLUMES CHECKPOINT_STREAMS

#endif
