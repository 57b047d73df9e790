/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_LOOP_H
#define BASE_LOOP_H

/*
 * An event loop on epoll, for one thread. Sources call back with their `data`; a callback may add and remove any source, itself
 * too. Only loop_post may be called from other threads.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "base/err.h"

struct loop;
struct loop_source;

struct loop *loop_new(void);
void loop_free(struct loop *l); /* with the sources that are left; descriptors of others stay open */
int loop_run(struct loop *l, struct err *e) must_check; /* until loop_stop */
void loop_stop(struct loop *l);

typedef void loop_fd_fn(void *data, uint32_t events);
typedef void loop_fn(void *data);

/* Level-triggered; `fd` stays the caller's and must outlive the source. */
struct loop_source *loop_add_fd(struct loop *l, int fd, uint32_t events, loop_fd_fn *fn, void *data);
void loop_set_events(struct loop_source *s, uint32_t events);
/* Once, after delay_ms (monotonic). The source removes itself after the call. */
struct loop_source *loop_add_timer(struct loop *l, uint64_t delay_ms, loop_fn *fn, void *data);
/* SIGTERM, SIGINT, ... by signalfd; the signal is blocked in the calling thread and in threads it starts later. */
struct loop_source *loop_add_signal(struct loop *l, int signal, loop_fn *fn, void *data);
void loop_remove(struct loop_source *s); /* NULL is fine */
/* Runs fn(data) on the loop's thread. The only call for other threads. */
void loop_post(struct loop *l, loop_fn *fn, void *data);

uint64_t loop_now_ms(void); /* CLOCK_MONOTONIC */

#endif
