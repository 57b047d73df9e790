/* SPDX-License-Identifier: Apache-2.0 */
/* The probe of KVM on hosts whose KVM refuses, hangs, interprets or works: their answers to open() and ioctl() are made up here. */
#include "../test.h"

#include <errno.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "engine/qemu/kvm_probe.h"

enum { BURN = 1, HANG, BURN_90_MS }; /* what the processor does in place of a step */

static struct {
	int open_error, machine_error, run_error; /* errno, or 0 */
	const char *marks;                        /* what the program writes before it ends */
	unsigned exit_reason;
	int does, times; /* before its first mark, in so many tries */
	int deaf;        /* signals that fall between two calls */
	/* seen */
	int tries;
	size_t at;
	struct kvm_run *run;
	volatile sig_atomic_t rang;
} host;

static void (*handlers[NSIG])(int);

int __wrap_open(const char *path, int flags, ...);
int __wrap_open64(const char *path, int flags, ...);
int __wrap_ioctl(int fd, unsigned long request, ...);
int __wrap_sigaction(int number, const struct sigaction *act, struct sigaction *old);
int __wrap_setitimer(__itimer_which_t which, const struct itimerval *timer, struct itimerval *old);
int __real_sigaction(int number, const struct sigaction *act, struct sigaction *old);
int __real_setitimer(__itimer_which_t which, const struct itimerval *timer, struct itimerval *old);

static int some_file(void)
{
	int fd = memfd_create("kvm", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, 65536), 0);
	return fd;
}

static int result(int error)
{
	errno = error;
	return error ? -1 : 0;
}

int __wrap_open64(const char *path, int flags, ...)
{
	(void)flags;
	assert_string_equal(path, "/dev/kvm");
	return host.open_error ? result(host.open_error) : some_file();
}

int __wrap_open(const char *path, int flags, ...) { return __wrap_open64(path, flags); }

static void ring(int number)
{
	host.rang = 1;
	handlers[number](number);
}

int __wrap_sigaction(int number, const struct sigaction *act, struct sigaction *old)
{
	struct sigaction own = *act;

	handlers[number] = act->sa_handler;
	own.sa_handler = ring;
	return __real_sigaction(number, &own, old);
}

/* For what hangs, ten seconds are a tenth of one; what burns processor time has all that a busy host needs. */
int __wrap_setitimer(__itimer_which_t which, const struct itimerval *timer, struct itimerval *old)
{
	struct itimerval t = *timer;

	if (which == ITIMER_REAL && t.it_value.tv_sec)
		t.it_value = host.does == HANG ? (struct timeval){ 0, 100000 } : (struct timeval){ 600, 0 };
	return __real_setitimer(which, &t, old);
}

