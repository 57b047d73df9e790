/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. One virtual processor in 64-bit mode with privileges, two MiB of memory mapped one to one by a single large page:
 *
 *   0x1000  code     0x1800  breakpoint's handler   0x2000-0x4fff  page tables
 *   0x5000  GDT      0x6000  IDT                    0x7000  operand of CMPXCHG16B   0x9000  stack
 *
 * The code counts down, exchanges 16 bytes under lock (as the kernel's allocator does), breaks into a handler and returns (as
 * its alternatives do at boot), and halts. Before each of these it writes a mark to a port, so the marks tell how far it came.
 * What is interpreted fails at the second or third; a time limit, counted in processor time so that a busy host changes
 * nothing, is the second fence. Where the host is itself a machine whose host is busy, its processor time goes on meanwhile:
 * what was slow is tried again, and what interprets is slow each time. A processor that neither runs nor fails is left after
 * ten seconds, if KVM lets go of it; who asks (node/kvm.c) does not wait for ever either.
 *
 * Both timers ring again until somebody hears: a signal between two calls of KVM_RUN interrupts neither.
 */
#include "engine/qemu/kvm_probe.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/own.h"

#ifdef __x86_64__

#define ROUNDS 100000
#define LOOP_MS_MOST 80
#define ALL_MS_MOST 150
#define ALL_S_MOST 10 /* of real time: it does not run at all */
#define AGAIN_US 50000
#define TRIES 4
#define MEMORY (2u << 20)
#define MARKS "1234"

enum { AT_CODE = 0x1000, AT_HANDLER = 0x1800, AT_TABLES = 0x2000, AT_GDT = 0x5000, AT_IDT = 0x6000, AT_OPERAND = 0x7000,
       AT_STACK = 0x9000 };

struct guest {
	int kvm, vm, processor;
	uint8_t *memory;
	struct kvm_run *run;
	size_t run_bytes;
	char marks[sizeof MARKS];
};

static void guest_done(struct guest *g)
{
	if (g->run)
		(void)munmap(g->run, g->run_bytes);
	if (g->memory)
		(void)munmap(g->memory, MEMORY);
	own_close(&g->processor);
	own_close(&g->vm);
	own_close(&g->kvm);
}
#define own_guest __attribute__((cleanup(guest_done)))

static int failed(const char *what, struct err *e)
{
	return err_set(e, ERR_UNSUPPORTED, "%s: %s", what, strerrordesc_np(errno));
}

/* --- making it --- */

static int make_memory(struct guest *g, struct err *e)
{
	g->memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (g->memory == MAP_FAILED) {
		g->memory = NULL;
		return failed("memory for a machine", e);
	}
	const struct kvm_userspace_memory_region region = { .memory_size = MEMORY, .userspace_addr = (uintptr_t)g->memory };
	if (ioctl(g->vm, KVM_SET_TSS_ADDR, 0xfffbd000UL) < 0 || ioctl(g->vm, KVM_SET_USER_MEMORY_REGION, &region) < 0)
		return failed("KVM takes no memory", e);
	return 0;
}

static int make_processor(struct guest *g, struct err *e)
{
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entries[256];
	} *features = mem_alloc(sizeof *features);

	features->head.nent = ARRAY_SIZE(features->entries);
	g->processor = ioctl(g->vm, KVM_CREATE_VCPU, 0);
	int size = ioctl(g->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	bool made = g->processor >= 0 && size > 0 && ioctl(g->kvm, KVM_GET_SUPPORTED_CPUID, &features->head) >= 0 &&
		    ioctl(g->processor, KVM_SET_CPUID2, &features->head) >= 0;
	free(features);
	if (!made)
		return failed("KVM makes no processor", e);
	g->run_bytes = (size_t)size;
	g->run = mmap(NULL, g->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, g->processor, 0);
	if (g->run == MAP_FAILED) {
		g->run = NULL;
		return failed("KVM shares no state", e);
	}
	return 0;
}

