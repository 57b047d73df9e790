/* SPDX-License-Identifier: Apache-2.0 */
/*
 * carrel-first PID: the first process of a program's workspace, beside the program (process PID, its child; 0: none). It reaps
 * whoever is left to it, hands signals on, and ends as the program does; without a program, on SIGTERM.
 *
 * It was executed inside the workspace, from a file that is mounted there, so nothing of it - file, memory, credentials -
 * belongs to the host: that is what lets the whole workspace be written to disk and read back (docs/decisions/0110). There is
 * one beside every program, so it brings no C library: two pages of its own, and no question to the processor about its
 * features, which a hypervisor answers slowly. All signals are blocked when it starts.
 */
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static long call(long number, long a, long b, long c, long d, long f)
{
#if defined(__x86_64__)
	long result;
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = f;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
			 : "rcx", "r11", "memory");
	return result;
#elif defined(__aarch64__)
	register long x8 __asm__("x8") = number;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = f;

	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
	return x0;
#elif defined(__riscv)
	register long a7 __asm__("a7") = number;
	register long a0 __asm__("a0") = a;
	register long a1 __asm__("a1") = b;
	register long a2 __asm__("a2") = c;
	register long a3 __asm__("a3") = d;
	register long a4 __asm__("a4") = f;

	__asm__ volatile("ecall" : "+r"(a0) : "r"(a7), "r"(a1), "r"(a2), "r"(a3), "r"(a4) : "memory");
	return a0;
#else
#error "how does this processor call the kernel?"
#endif
}

static void leave(int status) __attribute__((noreturn));
static void leave(int status)
{
	for (;;)
		(void)call(SYS_exit_group, status, 0, 0, 0, 0);
}

static void reap(int program)
{
	siginfo_t info;

	for (;;) {
		info.si_pid = 0;
		if (call(SYS_waitid, P_ALL, 0, (long)&info, WEXITED | WNOHANG, 0) != 0 || info.si_pid == 0)
			return;
		if (info.si_pid == program)
			leave(info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status);
	}
}

static int number_of(const char *text)
{
	int n = 0;

	while (*text >= '0' && *text <= '9')
		n = n * 10 + (*text++ - '0');
	return n;
}

/* The stack as execve(2) leaves it: the count of arguments, then pointers to them. */
void first(const long *stack) __attribute__((noreturn, used));
void first(const long *stack)
{
	int program = stack[0] > 1 ? number_of((const char *)stack[2]) : 0;
	unsigned long all = ~0ul;

	for (;;) {
		reap(program);
		long number = call(SYS_rt_sigtimedwait, (long)&all, 0, 0, sizeof all, 0);
		if (number <= 0 || number == SIGCHLD)
			continue;
		if (program)
			(void)call(SYS_kill, program, number, 0, 0, 0);
		else if (number == SIGTERM)
			leave(0);
	}
}

#if defined(__x86_64__)
__asm__(".globl _start\n_start:\n\txor %ebp, %ebp\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall first\n");
#elif defined(__aarch64__)
__asm__(".globl _start\n_start:\n\tmov x29, #0\n\tmov x0, sp\n\tbl first\n");
#elif defined(__riscv)
__asm__(".globl _start\n_start:\n\tmv a0, sp\n\tcall first\n");
#endif
