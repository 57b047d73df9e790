/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Device rules on cgroup v2 are a small BPF program (Documentation/admin-guide/cgroup-v2.rst, "Device controller"). The context
 * is struct bpf_cgroup_dev_ctx { access_type: access << 16 | type, major, minor }. For each rule: if type and numbers match and
 * no access is asked for that the rule lacks, return 1. In the end return 0.
 */
#include "enforce/enforce.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/own.h"

enum { RULES_MOST = 32, INSTRUCTIONS_PER_RULE = 8, INSTRUCTIONS_MOST = 6 + RULES_MOST * INSTRUCTIONS_PER_RULE + 2 };

static struct bpf_insn op(int code, int target, int source, int offset, int value)
{
	return (struct bpf_insn){ .code = (uint8_t)code, .dst_reg = target & 15, .src_reg = source & 15, .off = (int16_t)offset,
				  .imm = value };
}

static int access_bits(const char *access)
{
	return (strchr(access, 'm') ? BPF_DEVCG_ACC_MKNOD : 0) | (strchr(access, 'r') ? BPF_DEVCG_ACC_READ : 0) |
	       (strchr(access, 'w') ? BPF_DEVCG_ACC_WRITE : 0);
}

/* r2 type, r3 access, r4 major, r5 minor. */
static size_t add_rule(struct bpf_insn *out, const struct enforce_device *d)
{
	size_t n = 0, last = d->minor < 0 ? 7 : 8;

	out[n] = op(BPF_JMP | BPF_JNE | BPF_K, 2, 0, (int)(last - n - 1),
		    d->type == 'b' ? BPF_DEVCG_DEV_BLOCK : BPF_DEVCG_DEV_CHAR);
	n++;
	out[n++] = op(BPF_ALU | BPF_MOV | BPF_X, 1, 3, 0, 0);
	out[n++] = op(BPF_ALU | BPF_AND | BPF_K, 1, 0, 0, ~access_bits(d->access));
	out[n] = op(BPF_JMP | BPF_JNE | BPF_K, 1, 0, (int)(last - n - 1), 0);
	n++;
	out[n] = op(BPF_JMP | BPF_JNE | BPF_K, 4, 0, (int)(last - n - 1), d->major);
	n++;
	if (d->minor >= 0) {
		out[n] = op(BPF_JMP | BPF_JNE | BPF_K, 5, 0, (int)(last - n - 1), d->minor);
		n++;
	}
	out[n++] = op(BPF_ALU | BPF_MOV | BPF_K, 0, 0, 0, 1);
	out[n++] = op(BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
	return n;
}

static size_t make_program(struct bpf_insn *out, bool kvm)
{
	size_t n = 0;

	out[n++] = op(BPF_LDX | BPF_W | BPF_MEM, 2, 1, offsetof(struct bpf_cgroup_dev_ctx, access_type), 0);
	out[n++] = op(BPF_ALU | BPF_MOV | BPF_X, 3, 2, 0, 0);
	out[n++] = op(BPF_ALU | BPF_AND | BPF_K, 2, 0, 0, 0xffff);
	out[n++] = op(BPF_ALU | BPF_RSH | BPF_K, 3, 0, 0, 16);
	out[n++] = op(BPF_LDX | BPF_W | BPF_MEM, 4, 1, offsetof(struct bpf_cgroup_dev_ctx, major), 0);
	out[n++] = op(BPF_LDX | BPF_W | BPF_MEM, 5, 1, offsetof(struct bpf_cgroup_dev_ctx, minor), 0);
	for (const struct enforce_device *d = enforce_devices; d->type; d++)
		n += add_rule(out + n, d);
	if (kvm)
		n += add_rule(out + n, &enforce_kvm);
	out[n++] = op(BPF_ALU | BPF_MOV | BPF_K, 0, 0, 0, 0);
	out[n++] = op(BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
	return n;
}

int enforce_devices_attach(const char *group, bool kvm, struct err *e)
{
	struct bpf_insn program[INSTRUCTIONS_MOST];
	own_fd int folder = open(group, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	union bpf_attr load = { .prog_type = BPF_PROG_TYPE_CGROUP_DEVICE, .insns = (uintptr_t)program,
				.insn_cnt = (uint32_t)make_program(program, kvm), .license = (uintptr_t) "Apache-2.0" };

	if (folder < 0)
		return err_errno(e, errno, "open group %s", group);
	own_fd int fd = (int)syscall(SYS_bpf, BPF_PROG_LOAD, &load, sizeof load);
	if (fd < 0)
		return err_errno(e, errno, "load the device rules");
	union bpf_attr attach = { .target_fd = (uint32_t)folder, .attach_bpf_fd = (uint32_t)fd,
				  .attach_type = BPF_CGROUP_DEVICE };
	if (syscall(SYS_bpf, BPF_PROG_ATTACH, &attach, sizeof attach) < 0)
		return err_errno(e, errno, "attach the device rules to %s", group);
	return 0;
}
