/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_CHANNEL_H
#define NODE_CHANNEL_H

/*
 * The host channel: one WebSocket to carreld at /v1/hosts/NAME/channel. Everything said on it is a level, so a connection that
 * breaks is opened again (after 50 ms, doubling to 2 s) and both sides say everything once more. Without a service the agent
 * goes on.
 */

#include "node/agent.h"

struct channel;

struct channel *channel_new(struct node *n);
void channel_free(struct channel *c);
/* For agent_new; data is the channel. */
extern const struct agent_events channel_agent_events;
/* Connects, now and whenever the connection is lost. */
void channel_start(struct channel *c, struct agent *a);

#endif
