/* SPDX-License-Identifier: Apache-2.0 */
#include "model/state.h"

#include <stdint.h>

const char *const state_names[] = { "defined",    "staged",	 "prepared", "starting",  "running", "paused",	"suspending",
				    "stopping", "stopped", "suspended", "failed",   "removing", "removed", 0 };
const char *const wish_names[] = { "staged", "prepared", "paused", "running", "suspended", "stopped", "removed", 0 };

#define B(s) (UINT32_C(1) << STATE_##s)

/* Row: from. A state may always be reported again. */
static const uint32_t followers[STATE_COUNT] = {
	[STATE_DEFINED] = B(STAGED) | B(FAILED) | B(REMOVING) | B(REMOVED),
	[STATE_STAGED] = B(PREPARED) | B(FAILED) | B(REMOVING),
	[STATE_PREPARED] = B(STARTING) | B(FAILED) | B(REMOVING),
	[STATE_STARTING] = B(RUNNING) | B(PAUSED) | B(STOPPING) | B(STOPPED) | B(SUSPENDED) | B(FAILED),
	[STATE_RUNNING] = B(PAUSED) | B(SUSPENDING) | B(STOPPING) | B(STOPPED) | B(STARTING),
	[STATE_PAUSED] = B(RUNNING) | B(SUSPENDING) | B(STOPPING) | B(STOPPED),
	[STATE_SUSPENDING] = B(SUSPENDED) | B(RUNNING) | B(PAUSED) | B(STOPPED),
	[STATE_STOPPING] = B(STOPPED),
	[STATE_STOPPED] = B(STARTING) | B(FAILED) | B(REMOVING),
	[STATE_SUSPENDED] = B(STARTING) | B(STOPPED) | B(REMOVING),
	[STATE_FAILED] = B(STAGED) | B(PREPARED) | B(STARTING) | B(REMOVING),
	[STATE_REMOVING] = B(REMOVED) | B(FAILED),
	[STATE_REMOVED] = 0,
};

bool state_may_follow(enum state from, enum state to) { return from == to || (followers[from] & (UINT32_C(1) << to)); }

/* Short names for the matrix below. */
enum { NONE = ACTION_NONE, STAGE = ACTION_STAGE, PREP = ACTION_PREPARE, START = ACTION_START, PAUSE = ACTION_PAUSE,
       RESUM = ACTION_RESUME, SUSP = ACTION_SUSPEND, DISC = ACTION_DISCARD, STOP = ACTION_STOP, REMOV = ACTION_REMOVE,
       WAIT = ACTION_WAIT };

/* A failed workspace waits for a new wish (its generation decides, see node/); `stopped` and `suspended` satisfy the lower
 * rungs. A suspend that is under way is waited for: it ends soon, and either way in a state from which every wish can be
 * reached. */
static const uint8_t next_action[WISH_COUNT][STATE_COUNT] = {
	/*                   defined staged prep.  start. runn.  paused susp'g stop.  stoppd susp'd failed remov. removed */
	[WISH_STAGED] =    { STAGE, NONE,  NONE,  WAIT,  STOP,  STOP,  WAIT,  WAIT,  NONE,  NONE,  NONE,  WAIT,  NONE },
	[WISH_PREPARED] =  { STAGE, PREP,  NONE,  WAIT,  STOP,  STOP,  WAIT,  WAIT,  NONE,  NONE,  NONE,  WAIT,  NONE },
	[WISH_PAUSED] =    { STAGE, PREP,  START, WAIT,  PAUSE, NONE,  WAIT,  WAIT,  START, START, NONE,  WAIT,  NONE },
	[WISH_RUNNING] =   { STAGE, PREP,  START, WAIT,  NONE,  RESUM, WAIT,  WAIT,  START, START, NONE,  WAIT,  NONE },
	[WISH_SUSPENDED] = { NONE,  NONE,  NONE,  WAIT,  SUSP,  SUSP,  WAIT,  WAIT,  NONE,  NONE,  NONE,  WAIT,  NONE },
	[WISH_STOPPED] =   { NONE,  NONE,  NONE,  STOP,  STOP,  STOP,  WAIT,  WAIT,  NONE,  DISC,  NONE,  WAIT,  NONE },
	[WISH_REMOVED] =   { REMOV, REMOV, REMOV, STOP,  STOP,  STOP,  WAIT,  WAIT,  REMOV, REMOV, REMOV, REMOV, NONE },
};

enum action state_next_action(enum wish wish, enum state state) { return (enum action)next_action[wish][state]; }
bool state_is_live(enum state s) { return s >= STATE_STARTING && s <= STATE_STOPPING; }
