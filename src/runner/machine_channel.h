/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RUNNER_MACHINE_CHANNEL_H
#define RUNNER_MACHINE_CHANNEL_H

/*
 * The host's end of a machine's channel (docs/formats/guest.md): requests that are answered in time or given up, and streams
 * that are sessions like any other of the runner's. The guest is not believed: frames nobody waits for are passed over, a
 * stream that sends more than it may is over, and what waits here for a slow reader is bounded by the credit that was given.
 */

#include "base/loop.h"
#include "model/guest_protocol.h"
#include "runner/session.h"

#define CHANNEL_DEADLINE_MS 30000
#define CHANNEL_PATIENCE_MS (UINT64_C(1) << 40) /* of a machine that is paused: until somebody lets it go */

struct channel;

struct channel_events {
	void (*hello)(void *data, const struct guest_hello *h);
	void (*state)(void *data, const struct guest_state *s);
	void *data;
};

/* Takes the socket and says hello. */
struct channel *channel_new(struct loop *l, int fd, const struct channel_events *events);
/* Streams that are open end with `why`; requests are answered with it. The end of the socket alone ends nothing: the machine's
 * does. */
void channel_end(struct channel *c, const struct err *why);
void channel_free(struct channel *c);

/* result: 0, of an identity enum guest_told, or a negative errno and *e. Exactly once. */
typedef void channel_done_fn(void *data, int result, const struct err *e);
void channel_request(struct channel *c, enum guest_type type, const void *payload, size_t length, uint64_t deadline_ms,
		     channel_done_fn *done, void *data);
/* A signal to the workspace's own program. */
void channel_signal(struct channel *c, int number);

/* Opens a stream; `how` as for session_new, whose `streams` are filled in here. */
struct session *channel_open(struct channel *c, const struct guest_open *o, const struct session_options *how, struct err *e);

/* --- between machine_channel.c and machine_stream.c --- */

struct stream;
struct stream_end { /* the last frame of a stream */
	int status;
	struct err error; /* kind ERR_NONE: none */
};
struct loop *channel_loop(const struct channel *c);
void channel_send(struct channel *c, enum guest_type type, uint32_t number, const void *payload, size_t length);
struct stream **channel_streams(struct channel *c);
uint32_t channel_take_number(struct channel *c);

/* A frame of the guest for one of the streams; false: nobody waited for it. */
bool stream_frame(struct channel *c, const struct guest_frame *f);
/* Those that have got their last frame and only wait for a reader stay, but for `at_once`. */
void streams_end(struct channel *c, const struct err *why, bool at_once);

#endif
