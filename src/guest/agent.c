/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. One process, one loop, no threads. Phases go forward only:
 *
 *	waiting -> preparing -> running -> stopping -> ended
 *	                 \-> failed
 *
 * A hello may come at any time: the host restarted, or the machine was resumed or cloned. It ends the streams of the session
 * before and changes nothing else. `ended` and `failed` are told when nothing is left to be done: volumes are unmounted, and
 * the host may take the machine away at once.
 *
 * The process that serves the channel is no child of the image's init, keeps the initramfs as its root, and has a name that
 * starts with '@', which systemd takes for the sign of a process that it shall not kill (systemd.io/ROOT_STORAGE_DAEMONS).
 */
#include "guest/agent.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/mem.h"
#include "base/own.h"
#include "engine/workspace/message.h"
#include "engine/workspace/program.h"
#include "guest/device.h"
#include "guest/inner.h"
#include "guest/link.h"
#include "guest/power.h"
#include "guest/stream.h"
#include "guest/world.h"

#define UNHEARD_MS 30000 /* how long the end waits for a host */
#define FLUSH_MS 10000
#define RESTARTS 133
#define SETTLED_MS 1000 /* what ends sooner is not made ready for clones */
#define FROZEN_MOST_MS 60000 /* a host that froze and died must not leave the workspace frozen */

struct agent {
	const struct agent_options *how;
	struct loop *loop;
	struct port port;
	struct streams *streams;
	struct guest_config config;
	struct plan plan;
	struct world world;
	enum guest_phase phase;
	uint64_t since_ns; /* uptime at which the phase began */
	int exit_status;
	struct err error;
	struct loop_source *first_synced, *patience, *thaw;
	bool expects_clones; /* all is made that every clone would have to make */
	struct utsname kernel;
	char *boot_id; /* NULL: not known */
	int first_sync; /* of process 1 while it becomes the system's init */
	bool has_links; /* the modules for interfaces are loaded, which a clone's memory knows */
	bool arrived;   /* made again from its images, and waits to be let go */
};

/* The image's init is this machine's process 1. */
static bool is_init(const struct agent *a) { return a->plan.flags & PLAN_SYSTEM && !a->how->inner; }

