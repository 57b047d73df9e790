/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/progress.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/loop.h"
#include "base/str.h"
#include "cli/print.h"
#include "cli/terminal.h"

#define DRAW_EVERY_MS 100
#define LINE_EVERY_MS 5000

void progress_start(struct progress *p, const struct cli *cli, const char *label)
{
	*p = (struct progress){ .cli = cli, .label = label, .started_ms = loop_now_ms(), .step_ms = loop_now_ms() };
}

static void add_bar(struct str *out, uint64_t done, uint64_t total)
{
	enum { cells = 20 };
	unsigned full = total ? (unsigned)((double)(done < total ? done : total) / (double)total * cells) : 0;

	str_putc(out, '[');
	for (unsigned i = 0; i < cells; i++)
		str_putc(out, "=> "[i < full ? 0 : i == full ? 1 : 2]);
	str_printf(out, "] %3u%%  ", total ? (unsigned)((double)(done < total ? done : total) * 100 / (double)total) : 0);
}

static void add_time(struct str *out, uint64_t seconds)
{
	if (seconds >= 3600)
		str_printf(out, "%u:%02u:%02u", (unsigned)(seconds / 3600), (unsigned)(seconds / 60 % 60),
			   (unsigned)(seconds % 60));
	else
		str_printf(out, "%u:%02u", (unsigned)(seconds / 60), (unsigned)(seconds % 60));
}

/* "label: step  [====>   ]  40%  1.2 GiB of 3.0 GiB, 210 MiB/s, 0:09 left, 500 MiB were already there" */
static void add_line(const struct progress *p, struct str *out)
{
	char text[32];
	uint64_t now = loop_now_ms(), took = now - p->step_ms;

	print_escape(out, p->label);
	if (p->step[0]) {
		str_puts(out, ": ");
		print_escape(out, p->step);
	}
	if (!p->done && !p->total)
		return;
	str_puts(out, "  ");
	if (p->total && p->cli->error_terminal)
		add_bar(out, p->done, p->total);
	str_puts(out, str_bytes(text, sizeof text, p->done));
	if (p->total)
		str_printf(out, " of %s", str_bytes(text, sizeof text, p->total));
	uint64_t moved = p->done > p->done_at_step + p->reused ? p->done - p->done_at_step - p->reused : 0;
	if (took > 500 && moved) {
		uint64_t rate = moved * 1000 / took;
		str_printf(out, ", %s/s", str_bytes(text, sizeof text, rate));
		if (p->total > p->done && rate) {
			str_puts(out, ", ");
			add_time(out, (p->total - p->done) / rate);
			str_puts(out, " left");
		}
	}
	if (p->reused)
		str_printf(out, ", %s were already there", str_bytes(text, sizeof text, p->reused));
}

static void draw(struct progress *p, bool now)
{
	uint64_t at = loop_now_ms(), every = p->cli->error_terminal ? DRAW_EVERY_MS : LINE_EVERY_MS;
	struct str line = { 0 };
	unsigned rows, columns;

	if (p->cli->quiet || (!now && at - p->drawn_ms < every) || (!p->drawn && at - p->started_ms < DRAW_EVERY_MS))
		return; /* what is quick needs no bar */
	p->drawn_ms = at;
	p->drawn_done = p->done;
	p->drawn = true;
	if (p->cli->error_terminal)
		str_putc(&line, '\r');
	add_line(p, &line);
	if (p->cli->error_terminal) {
		terminal_size(&rows, &columns);
		size_t width = print_width(line.bytes);
		if (width > columns) {
			line.length = columns;
			line.bytes[line.length] = '\0';
		}
		str_puts(&line, "\x1b[K");
	} else {
		str_putc(&line, '\n');
	}
	(void)!write(STDERR_FILENO, line.bytes, line.length);
	str_done(&line);
}

void progress_step(struct progress *p, const char *step)
{
	if (str_eq(p->step, step))
		return;
	(void)snprintf(p->step, sizeof p->step, "%s", step);
	p->step_ms = loop_now_ms();
	p->done_at_step = p->done = p->total = p->reused = 0;
	draw(p, true);
}

void progress_bytes(struct progress *p, uint64_t done, uint64_t total, uint64_t reused)
{
	p->done = done;
	p->total = total;
	p->reused = reused;
	draw(p, false);
}

static uint64_t number(const json_t *json, const char *key)
{
	json_int_t n = json_integer_value(json_object_get(json, key));
	return n > 0 ? (uint64_t)n : 0;
}

void progress_operation(void *data, const json_t *operation)
{
	struct progress *p = data;
	const json_t *bytes = json_object_get(operation, "progress");
	const char *step = json_text_at(operation, "step", NULL);

	if (step)
		progress_step(p, step);
	progress_bytes(p, number(bytes, "done"), number(bytes, "total"), number(bytes, "reused"));
}

void progress_end(struct progress *p)
{
	if (p->drawn && p->cli->error_terminal)
		(void)!write(STDERR_FILENO, "\r\x1b[K", 4);
	else if (p->drawn && p->done != p->drawn_done)
		draw(p, true); /* a log ends with how far it came */
	p->drawn = false;
}