static void put_64(struct guest *g, unsigned at, uint64_t value) { memcpy(g->memory + at, &value, sizeof value); }

static void write_program(struct guest *g)
{
	static const uint8_t code[] = {
		0xb9, ROUNDS & 255, ROUNDS >> 8 & 255, ROUNDS >> 16, 0, /* mov ROUNDS, %ecx */
		0xff, 0xc9, 0x75, 0xfc,                                 /* dec %ecx; jnz back to it */
		0xb0, '1', 0xe6, 0x80,                                  /* mov '1', %al; out %al, 0x80 */
		0xbd, 0, AT_OPERAND >> 8, 0, 0,                         /* mov AT_OPERAND, %ebp */
		0xf0, 0x48, 0x0f, 0xc7, 0x4d, 0,                        /* lock cmpxchg16b (%rbp) */
		0xb0, '2', 0xe6, 0x80,
		0xcc,                                                   /* int3 */
		0xb0, '4', 0xe6, 0x80,
		0xf4,                                                   /* hlt */
	};
	static const uint8_t handler[] = { 0xb0, '3', 0xe6, 0x80, 0x48, 0xcf }; /* ...; iretq */

	memcpy(g->memory + AT_CODE, code, sizeof code);
	memcpy(g->memory + AT_HANDLER, handler, sizeof handler);
	put_64(g, AT_TABLES, (AT_TABLES + 0x1000) | 3);
	put_64(g, AT_TABLES + 0x1000, (AT_TABLES + 0x2000) | 3);
	put_64(g, AT_TABLES + 0x2000, 0x83); /* one page of 2 MiB */
	put_64(g, AT_GDT + 8, 0x00af9b000000ffff);
	put_64(g, AT_GDT + 16, 0x00cf93000000ffff);
	put_64(g, AT_IDT + 3 * 16, 0x00008e0000080000 | AT_HANDLER); /* gate of vector 3 in segment 8 */
}

static int set_registers(struct guest *g, struct err *e)
{
	const struct kvm_segment code = { .limit = 0xffffffff, .selector = 8, .type = 11, .present = 1, .s = 1, .l = 1,
					  .g = 1 };
	const struct kvm_segment data = { .limit = 0xffffffff, .selector = 16, .type = 3, .present = 1, .s = 1, .db = 1,
					  .g = 1 };
	const struct kvm_regs registers = { .rip = AT_CODE, .rsp = AT_STACK, .rflags = 2 };
	struct kvm_sregs s;

	if (ioctl(g->processor, KVM_GET_SREGS, &s) < 0)
		return failed("KVM tells no registers", e);
	s.cs = code;
	s.ds = s.es = s.fs = s.gs = s.ss = data;
	s.gdt.base = AT_GDT;
	s.gdt.limit = 3 * 8 - 1;
	s.idt.base = AT_IDT;
	s.idt.limit = 4 * 16 - 1;
	s.cr0 = 0x80050033; /* paging, protection, native floating-point errors */
	s.cr3 = AT_TABLES;
	s.cr4 = 0x20;   /* wide page tables */
	s.efer = 0x500; /* long mode, active */
	if (ioctl(g->processor, KVM_SET_SREGS, &s) < 0 || ioctl(g->processor, KVM_SET_REGS, &registers) < 0)
		return failed("KVM takes no registers", e);
	return 0;
}

static int make(struct guest *g, struct err *e)
{
	g->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (g->kvm < 0)
		return failed("/dev/kvm", e);
	if (ioctl(g->kvm, KVM_GET_API_VERSION, 0) != KVM_API_VERSION)
		return err_set(e, ERR_UNSUPPORTED, "/dev/kvm has another version than %d", KVM_API_VERSION);
	g->vm = ioctl(g->kvm, KVM_CREATE_VM, 0);
	if (g->vm < 0)
		return failed("KVM makes no machine", e);
	int r = make_memory(g, e);
	if (r >= 0)
		r = make_processor(g, e);
	if (r < 0)
		return r;
	write_program(g);
	return set_registers(g, e);
}

