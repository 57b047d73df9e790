/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The seccomp filter. The user namespace already refuses what a workspace may not do; the filter takes away kernel code that
 * has let people through such walls before, and calls that namespaces do not cover at all. It is a list of refusals, each with
 * its reason: programs meet EPERM, or ENOSYS where they are known to have another way (docs/decisions/0022).
 */
#include "engine/workspace/request.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <seccomp.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"

enum who { EVERYBODY, PROGRAMS };

static const struct refusal {
	const char *call;
	enum who who;
	int number;
} refusals[] = {
	/* the kernel itself: images, modules, its memory, hardware */
	{ "kexec_load", EVERYBODY, EPERM },
	{ "kexec_file_load", EVERYBODY, EPERM },
	{ "init_module", EVERYBODY, EPERM },
	{ "finit_module", EVERYBODY, EPERM },
	{ "delete_module", EVERYBODY, EPERM },
	{ "create_module", EVERYBODY, EPERM },
	{ "query_module", EVERYBODY, EPERM },
	{ "get_kernel_syms", EVERYBODY, EPERM },
	{ "iopl", EVERYBODY, EPERM },
	{ "ioperm", EVERYBODY, EPERM },
	{ "acct", EVERYBODY, EPERM },
	{ "swapon", EVERYBODY, EPERM },
	{ "swapoff", EVERYBODY, EPERM },
	{ "quotactl", EVERYBODY, EPERM },
	{ "quotactl_fd", EVERYBODY, EPERM },
	{ "syslog", EVERYBODY, EPERM },
	/* clocks are not in a namespace */
	{ "settimeofday", EVERYBODY, EPERM },
	{ "stime", EVERYBODY, EPERM },
	{ "clock_settime", EVERYBODY, EPERM },
	/* wide open to kernel bugs, and of use to those who debug a whole host */
	{ "bpf", EVERYBODY, EPERM },
	{ "perf_event_open", EVERYBODY, EPERM },
	{ "userfaultfd", EVERYBODY, EPERM },
	{ "lookup_dcookie", EVERYBODY, EPERM },
	{ "nfsservctl", EVERYBODY, EPERM },
	{ "vm86", EVERYBODY, EPERM },
	{ "vm86old", EVERYBODY, EPERM },
	{ "uselib", EVERYBODY, EPERM },
	{ "_sysctl", EVERYBODY, EPERM },
	{ "sysfs", EVERYBODY, EPERM },
	{ "ustat", EVERYBODY, EPERM },
	/* opens files by inode, past any mount */
	{ "open_by_handle_at", EVERYBODY, EPERM },
	/* its operations are not seen by this filter */
	{ "io_uring_setup", EVERYBODY, ENOSYS },
	{ "io_uring_enter", EVERYBODY, ENOSYS },
	{ "io_uring_register", EVERYBODY, ENOSYS },
	/* keys are counted by user id, which a program shares with nobody, but the code is large */
	{ "add_key", PROGRAMS, EPERM },
	{ "request_key", PROGRAMS, EPERM },
	{ "keyctl", PROGRAMS, EPERM },
	/* an init does these; a program that can make namespaces reaches the kernel's mount and network code as root */
	{ "mount", PROGRAMS, EPERM },
	{ "umount", PROGRAMS, EPERM },
	{ "umount2", PROGRAMS, EPERM },
	{ "pivot_root", PROGRAMS, EPERM },
	{ "open_tree", PROGRAMS, EPERM },
	{ "move_mount", PROGRAMS, EPERM },
	{ "fsopen", PROGRAMS, EPERM },
	{ "fsconfig", PROGRAMS, EPERM },
	{ "fsmount", PROGRAMS, EPERM },
	{ "fspick", PROGRAMS, EPERM },
	{ "mount_setattr", PROGRAMS, EPERM },
	{ "setns", PROGRAMS, EPERM },
	{ "unshare", PROGRAMS, EPERM },
	{ "reboot", PROGRAMS, EPERM },
	/* its flags are behind a pointer; C libraries fall back to clone */
	{ "clone3", PROGRAMS, ENOSYS },
};

#define NEW_NAMESPACES                                                                                                         \
	(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP)

static int refuse(scmp_filter_ctx filter, const struct refusal *row)
{
	int call = seccomp_syscall_resolve_name(row->call);

	if (call == __NR_SCMP_ERROR) /* younger than the library */
		return 0;
	int r = seccomp_rule_add(filter, SCMP_ACT_ERRNO((uint32_t)row->number), call, 0);
	return r == -EDOM || r == -EINVAL ? 0 : r; /* not a call of this processor */
}

static int add_rules(scmp_filter_ctx filter, bool system)
{
	for (size_t i = 0; i < ARRAY_SIZE(refusals); i++) {
		int r = refusals[i].who == PROGRAMS && system ? 0 : refuse(filter, &refusals[i]);
		if (r < 0)
			return r;
	}
	/* Types keys into the terminal it was started from. The kernel looks at the low half of the number only. */
	int r = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(ioctl), 1,
				 SCMP_A1(SCMP_CMP_MASKED_EQ, 0xffffffffu, TIOCSTI));
	if (r < 0 || system)
		return r;
	for (int bit = 0; bit < 32; bit++) {
		uint64_t flag = UINT64_C(1) << bit;
		if (!(flag & NEW_NAMESPACES))
			continue;
		r = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(clone), 1,
				     SCMP_A0(SCMP_CMP_MASKED_EQ, flag, flag));
		if (r < 0)
			return r;
	}
	return 0;
}

static int compile(bool system, struct str *ret_program, struct err *e)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
	if (!filter)
		return err_set(e, ERR_INTERNAL, "libseccomp gave no filter");
	own_fd int fd = memfd_create("carrel-filter", MFD_CLOEXEC);
	int r = fd < 0 ? -errno : 0;
	/* A foreign call convention must not be a way around: those we know get the same rules, others are refused. */
	if (r >= 0 && seccomp_arch_native() == SCMP_ARCH_X86_64)
		r = seccomp_arch_add(filter, SCMP_ARCH_X86);
	if (r >= 0)
		r = seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_ERRNO(ENOSYS));
	if (r >= 0)
		r = seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	if (r >= 0)
		r = add_rules(filter, system);
	if (r >= 0)
		r = seccomp_export_bpf(filter, fd);
	seccomp_release(filter);
	if (r < 0)
		return err_errno(e, -r, "make seccomp filter");
	if (lseek(fd, 0, SEEK_SET) < 0)
		return err_errno(e, errno, "read seccomp filter");
	return fs_read_fd(fd, 1 << 20, ret_program, e);
}

int filter_program(bool system, const void **ret_filter, size_t *ret_bytes, struct err *e)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static struct str cache[2];
	struct str *program = &cache[system];
	int r = 0;

	(void)pthread_mutex_lock(&lock);
	if (!program->length)
		r = compile(system, program, e);
	(void)pthread_mutex_unlock(&lock);
	if (r < 0)
		return r;
	*ret_filter = program->bytes;
	*ret_bytes = program->length;
	return 0;
}
