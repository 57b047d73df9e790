/* SPDX-License-Identifier: Apache-2.0 */
#include "node/workers.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#include "base/mem.h"

struct job {
	loop_fn *run, *done;
	void *data;
	struct job *next;
};

struct queue {
	struct job *first, **end;
};

enum { NORMAL, IDLE, QUEUES };

struct workers {
	struct loop *loop;
	pthread_t *threads;
	unsigned count;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct queue queues[QUEUES];
	bool idle_runs, ending; /* one idle job at a time, so that no thread is missing for long */
};

static struct job *next_job(struct workers *w, bool *ret_idle)
{
	*ret_idle = !w->queues[NORMAL].first;
	if (*ret_idle && w->idle_runs)
		return NULL;
	struct queue *q = &w->queues[*ret_idle ? IDLE : NORMAL];
	struct job *j = q->first;
	if (!j)
		return NULL;
	q->first = j->next;
	if (!q->first)
		q->end = &q->first;
	w->idle_runs |= *ret_idle;
	return j;
}

static void *work(void *data)
{
	struct workers *w = data;
	bool idle;

	(void)pthread_mutex_lock(&w->lock);
	while (!w->ending) {
		struct job *j = next_job(w, &idle);
		if (!j) {
			(void)pthread_cond_wait(&w->changed, &w->lock);
			continue;
		}
		(void)pthread_mutex_unlock(&w->lock);
		j->run(j->data);
		loop_post(w->loop, j->done, j->data);
		free(j);
		(void)pthread_mutex_lock(&w->lock);
		if (idle) {
			w->idle_runs = false;
			(void)pthread_cond_signal(&w->changed);
		}
	}
	(void)pthread_mutex_unlock(&w->lock);
	return NULL;
}

struct workers *workers_new(struct loop *l, unsigned threads)
{
	struct workers *w = mem_alloc(sizeof *w);
	sigset_t all, before;

	w->loop = l;
	(void)pthread_mutex_init(&w->lock, NULL);
	(void)pthread_cond_init(&w->changed, NULL);
	for (int q = 0; q < QUEUES; q++)
		w->queues[q].end = &w->queues[q].first;
	w->threads = mem_alloc_array(threads, sizeof *w->threads);
	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the loop's */
	for (; w->count < threads; w->count++)
		if (pthread_create(&w->threads[w->count], NULL, work, w) != 0)
			abort();
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	return w;
}

void workers_free(struct workers *w)
{
	(void)pthread_mutex_lock(&w->lock);
	w->ending = true;
	(void)pthread_cond_broadcast(&w->changed);
	(void)pthread_mutex_unlock(&w->lock);
	for (unsigned i = 0; i < w->count; i++)
		(void)pthread_join(w->threads[i], NULL);
	for (int q = 0; q < QUEUES; q++)
		for (struct job *j = w->queues[q].first, *next; j; j = next) {
			next = j->next;
			free(j);
		}
	(void)pthread_mutex_destroy(&w->lock);
	(void)pthread_cond_destroy(&w->changed);
	free(w->threads);
	free(w);
}

void workers_run(struct workers *w, loop_fn *job, loop_fn *done, void *data, bool idle)
{
	struct job *j = mem_alloc(sizeof *j);

	*j = (struct job){ .run = job, .done = done, .data = data };
	(void)pthread_mutex_lock(&w->lock);
	struct queue *q = &w->queues[idle ? IDLE : NORMAL];
	*q->end = j;
	q->end = &j->next;
	(void)pthread_cond_signal(&w->changed);
	(void)pthread_mutex_unlock(&w->lock);
}