static uint64_t uptime_ns(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_BOOTTIME, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* --- telling --- */

static void tell_phase(struct agent *a, enum guest_phase phase)
{
	struct guest_state s = { .phase = phase, .exit_status = (uint64_t)a->exit_status, .uptime_ns = a->since_ns };

	if (a->phase == GUEST_FAILED)
		guest_error_set(&s.error, &a->error);
	port_send_message(&a->port, GUEST_STATE, 0, &guest_state_shape, &s);
	guest_done(&guest_state_shape, &s);
}

static void tell_state(struct agent *a) { tell_phase(a, a->arrived ? GUEST_ARRIVED : a->phase); }

static void set_phase(struct agent *a, enum guest_phase phase)
{
	if (phase <= a->phase)
		return;
	a->phase = phase;
	a->since_ns = uptime_ns();
	tell_state(a);
}

static void answer(struct agent *a, uint32_t number, int result, enum guest_told told, const struct err *e)
{
	struct guest_answer m = { .told = told };

	if (result < 0)
		guest_error_set(&m.error, e);
	port_send_message(&a->port, GUEST_ANSWER, number, &guest_answer_shape, &m);
	guest_done(&guest_answer_shape, &m);
}

/* --- the end --- */

static void go_off(void *data)
{
	struct agent *a = data;

	port_flush(&a->port, FLUSH_MS);
	loop_stop(a->loop);
}

/* Everything is dead or shall be. */
static void end(struct agent *a, enum guest_phase phase)
{
	struct err e;

	if (a->phase >= GUEST_ENDED)
		return;
	if (a->how->machine) {
		(void)kill(-1, SIGKILL); /* all but this one and process 1 */
		if (world_leave(&a->world, &e) < 0)
			log_error(&e, "leave the disks");
	}
	set_phase(a, phase);
	loop_remove(a->patience);
	a->patience = loop_add_timer(a->loop, a->port.connected ? 0 : UNHEARD_MS, go_off, a);
}

static void fail(struct agent *a, const struct err *e)
{
	log_error(e, "cannot run the workspace");
	a->error = *e;
	end(a, GUEST_FAILED);
}

static void out_of_patience(void *data)
{
	struct agent *a = data;

	a->patience = NULL;
	if (!(a->plan.flags & PLAN_SYSTEM) && streams_program_runs(a->streams)) {
		streams_signal_program(a->streams, SIGKILL); /* its end follows, with its status */
		return;
	}
	end(a, GUEST_ENDED);
}

/* --- the program --- */

/* Once: a clone or a resumed machine pays for each system call that it has not made before. */
static void look_at_kernel(struct agent *a)
{
	own_strbuf struct str boot_id = { 0 };

	if (!*a->kernel.release)
		(void)!uname(&a->kernel);
	/* the kernel makes it when it is first read: not before it has random numbers of its own */
	if (a->phase == GUEST_WAITING || a->boot_id)
		return;
	if (fs_read_file(AT_FDCWD, "/proc/sys/kernel/random/boot_id", 64, &boot_id, NULL) >= 0)
		a->boot_id = mem_strndup(str_text(&boot_id), strcspn(str_text(&boot_id), "\n"));
}

/* Once, in the original, or in a clone of it that was made before: what it is told lies on what is mounted here. */
static void make_ready_for_clones(struct agent *a)
{
	struct err e;

	if (a->expects_clones)
		return;
	a->expects_clones = true;
	if (world_expect_clones(&a->world, &e) < 0)
		log_error(&e, "make ready for clones");
}

static void expect_clones(void *data)
{
	struct agent *a = data;

	if (a->phase >= GUEST_STOPPING)
		return;
	if (a->thaw) { /* what writes to a frozen volume waits for a thaw, which nobody but us can make */
		(void)loop_add_timer(a->loop, SETTLED_MS, expect_clones, a);
		return;
	}
	look_at_kernel(a);
	make_ready_for_clones(a);
}

static void executed(void *data)
{
	struct agent *a = data;
	struct err e;

	set_phase(a, GUEST_RUNNING);
	if (a->how->modules && device_load_modules(a->how->modules, "3-", &e) < 0)
		log_error(&e, "modules that are not needed at once");
	if (a->how->machine && !a->how->inner && !(a->plan.flags & PLAN_MAINTENANCE))
		(void)loop_add_timer(a->loop, SETTLED_MS, expect_clones, a);
}

static void not_executed(void *data, const struct err *e)
{
	struct agent *a = data;

	a->error = *e;
}

static void program_ended(void *data, int status)
{
	struct agent *a = data;
	bool system = a->how->inner && a->plan.flags & PLAN_SYSTEM;

	/* reboot(2) in a pid namespace: its init is killed by one of two signals */
	a->exit_status = system && status == 128 + SIGINT ? 0 : system && status == 128 + SIGHUP ? RESTARTS : status;
	end(a, a->error.kind ? GUEST_FAILED : GUEST_ENDED);
}

/* It takes no step before the host says so: until then what it left behind can be gone back to. */
static int arrive(struct agent *a, struct err *e)
{
	int r = a->how->inner->arrive(e);

	if (r < 0)
		return r;
	a->arrived = true;
	tell_phase(a, GUEST_ARRIVED);
	return 0;
}

static int go(struct agent *a, struct err *e)
{
	struct child c;

	if (!a->arrived || a->phase != GUEST_PREPARING)
		return err_set(e, ERR_CONFLICT, "nobody has arrived");
	a->arrived = false;
	int r = a->how->inner->go(&c, e);
	if (r >= 0)
		stream_add(a->streams, 0, &c);
	return r;
}

static int start_inner(struct agent *a, struct err *e)
{
	struct child c;

	if (*a->config.images)
		return arrive(a, e);
	int r = a->how->inner->start(&c, e);
	if (r >= 0)
		stream_add(a->streams, 0, &c);
	return r;
}

static int start_program(struct agent *a, struct err *e)
{
	struct child c;
	struct child_how how = { .plan = &a->plan, .root = a->world.root, .kind = GUEST_PROGRAM, .argv = a->plan.argv,
				 .user = "", .directory = "", .terminal = a->plan.flags & PLAN_TERMINAL,
				 .input = a->plan.flags & PLAN_INPUT };

	if (a->plan.flags & PLAN_MAINTENANCE) {
		executed(a);
		return 0;
	}
	if (a->how->inner)
		return start_inner(a, e);
	int r = child_start(&how, &c, e);
	if (r >= 0)
		stream_add(a->streams, 0, &c);
	return r;
}

/* --- process 1 --- */

/* From power_off.c, when the system has ended everything but us. */
static void system_is_off(void *data)
{
	end(data, GUEST_ENDED);
}

static void system_restarts(void *data)
{
	struct agent *a = data;

	a->exit_status = RESTARTS; /* as for a system in namespaces */
	end(a, GUEST_ENDED);
}

static void serve_the_end(struct agent *a)
{
	struct err e;

	(void)loop_add_signal(a->loop, POWER_OFF_SIGNAL, system_is_off, a);
	(void)loop_add_signal(a->loop, POWER_RESTART_SIGNAL, system_restarts, a);
	if (power_leave_shutdown(a->world.root, &e) < 0)
		log_error(&e, "the volumes will be left with a journal");
}

static void reap_for_ever(pid_t agent) __attribute__((noreturn));
static void reap_for_ever(pid_t agent)
{
	for (;;) {
		pid_t pid = wait(NULL);
		if (pid == agent || (pid < 0 && errno == ECHILD)) {
			sync();
			(void)reboot(RB_POWER_OFF);
			_exit(1);
		}
	}
}

static void become_init(struct agent *a, int sync, pid_t agent) __attribute__((noreturn));
static void become_init(struct agent *a, int sync, pid_t agent)
{
	struct err e = { 0 };
	struct program what = { .argv = a->plan.argv, .environment = a->plan.environment, .user = "", .directory = "",
				.standard = { 0, 1, 2 } };
	int kind, r = message_receive(sync, &kind, NULL, &e); /* the agent is ready */

	if (r == 0)
		reap_for_ever(agent); /* it is dead already */
	if (r > 0)
		r = child_enter_root(a->world.root, &e);
	if (r >= 0)
		r = program_execute(&a->plan, &what, &e);
	(void)!message_send(sync, MESSAGE_FAILED, &e, NULL, 0, NULL);
	reap_for_ever(agent);
}

static void init_synced(void *data, uint32_t events)
{
	struct agent *a = data;
	struct err e;
	int kind, r = message_receive(a->first_sync, &kind, NULL, &e);

	(void)events;
	loop_remove(a->first_synced);
	a->first_synced = NULL;
	(void)close(a->first_sync);
	if (r < 0)
		fail(a, &e);
	else
		executed(a);
}

/* Returns in the child, which goes on as the agent. The first process touches nothing of the loop: both have one epoll. */
static int part_from_first_process(struct agent *a, struct err *e)
{
	int pair[2];
	int r = message_pair(pair, e);

	if (r < 0)
		return r;
	pid_t pid = fork();
	if (pid < 0)
		return err_errno(e, errno, "make the agent's process");
	if (pid > 0) {
		(void)close(pair[0]);
		if (is_init(a))
			become_init(a, pair[1], pid);
		/* nothing here keeps a volume from being unmounted */
		(void)syscall(SYS_close_range, STDERR_FILENO + 1, ~0u, 0);
		reap_for_ever(pid);
	}
	(void)close(pair[1]);
	(void)setsid();
	if (a->how->name)
		a->how->name[0] = '@';
	a->first_sync = pair[0];
	if (!is_init(a))
		return 0;
	serve_the_end(a);
	a->first_synced = loop_add_fd(a->loop, a->first_sync, EPOLLIN, init_synced, a);
	return message_send(pair[0], MESSAGE_GO, NULL, NULL, 0, e);
}

/* --- configuration --- */

static int connect_links(struct agent *a, const struct guest_objects *interfaces, bool afresh, struct err *e)
{
	const struct guest_interface *i = interfaces->items;
	if (a->how->inner)
		return a->how->inner->connect(interfaces, afresh, e);
	if (interfaces->count && a->how->modules && !a->has_links) {
		int r = device_load_modules(a->how->modules, "2-", e);
		if (r < 0)
			return r;
		a->has_links = true;
	}
	return links_configure(i, interfaces->count, afresh, e);
}

static int make_world(struct agent *a, struct err *e)
{
	int r = world_set_clock(a->config.clock_ns, e);

	if (r < 0 || (r = world_add_seed(&a->config.seed, e)) < 0 || (r = link_raise_loopback(e)) < 0)
		return r;
	if (a->config.rescan && !a->how->inner && (r = device_rescan(e)) < 0)
		return r;
	if (a->how->inner)
		return a->how->inner->begin(&a->world, &a->plan, &a->config, e);
	if ((r = world_make(&a->world, &a->plan, &a->config, e)) < 0)
		return r;
	return connect_links(a, &a->config.interfaces, false, e);
}

/* It comes to carrel-inner as it came to us, with all that was heard behind it. */
static int hand_over(struct agent *a, const struct guest_frame *f, struct err *e)
{
	const struct guest_reader *heard = &a->port.reader;
	own_strbuf struct str said = { 0 };
	int r = a->config.rescan ? device_rescan(e) : 0;

	if (r < 0)
		return r;
	guest_frame_put(&said, f->session, (enum guest_type)f->type, f->number, f->payload, f->length);
	str_add(&said, heard->buffer.bytes + heard->taken, heard->buffer.length - heard->taken);
	port_flush(&a->port, FLUSH_MS);
	return a->how->become_inner(a->port.fd, &said, a->how->name, e);
}

static int configure(struct agent *a, const struct guest_frame *f, struct err *e)
{
	if (a->phase != GUEST_WAITING)
		return 0;
	int r = guest_decode(&guest_config_shape, f->payload, f->length, &a->config, e);
	if (r >= 0 && *a->config.luggage && a->how->become_inner)
		return hand_over(a, f, e);
	if (r < 0 || (r = plan_decode(a->config.plan.bytes, a->config.plan.length, &a->plan, e)) < 0)
		return r;
	set_phase(a, GUEST_PREPARING);
	if (a->how->machine && ((r = make_world(a, e)) < 0 || (r = part_from_first_process(a, e)) < 0))
		return r;
	if (!a->how->machine)
		a->world.root = a->how->root;
	return is_init(a) ? 0 : start_program(a, e);
}

/* --- requests --- */

static void thaw_again(void *data)
{
	struct agent *a = data;
	struct err e;

	a->thaw = NULL;
	if (world_freeze(&a->world, false, &e) < 0)
		log_error(&e, "thaw");
}

static int freeze(struct agent *a, bool on, struct err *e)
{
	int r = world_freeze(&a->world, on, e);

	loop_remove(a->thaw);
	a->thaw = on && r >= 0 ? loop_add_timer(a->loop, FROZEN_MOST_MS, thaw_again, a) : NULL;
	return r;
}

/* What is frozen since a pause, for a host that asks for what writes: it would wait for ever. */
static int thaw_first(struct agent *a, struct err *e) { return a->thaw ? freeze(a, false, e) : 0; }

static int grow(struct agent *a, const struct guest_frame *f, struct err *e)
{
	size_t length = strnlen((const char *)f->payload, f->length);
	bool has_size = f->length == length + 1 + 8;

	if (length > GUEST_SERIAL_LONGEST || (f->length != length && !has_size))
		return err_set(e, ERR_INVALID, "serial is too long");
	int r = thaw_first(a, e);
	if (r < 0)
		return r;
	own_str char *serial = mem_strndup((const char *)f->payload, length);
	const uint8_t *size = f->payload + length + 1;
	return world_grow(&a->world, serial, has_size ? guest_get_u32(size) | (uint64_t)guest_get_u32(size + 4) << 32 : 0, e);
}

static int identify(struct agent *a, const struct guest_frame *f, enum guest_told *ret_told, struct err *e)
{
	struct guest_identity i;
	int r = guest_decode(&guest_identity_shape, f->payload, f->length, &i, e);

	if (r < 0)
		return r;
	if (a->how->inner && (*i.host_name || *i.machine_id)) {
		guest_done(&guest_identity_shape, &i);
		return err_set(e, ERR_UNSUPPORTED, "a workspace that travels has one identity");
	}
	r = thaw_first(a, e);
	if (r >= 0)
		r = a->world.root < 0 ? err_set(e, ERR_CONFLICT, "the machine has no workspace yet") :
					world_identify(&a->world, &i, e);
	if (r >= 0)
		r = i.clone ? links_become(i.interfaces.items, i.interfaces.count, e) :
			      connect_links(a, &i.interfaces, true, e);
	if (r >= 0 && i.clone && !a->how->inner) {
		make_ready_for_clones(a);
		r = world_tell_clone(&a->world, i.clone, ret_told, e);
	}
	guest_done(&guest_identity_shape, &i);
	return r;
}

static int shutdown_workspace(struct agent *a, const struct guest_frame *f, struct err *e)
{
	uint32_t most_ms = f->length == 4 ? guest_get_u32(f->payload) : 0;
	int r = 0;

	if (a->phase >= GUEST_STOPPING)
		return 0;
	if (a->phase < GUEST_RUNNING || a->plan.flags & PLAN_MAINTENANCE) {
		end(a, GUEST_ENDED);
		return 0;
	}
	set_phase(a, GUEST_STOPPING);
	loop_remove(a->patience);
	a->patience = loop_add_timer(a->loop, most_ms, out_of_patience, a);
	if (!(a->plan.flags & PLAN_SYSTEM)) {
		streams_signal_program(a->streams, (int)a->plan.stop_signal);
		return 0;
	}
	if (a->how->inner)
		return a->how->inner->tell_init(e);
	int number = program_init_signal(1);
	if (number)
		return kill(1, number) < 0 ? err_errno(e, errno, "tell the init") : 0;
	static const char *const halt[] = { "/sbin/init", "0", NULL };
	struct child_how how = { .plan = &a->plan, .root = a->world.root, .kind = GUEST_EXEC, .argv = halt, .user = "0",
				 .directory = "/" };
	struct child c;
	if ((r = child_start(&how, &c, e)) >= 0)
		child_close(&c); /* its status is of no interest; the init reaps it with us */
	return r;
}

static int signal_program(struct agent *a, const struct guest_frame *f, struct err *e)
{
	if (f->length != 4 || guest_get_u32(f->payload) > 64)
		return err_set(e, ERR_INVALID, "no such signal");
	int number = (int)guest_get_u32(f->payload);
	if (!(a->plan.flags & PLAN_SYSTEM))
		streams_signal_program(a->streams, number);
	else if (a->how->inner)
		return a->how->inner->signal(number, e);
	else if (kill(1, number) < 0)
		return err_errno(e, errno, "send signal %d", number);
	return 0;
}

static int travel(struct agent *a, const struct guest_frame *f, struct err *e)
{
	size_t program = streams_program_runs(a->streams) ? 1 : 0;

	if (!a->how->inner)
		return err_set(e, ERR_UNSUPPORTED, "the workspace does not travel");
	if (f->type == GUEST_GO)
		return go(a, e);
	if (f->type == GUEST_STAY)
		return a->how->inner->stay(e);
	if (a->phase != GUEST_RUNNING)
		return err_set(e, ERR_CONFLICT, "the workspace does not run");
	int r = a->how->inner->freeze(streams_count(a->streams) - program, e);
	if (r >= 0 && !streams_drain_program(a->streams))
		r = err_set(e, ERR_CONFLICT, "its output or input waits for somebody who is slow to take it");
	if (r >= 0)
		port_flush(&a->port, FLUSH_MS);
	if (r >= 0)
		r = a->how->inner->depart(e);
	if (r < 0)
		(void)!a->how->inner->stay(NULL);
	return r;
}

static int request(struct agent *a, const struct guest_frame *f, enum guest_told *ret_told, struct err *e)
{
	switch (f->type) {
	case GUEST_CONFIGURE:
		return configure(a, f, e);
	case GUEST_SIGNAL:
		return signal_program(a, f, e);
	case GUEST_FREEZE:
	case GUEST_THAW:
		return freeze(a, f->type == GUEST_FREEZE, e);
	case GUEST_GROW:
		return grow(a, f, e);
	case GUEST_IDENTITY:
		return identify(a, f, ret_told, e);
	case GUEST_SHUTDOWN:
		return shutdown_workspace(a, f, e);
	case GUEST_PING:
		return 0;
	case GUEST_DEPART:
	case GUEST_STAY:
	case GUEST_GO:
		return travel(a, f, e);
	default:
		return err_set(e, ERR_UNSUPPORTED, "no request of type %u", f->type);
	}
}

/* --- streams --- */

static int open_child(struct agent *a, uint32_t number, const struct guest_open *o, struct err *e)
{
	struct child c;
	struct child_how how = { .plan = &a->plan, .root = a->world.root, .kind = (enum guest_stream)o->kind,
				 .argv = (const char *const *)o->command.items,
				 .environment = (const char *const *)o->environment.items, .user = o->user,
				 .directory = o->directory, .path = o->path, .terminal = o->terminal != 0,
				 .input = o->input != 0 || o->kind == GUEST_COPY_IN, .rows = (unsigned)o->rows,
				 .columns = (unsigned)o->columns };

	if (o->kind != GUEST_EXEC && o->kind != GUEST_COPY_IN && o->kind != GUEST_COPY_OUT)
		return err_set(e, ERR_UNSUPPORTED, "no stream of kind %u", (unsigned)o->kind);
	if (o->kind == GUEST_EXEC && !o->command.count)
		return err_set(e, ERR_INVALID, "no command");
	if (o->kind != GUEST_EXEC && o->path[0] != '/')
		return err_set(e, ERR_INVALID, "path \"%s\" is not absolute", o->path);
	if (a->phase != GUEST_RUNNING)
		return err_set(e, ERR_CONFLICT, "the workspace does not run");
	int r = a->how->inner ? a->how->inner->enter(&how, &c, e) : child_start(&how, &c, e);
	if (r >= 0)
		stream_add(a->streams, number, &c);
	return r;
}

/* A list with a NULL behind it. */
static void end_list(struct guest_texts *t)
{
	t->items = mem_grow_array(t->items, t->count + 1, sizeof *t->items);
	t->items[t->count] = NULL;
}

static void open_stream(struct agent *a, const struct guest_frame *f)
{
	struct guest_open o;
	struct err e = { 0 };

	if (!stream_is_free(a->streams, f->number))
		return; /* the host does not count */
	int r = guest_decode(&guest_open_shape, f->payload, f->length, &o, &e);
	if (r >= 0) {
		end_list(&o.command);
		end_list(&o.environment);
		if (streams_count(a->streams) >= GUEST_STREAMS_MOST)
			r = err_set(&e, ERR_NO_CAPACITY,
				    "%d programs and copies run in the machine already, as many as it takes at once",
				    GUEST_STREAMS_MOST);
		else if (o.kind == GUEST_PROGRAM)
			r = stream_attach(a->streams, f->number, (unsigned)o.rows, (unsigned)o.columns, &e);
		else
			r = open_child(a, f->number, &o, &e);
		guest_done(&guest_open_shape, &o);
	}
	if (r >= 0)
		return;
	struct guest_close last = { .exit_status = 255 };
	guest_error_set(&last.error, &e);
	port_send_message(&a->port, GUEST_CLOSE, f->number, &guest_close_shape, &last);
	guest_done(&guest_close_shape, &last);
}

static void hello(struct agent *a)
{
	struct guest_hello h = { .version = GUEST_VERSION, .uptime_ns = uptime_ns() };

	streams_end_session(a->streams);
	look_at_kernel(a);
	h.boot_id = a->boot_id;
	h.release = a->kernel.release;
	port_send_message(&a->port, GUEST_HELLO, 0, &guest_hello_shape, &h);
	tell_state(a);
	if (a->phase >= GUEST_ENDED) {
		loop_remove(a->patience);
		a->patience = loop_add_timer(a->loop, 0, go_off, a);
	}
}

static void frame(void *data, const struct guest_frame *f)
{
	struct agent *a = data;
	enum guest_told told = GUEST_UNTOLD;
	struct err e = { 0 };
	int r;

	switch (f->type) {
	case GUEST_HELLO:
		hello(a);
		return;
	case GUEST_OPEN:
		open_stream(a, f);
		return;
	case GUEST_SIGNAL:
		if (f->number && !stream_is_free(a->streams, f->number)) {
			stream_frame(a->streams, f);
			return;
		}
		break;
	case GUEST_DATA:
	case GUEST_CREDIT:
	case GUEST_RESIZE:
	case GUEST_CLOSE:
		stream_frame(a->streams, f);
		return;
	default:
		break;
	}
	bool first = f->type == GUEST_CONFIGURE && a->phase == GUEST_WAITING;
	r = request(a, f, &told, &e);
	answer(a, f->number, r, told, &e);
	if (r < 0 && first)
		fail(a, &e);
}

/* --- life --- */

/* An init that ends everything sends them to the agent too, which goes on until SIGKILL or the power goes. Blocked, not
 * ignored: one that is meant for a child waits until the child is itself (program.c unblocks). */
static void block_signals(void)
{
	static const int blocked[] = { SIGPIPE, SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGTSTP, SIGTTIN, SIGTTOU };
	sigset_t set;

	(void)sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_SIZE(blocked); i++)
		(void)sigaddset(&set, blocked[i]);
	(void)sigprocmask(SIG_BLOCK, &set, NULL);
}

int agent_run(const struct agent_options *how, struct err *e)
{
	struct agent a = { .how = how, .loop = loop_new(), .phase = GUEST_WAITING, .world.root = -1, .since_ns = uptime_ns() };
	static const struct streams_events events = { .executed = executed, .failed = not_executed, .ended = program_ended };

	block_signals();
	a.port = (struct port){ .frame = frame, .data = &a };
	a.streams = streams_new(a.loop, &a.port, &events, &a);
	int r = port_open(&a.port, a.loop, how->port, e);
	if (r >= 0 && how->said)
		port_feed(&a.port, how->said->bytes, how->said->length);
	if (r >= 0)
		r = loop_run(a.loop, e);
	if (r >= 0)
		r = a.exit_status == RESTARTS && a.plan.flags & PLAN_SYSTEM;
	streams_free(a.streams);
	port_close(&a.port);
	loop_free(a.loop);
	plan_release(&a.plan);
	guest_done(&guest_config_shape, &a.config);
	free(a.boot_id);
	return r;
}
