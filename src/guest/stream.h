/* SPDX-License-Identifier: Apache-2.0 */
#ifndef GUEST_STREAM_H
#define GUEST_STREAM_H

/*
 * A child's input and output over the channel. Its output is read only while the host has given credit, its input is taken from
 * the host only as fast as the child reads: a slow reader slows the program, and nothing else.
 *
 * The stream of the workspace's own program (`number` 0 while nobody has it open) lasts as long as the program; the host may
 * open it again and again. Others belong to their session: when that ends, or the host closes them, their program is killed.
 */

#include <stdbool.h>

#include "base/loop.h"
#include "guest/child.h"
#include "guest/port.h"

struct stream;
struct streams;

struct streams_events {
	void (*executed)(void *data);                                      /* the workspace's program runs */
	void (*failed)(void *data, const struct err *e);                   /* it could not be executed */
	/* it has ended and its output is with the host, or nobody came for it */
	void (*ended)(void *data, int status);
};

struct streams *streams_new(struct loop *l, struct port *p, const struct streams_events *events, void *data);
void streams_free(struct streams *all);
/* The child is taken. `number` 0: the workspace's program. */
void stream_add(struct streams *all, uint32_t number, const struct child *c);
/* Gives the workspace's program to a stream of the host. */
int stream_attach(struct streams *all, uint32_t number, unsigned rows, unsigned columns, struct err *e) must_check;
bool stream_is_free(const struct streams *all, uint32_t number);
size_t streams_count(const struct streams *all);
/* A frame of a stream: data, credit, resize, signal, close. Of one that is not there: nothing. */
void stream_frame(struct streams *all, const struct guest_frame *f);
void streams_end_session(struct streams *all);
void streams_signal_program(struct streams *all, int number);
/* What the program has said so far is sent, and what was said to it is with it. False: somebody is slow. */
bool streams_drain_program(struct streams *all);
bool streams_program_runs(const struct streams *all);

#endif
