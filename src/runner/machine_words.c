/* SPDX-License-Identifier: Apache-2.0 */
#include "runner/machine_words.h"

#include <errno.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"

#define TAIL_BYTES 4096

static char nothing[] = "";

static uint64_t now_ns(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

void machine_words_config(const struct guest_config *config, struct str *out)
{
	uint8_t seed[GUEST_SEED_BYTES];
	struct guest_config c = *config;

	(void)!getrandom(seed, sizeof seed, 0);
	c.clock_ns = now_ns();
	c.seed = (struct guest_bytes){ seed, sizeof seed };
	guest_encode(&guest_config_shape, &c, out);
}

int machine_words_identity(const struct guest_bytes *of, struct str *out, struct err *e)
{
	uint8_t seed[GUEST_SEED_BYTES];
	struct guest_identity i;
	int r = guest_decode(&guest_identity_shape, of->bytes, of->length, &i, e);

	if (r < 0)
		return r;
	(void)!getrandom(seed, sizeof seed, 0);
	i.seed = (struct guest_bytes){ seed, sizeof seed };
	i.clock_ns = now_ns();
	guest_encode(&guest_identity_shape, &i, out);
	i.seed = (struct guest_bytes){ 0 };
	guest_done(&guest_identity_shape, &i);
	return 0;
}

struct guest_open machine_words_open(const struct runner_request *q, const char *const *texts, size_t count)
{
	struct guest_open o = { .kind = q->kind == RUNNER_EXEC	  ? GUEST_EXEC :
					q->kind == RUNNER_COPY_IN ? GUEST_COPY_IN :
								    GUEST_COPY_OUT,
				.terminal = (q->flags & RUNNER_TERMINAL) != 0, .input = (q->flags & RUNNER_INPUT) != 0,
				.rows = q->rows, .columns = q->columns, .user = nothing, .directory = nothing,
				.path = nothing };

	if (q->kind == RUNNER_EXEC) {
		o.user = (char *)(uintptr_t)texts[0];
		o.directory = (char *)(uintptr_t)texts[1];
		o.command = (struct guest_texts){ (char **)(uintptr_t)(texts + 2), q->commands };
		o.environment = (struct guest_texts){ (char **)(uintptr_t)(texts + 2 + q->commands), count - 2 - q->commands };
	} else {
		o.path = (char *)(uintptr_t)texts[0];
		o.input = q->kind == RUNNER_COPY_IN;
	}
	return o;
}

bool machine_words_read(struct str *tail, int fd)
{
	char bytes[2048];
	ssize_t n = read(fd, bytes, sizeof bytes);

	if (n > 0)
		str_add(tail, bytes, (size_t)n);
	if (tail->length > TAIL_BYTES)
		str_drop_front(tail, tail->length - TAIL_BYTES);
	return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

char *machine_words_last(const struct str *tail)
{
	size_t most = 600, from = tail->length > most ? tail->length - most : 0;
	char *text = mem_strndup(str_text(tail) + from, tail->length - from);

	for (char *at = text; *at; at++)
		if ((unsigned char)*at < 0x20 || (unsigned char)*at == 0x7f)
			*at = ' ';
	return text;
}