/* --- running it --- */

static uint64_t cpu_ms(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static volatile sig_atomic_t hangs;

static void note(int number)
{
	if (number == SIGALRM)
		hangs = 1;
}

static void set_limits(void)
{
	const struct sigaction interrupt = { .sa_handler = note };
	const struct itimerval limit = { { 0, AGAIN_US }, { 0, ALL_MS_MOST * 1000 } };
	const struct itimerval real = { { 0, AGAIN_US }, { ALL_S_MOST, 0 } };

	hangs = 0;
	(void)sigaction(SIGPROF, &interrupt, NULL);
	(void)sigaction(SIGALRM, &interrupt, NULL);
	(void)setitimer(ITIMER_PROF, &limit, NULL);
	(void)setitimer(ITIMER_REAL, &real, NULL);
}

static void unset_limits(void)
{
	(void)setitimer(ITIMER_PROF, &(struct itimerval){ 0 }, NULL);
	(void)setitimer(ITIMER_REAL, &(struct itimerval){ 0 }, NULL);
}

/* Why it ended; NULL: it halted. */
static char *why_ended(const struct kvm_run *run)
{
	switch (run->exit_reason) {
	case KVM_EXIT_HLT:
		return NULL;
	case KVM_EXIT_INTERNAL_ERROR:
		return mem_strdup("KVM cannot emulate an instruction");
	case KVM_EXIT_FAIL_ENTRY:
		return mem_printf("the processor refuses to enter it, reason %#llx",
				  (unsigned long long)run->fail_entry.hardware_entry_failure_reason);
	case KVM_EXIT_SHUTDOWN:
		return mem_strdup("it broke down as if by a triple fault");
	default:
		return mem_printf("KVM left it for reason %u", run->exit_reason);
	}
}

/* The same; *ret_slow: it, or its loop, took too much processor time. */
static char *run(struct guest *g, bool *ret_slow)
{
	size_t count = 0;
	uint64_t began = cpu_ms(), loop_ms = 0;

	for (;;) {
		if (ioctl(g->processor, KVM_RUN, 0) < 0) {
			*ret_slow = errno == EINTR && !hangs;
			return mem_strdup(errno != EINTR ? strerrordesc_np(errno) :
					  hangs		 ? "KVM did not come back from it" :
							   "it took too long");
		}
		if (g->run->exit_reason != KVM_EXIT_IO)
			break;
		if (count < strlen(MARKS))
			g->marks[count++] = ((char *)g->run)[g->run->io.data_offset];
		if (count == 1)
			loop_ms = cpu_ms() - began;
	}
	*ret_slow = loop_ms > LOOP_MS_MOST;
	return why_ended(g->run);
}

static int try_once(bool *ret_slow, struct err *e)
{
	static const char *const before[] = { "the first mark", "LOCK CMPXCHG16B", "INT3", "the return from INT3", "HLT" };
	own_guest struct guest g = { .kvm = -1, .vm = -1, .processor = -1 };
	int r = make(&g, e);

	if (r < 0)
		return r;
	set_limits();
	own_str char *why = run(&g, ret_slow);
	unset_limits();
	if (why || strcmp(g.marks, MARKS) != 0)
		return err_set(e, ERR_UNSUPPORTED, "KVM only pretends: a test program did not get past %s (%s)",
			       before[strlen(g.marks)], why ? why : "the marks are wrong");
	if (*ret_slow)
		return err_set(e, ERR_UNSUPPORTED, "KVM only interprets kernels: %d rounds of a loop took more than %d ms",
			       ROUNDS, LOOP_MS_MOST);
	return 0;
}

int kvm_probe(struct err *e)
{
	bool slow = true;
	int r = -1;

	for (int i = 0; i < TRIES && r < 0 && slow; i++) {
		slow = false;
		r = try_once(&slow, e);
	}
	return r;
}

#else

int kvm_probe(struct err *e) { return err_set(e, ERR_UNSUPPORTED, "whether KVM works is found out on x86_64 only"); }

#endif
