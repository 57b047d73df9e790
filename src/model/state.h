/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MODEL_STATE_H
#define MODEL_STATE_H

/*
 * The states of a workspace and the wishes for it. The database holds the wish, the host reports the state; the table in
 * state.c says which state may follow which, and for each pair of wish and state what is to be done next.
 */

#include <stdbool.h>

enum state {
	STATE_DEFINED,   /* known to the service; nothing on the host */
	STATE_STAGED,    /* partitions are on the host and mounted */
	STATE_PREPARED,  /* volumes, id range and limits exist */
	STATE_STARTING,  /* the runner is there, the first process not yet ready */
	STATE_RUNNING,
	STATE_PAUSED,    /* frozen; memory stays */
	STATE_SUSPENDING, /* its memory is being put away; goes back to running or paused when that fails */
	STATE_STOPPING,  /* clean shutdown under way */
	STATE_STOPPED,   /* no process; volumes kept; exit status known when it ever ran */
	STATE_SUSPENDED, /* no process; volumes and one memory state are kept, and the run is not over */
	STATE_FAILED,    /* a step could not be done; undone as far as the volumes */
	STATE_REMOVING,  /* undo of everything under way */
	STATE_REMOVED,   /* nothing is left on the host */
	STATE_COUNT
};
extern const char *const state_names[]; /* NULL-terminated */

enum wish { WISH_STAGED, WISH_PREPARED, WISH_PAUSED, WISH_RUNNING, WISH_SUSPENDED, WISH_STOPPED, WISH_REMOVED, WISH_COUNT };
extern const char *const wish_names[];

/* What a host does next to bring a workspace from its state nearer to the wish. */
enum action {
	ACTION_NONE,   /* wish and truth agree */
	ACTION_STAGE,
	ACTION_PREPARE,
	ACTION_START,
	/* `paused` freezes before the first instruction of the program; from `suspended` it resumes the memory state */
	ACTION_PAUSE,
	ACTION_RESUME,
	ACTION_SUSPEND,
	ACTION_DISCARD, /* throws the memory state away: suspended becomes stopped */
	ACTION_STOP,
	ACTION_REMOVE,
	ACTION_WAIT,   /* something is under way: look again at the next change */
	ACTION_COUNT
};

bool state_may_follow(enum state from, enum state to);
enum action state_next_action(enum wish wish, enum state state);
bool state_is_live(enum state s); /* has processes: starting, running, paused, suspending, stopping */

#endif