static long cpu_ms(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* True: a signal ended it. */
static bool misbehave(void)
{
	long began = cpu_ms();

	for (;;) {
		if (host.rang && host.deaf-- <= 0)
			return true;
		host.rang = 0;
		while (!host.rang)
			if (host.does == HANG)
				(void)pause(); /* a signal between is followed by others */
			else if (host.does == BURN_90_MS && cpu_ms() - began > 90)
				return false;
	}
}

static int run(void)
{
	if (host.at == 0) {
		host.tries++;
		host.rang = 0;
		if (host.run_error)
			return result(host.run_error);
		if (host.does && host.times-- > 0 && misbehave())
			return result(EINTR);
	}
	char mark = host.marks[host.at];
	host.run->exit_reason = mark ? KVM_EXIT_IO : host.exit_reason;
	host.run->io.data_offset = 4096;
	((char *)host.run)[4096] = mark;
	host.at = mark ? host.at + 1 : 0;
	return 0;
}

int __wrap_ioctl(int fd, unsigned long request, ...)
{
	(void)fd;
	switch (request) {
	case KVM_GET_API_VERSION:
		return KVM_API_VERSION;
	case KVM_CREATE_VM:
		return host.machine_error ? result(host.machine_error) : some_file();
	case KVM_GET_VCPU_MMAP_SIZE:
		return 65536;
	case KVM_CREATE_VCPU: {
		int file = some_file();
		if (host.run)
			(void)munmap(host.run, 65536);
		host.run = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
		assert_true(host.run != MAP_FAILED);
		return file;
	}
	case KVM_RUN:
		return run();
	default: /* it takes what it is told */
		return 0;
	}
}

#define HOST(...)                                                                                                              \
	do {                                                                                                                   \
		if (host.run)                                                                                                  \
			(void)munmap(host.run, 65536);                                                                         \
		memset(&host, 0, sizeof host);                                                                                 \
		host.marks = "1234";                                                                                           \
		host.exit_reason = KVM_EXIT_HLT;                                                                               \
		__VA_ARGS__;                                                                                                   \
	} while (0)

static void it_works(void **state)
{
	(void)state;
	struct err e;
	HOST();
	assert_ok(kvm_probe(&e), &e);
	assert_int_equal(host.tries, 1);
}

static void it_is_not_to_be_had(void **state)
{
	(void)state;
	struct err e;
	HOST(host.open_error = EACCES);
	assert_fails(kvm_probe(&e), &e, ERR_UNSUPPORTED, "/dev/kvm: Permission denied");
	HOST(host.machine_error = EBUSY);
	assert_fails(kvm_probe(&e), &e, ERR_UNSUPPORTED, "KVM makes no machine: Device or resource busy");
}

static void it_opens_and_does_not_run(void **state)
{
	(void)state;
	struct err e;
	HOST(host.run_error = EFAULT);
	assert_fails(kvm_probe(&e), &e, ERR_UNSUPPORTED, "did not get past the first mark (Bad address)");
	HOST(host.marks = ""; host.exit_reason = KVM_EXIT_FAIL_ENTRY);
	assert_fails(kvm_probe(&e), &e, ERR_UNSUPPORTED, "the first mark (the processor refuses to enter it, reason 0");
	HOST(host.marks = "12"; host.exit_reason = KVM_EXIT_SHUTDOWN);
	assert_fails(kvm_probe(&e), &e, ERR_UNSUPPORTED, "INT3 (it broke down as if by a triple fault)");
	HOST(host.marks = "1"; host.exit_reason = KVM_EXIT_INTERNAL_ERROR);
	assert_fails(kvm_probe(&e), &e, ERR_UNSUPPORTED, "LOCK CMPXCHG16B (KVM cannot emulate an instruction)");
	HOST(host.marks = "1243");
	assert_fails(kvm_probe(&e), &e, ERR_UNSUPPORTED, "the marks are wrong");
	assert_int_equal(host.tries, 1);
}

static void it_hangs(void **state)
{
	(void)state;
	struct err e;
	HOST(host.does = HANG; host.times = 9);
	assert_fails(kvm_probe(&e), &e, ERR_UNSUPPORTED, "the first mark (KVM did not come back from it)");
	assert_int_equal(host.tries, 1);
	HOST(host.does = HANG; host.times = 9; host.deaf = 2);
	assert_fails(kvm_probe(&e), &e, ERR_UNSUPPORTED, "KVM did not come back from it");
}

static void what_is_slow_is_tried_again(void **state)
{
	(void)state;
	struct err e;
	HOST(host.does = BURN; host.times = 9);
	assert_fails(kvm_probe(&e), &e, ERR_UNSUPPORTED, "the first mark (it took too long)");
	assert_int_equal(host.tries, 4);
	HOST(host.does = BURN; host.times = 2);
	assert_ok(kvm_probe(&e), &e);
	assert_int_equal(host.tries, 3);
	HOST(host.does = BURN_90_MS; host.times = 9);
	assert_fails(kvm_probe(&e), &e, ERR_UNSUPPORTED, "KVM only interprets kernels: 100000 rounds of a loop took more than 80 ms");
	assert_int_equal(host.tries, 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(it_works), cmocka_unit_test(it_is_not_to_be_had),
					    cmocka_unit_test(it_opens_and_does_not_run), cmocka_unit_test(it_hangs),
					    cmocka_unit_test(what_is_slow_is_tried_again) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
