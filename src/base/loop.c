/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. Every source is one epoll entry, but timers: they stand in a binary heap whose first element decides how
 * long epoll_wait may sleep. A source that is removed while events are handed out is only marked; the loop frees marked sources
 * when no callback runs, so a callback never meets a dangling pointer. Posted calls stand in a list under a mutex, and an
 * eventfd wakes the loop. All sources stand in a list, so what is still there at the end goes with the loop.
 */
#include "base/loop.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"

enum source_kind { SOURCE_FD, SOURCE_TIMER, SOURCE_SIGNAL };

struct loop_source {
	struct loop *loop;
	enum source_kind kind;
	int fd; /* SOURCE_SIGNAL owns it */
	union {
		loop_fd_fn *fd_fn;
		loop_fn *fn;
	};
	void *data;
	uint64_t due_ms;
	size_t heap_at; /* 1-based; 0: not in the heap */
	bool removed;
	struct loop_source *next, **at; /* of all, or of those that were removed */
};

struct post {
	loop_fn *fn;
	void *data;
	struct post *next;
};

struct loop {
	int epoll_fd, wake_fd;
	bool stopped;
	struct loop_source **heap;
	size_t heap_count, heap_capacity;
	struct loop_source *sources, *removed;
	pthread_mutex_t lock;
	struct post *posts, **posts_end;
};

uint64_t loop_now_ms(void)
{
	struct timespec now;
	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void must(int r)
{
	if (r < 0)
		abort(); /* epoll and eventfd fail only without descriptors or memory: restart */
}

struct loop *loop_new(void)
{
	struct loop *l = mem_alloc(sizeof *l);

	l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	l->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	must(l->epoll_fd);
	must(l->wake_fd);
	struct epoll_event event = { .events = EPOLLIN };
	must(epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, l->wake_fd, &event));
	(void)pthread_mutex_init(&l->lock, NULL);
	l->posts_end = &l->posts;
	return l;
}

static void free_all(struct loop_source **list)
{
	while (*list) {
		struct loop_source *s = *list;
		*list = s->next;
		if (s->kind == SOURCE_SIGNAL)
			(void)close(s->fd);
		free(s);
	}
}

void loop_free(struct loop *l)
{
	free_all(&l->removed);
	free_all(&l->sources);
	free(l->heap);
	for (struct post *p = l->posts, *next; p; p = next) {
		next = p->next;
		free(p);
	}
	(void)close(l->epoll_fd);
	(void)close(l->wake_fd);
	(void)pthread_mutex_destroy(&l->lock);
	free(l);
}

/* --- timers: a binary heap by due_ms --- */

static void heap_set(struct loop *l, size_t at, struct loop_source *s)
{
	l->heap[at] = s;
	s->heap_at = at + 1;
}

static void heap_up(struct loop *l, size_t at)
{
	struct loop_source *s = l->heap[at];
	for (; at > 0 && l->heap[(at - 1) / 2]->due_ms > s->due_ms; at = (at - 1) / 2)
		heap_set(l, at, l->heap[(at - 1) / 2]);
	heap_set(l, at, s);
}

static void heap_down(struct loop *l, size_t at)
{
	struct loop_source *s = l->heap[at];
	for (size_t child; (child = 2 * at + 1) < l->heap_count; at = child) {
		if (child + 1 < l->heap_count && l->heap[child + 1]->due_ms < l->heap[child]->due_ms)
			child++;
		if (l->heap[child]->due_ms >= s->due_ms)
			break;
		heap_set(l, at, l->heap[child]);
	}
	heap_set(l, at, s);
}

static void heap_remove(struct loop *l, struct loop_source *s)
{
	size_t at = s->heap_at - 1;
	struct loop_source *last = l->heap[--l->heap_count];

	s->heap_at = 0;
	if (s == last)
		return;
	heap_set(l, at, last);
	heap_up(l, at);
	heap_down(l, last->heap_at - 1);
}

/* --- sources --- */

static struct loop_source *source_new(struct loop *l, enum source_kind kind, int fd, void *data)
{
	struct loop_source *s = mem_alloc(sizeof *s);
	s->loop = l;
	s->kind = kind;
	s->fd = fd;
	s->data = data;
	s->next = l->sources;
	s->at = &l->sources;
	if (s->next)
		s->next->at = &s->next;
	l->sources = s;
	return s;
}

struct loop_source *loop_add_fd(struct loop *l, int fd, uint32_t events, loop_fd_fn *fn, void *data)
{
	struct loop_source *s = source_new(l, SOURCE_FD, fd, data);
	struct epoll_event event = { .events = events, .data.ptr = s };

	s->fd_fn = fn;
	must(epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, fd, &event));
	return s;
}

void loop_set_events(struct loop_source *s, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.ptr = s };
	must(epoll_ctl(s->loop->epoll_fd, EPOLL_CTL_MOD, s->fd, &event));
}

struct loop_source *loop_add_timer(struct loop *l, uint64_t delay_ms, loop_fn *fn, void *data)
{
	struct loop_source *s = source_new(l, SOURCE_TIMER, -1, data);

	s->fn = fn;
	s->due_ms = loop_now_ms() + delay_ms;
	MEM_PUSH_ROOM(l->heap, l->heap_count, l->heap_capacity);
	heap_set(l, l->heap_count++, s);
	heap_up(l, l->heap_count - 1);
	return s;
}

struct loop_source *loop_add_signal(struct loop *l, int number, loop_fn *fn, void *data)
{
	sigset_t set;

	(void)sigemptyset(&set);
	(void)sigaddset(&set, number);
	(void)pthread_sigmask(SIG_BLOCK, &set, NULL);
	struct loop_source *s = source_new(l, SOURCE_SIGNAL, signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK), data);
	must(s->fd);
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = s };
	s->fn = fn;
	must(epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, s->fd, &event));
	return s;
}

void loop_remove(struct loop_source *s)
{
	if (!s || s->removed)
		return;
	if (s->kind == SOURCE_TIMER) {
		if (s->heap_at)
			heap_remove(s->loop, s);
	} else {
		(void)epoll_ctl(s->loop->epoll_fd, EPOLL_CTL_DEL, s->fd, NULL);
	}
	s->removed = true;
	*s->at = s->next;
	if (s->next)
		s->next->at = s->at;
	s->next = s->loop->removed;
	s->loop->removed = s;
}

void loop_post(struct loop *l, loop_fn *fn, void *data)
{
	struct post *p = mem_alloc(sizeof *p);

	*p = (struct post){ .fn = fn, .data = data };
	(void)pthread_mutex_lock(&l->lock);
	*l->posts_end = p;
	l->posts_end = &p->next;
	(void)pthread_mutex_unlock(&l->lock);
	(void)!write(l->wake_fd, &(uint64_t){ 1 }, sizeof(uint64_t));
}

/* --- running --- */

static void run_posts(struct loop *l)
{
	uint64_t count;

	(void)!read(l->wake_fd, &count, sizeof count);
	(void)pthread_mutex_lock(&l->lock);
	struct post *p = l->posts;
	l->posts = NULL;
	l->posts_end = &l->posts;
	(void)pthread_mutex_unlock(&l->lock);
	while (p) {
		struct post *next = p->next;
		p->fn(p->data);
		free(p);
		p = next;
	}
}

static void run_timers(struct loop *l)
{
	uint64_t now = loop_now_ms();

	while (l->heap_count && l->heap[0]->due_ms <= now) {
		struct loop_source *s = l->heap[0];
		loop_remove(s);
		s->fn(s->data);
	}
}

static void dispatch(struct loop_source *s, uint32_t events)
{
	if (s->removed)
		return;
	if (s->kind == SOURCE_FD) {
		s->fd_fn(s->data, events);
		return;
	}
	struct signalfd_siginfo info;
	if (read(s->fd, &info, sizeof info) == sizeof info)
		s->fn(s->data);
}

int loop_run(struct loop *l, struct err *e)
{
	struct epoll_event events[64];

	for (l->stopped = false; !l->stopped;) {
		int timeout = -1;
		if (l->heap_count) {
			uint64_t now = loop_now_ms(), due = l->heap[0]->due_ms;
			timeout = due <= now ? 0 : due - now > 3600000 ? 3600000 : (int)(due - now);
		}
		int n = epoll_wait(l->epoll_fd, events, ARRAY_SIZE(events), timeout);
		if (n < 0 && errno != EINTR)
			return err_errno(e, errno, "epoll_wait");
		for (int i = 0; i < n; i++) {
			if (events[i].data.ptr)
				dispatch(events[i].data.ptr, events[i].events);
			else
				run_posts(l);
		}
		run_timers(l);
		free_all(&l->removed);
	}
	return 0;
}

void loop_stop(struct loop *l) { l->stopped = true; }
