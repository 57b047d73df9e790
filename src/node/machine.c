/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. Each QEMU is asked once which boards it knows; the newest version is taken, since an alias would mean
 * another machine after an upgrade. Kernel and initramfs are functions of the kernel partition and of carrel-init, named by
 * digests, so they are made once and stay right when either changes. A try that failed is made again: what was missing may be
 * there now.
 */
#include "node/machine.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/proc.h"
#include "base/str.h"
#include "node/kvm.h"
#include "node/processor.h"
#include "store/erofs_reader.h"
#include "store/initramfs.h"

#define KERNEL_MOST (256u << 20)
#define BOARDS_MOST 8

struct kernel_files {
	struct digest partition;
	char *kernel, *unpacked, *initramfs; /* unpacked: NULL when the partition has none */
	struct kernel_files *next;
};

/* A processor that machines have been given. */
struct given {
	char *wish;
	const struct machine_board *board;
	bool kvm;
	struct processor processor;
	struct texts bound; /* what its memory needs */
	struct given *next;
};

struct machines {
	const struct node *node;
	pthread_mutex_t lock;
	char *types[BOARDS_MOST]; /* as machine_boards */
	struct kernel_files *kernels;
	struct given *given;
};

struct machines *machines_new(const struct node *n)
{
	struct machines *m = mem_alloc(sizeof *m);

	m->node = n;
	(void)pthread_mutex_init(&m->lock, NULL);
	return m;
}

void machines_free(struct machines *m)
{
	if (!m)
		return;
	for (size_t i = 0; i < BOARDS_MOST; i++)
		free(m->types[i]);
	for (struct kernel_files *k = m->kernels, *next; k; k = next) {
		next = k->next;
		free(k->kernel);
		free(k->unpacked);
		free(k->initramfs);
		free(k);
	}
	for (struct given *g = m->given, *next; g; g = next) {
		next = g->next;
		free(g->wish);
		processor_done(&g->processor);
		texts_done(&g->bound);
		free(g);
	}
	(void)pthread_mutex_destroy(&m->lock);
	free(m);
}

/* --- QEMU --- */

/* "pc-q35-7.2" out of the list; the highest version, compared as numbers. */
static char *newest_type(const char *list, const char *prefix)
{
	unsigned best[2] = { 0, 0 };

	for (const char *at = list; (at = strstr(at, prefix)); at++) {
		unsigned major = 0, minor = 0;
		if ((at == list || at[-1] == '\n') && sscanf(at + strlen(prefix), "%u.%u", &major, &minor) == 2 &&
		    (major > best[0] || (major == best[0] && minor > best[1]))) {
			best[0] = major;
			best[1] = minor;
		}
	}
	return best[0] ? mem_printf("%s%u.%u", prefix, best[0], best[1]) : NULL;
}

int machines_check(const struct machine_board *board, struct err *e)
{
	if (access(board->program, X_OK) < 0) {
		(void)err_set(e, ERR_UNSUPPORTED, "this host has no QEMU for %s (%s)", board->machine, board->program);
		return err_hint(e, "install %s", board->package);
	}
	if (board->firmware && access(board->firmware, R_OK) < 0) {
		(void)err_set(e, ERR_UNSUPPORTED, "this host has no firmware for machines of %s (%s)", board->machine,
			      board->firmware);
		return err_hint(e, "install %s", board->firmware_package);
	}
	return 0;
}

static int ask_qemu(const struct machine_board *board, char **ret_type, struct err *e)
{
	const char *const argv[] = { board->program, "-machine", "help", NULL };
	own_strbuf struct str list = { 0 };
	int r = machines_check(board, e);

	if (r < 0)
		return r;
	if (board->type) {
		*ret_type = mem_strdup(board->type);
		return 0;
	}
	if ((r = proc_run(argv, 65536, &list, e)) < 0)
		return r;
	*ret_type = newest_type(str_text(&list), board->type_prefix);
	return *ret_type ? 0 : err_set(e, ERR_UNSUPPORTED, "%s has no machine %s*", board->program, board->type_prefix);
}

static int find_type(struct machines *m, const struct machine_board *board, const char **ret_type, struct err *e)
{
	char **type = &m->types[board - machine_boards];
	int r = *type ? 0 : ask_qemu(board, type, e);

	*ret_type = *type;
	return r;
}

/* The pool is this host: others' facts will stand beside its own. */
static int find_processor(struct machines *m, const struct machine_board *board, const struct machine_wanted *wanted,
			  const struct given **ret_given, struct err *e)
{
	const struct processor_host *here = processor_here();
	const char *wish = wanted->cpu ? wanted->cpu : PROCESSOR_BASELINE;
	struct processor p = { 0 };

	for (*ret_given = m->given; *ret_given; *ret_given = (*ret_given)->next)
		if ((*ret_given)->board == board && (*ret_given)->kvm == wanted->kvm && str_eq((*ret_given)->wish, wish))
			return 0;
	int r = processor_choose(board->architecture, wish, wanted->kvm, here, board == machine_board_here(), &p, e);
	if (r < 0)
		return r;
	struct given *g = mem_alloc(sizeof *g);
	*g = (struct given){ .wish = mem_strdup(wish), .board = board, .kvm = wanted->kvm, .processor = p, .next = m->given };
	if (wanted->kvm)
		processor_bind(&p, here, &g->bound);
	*ret_given = m->given = g;
	return 0;
}

/* --- the kernel's files --- */

/* 1: it is there as `name` of the folder; 0: the partition has none. */
static int extract(struct erofs_reader *reader, const char *path, int folder, const char *name, struct err *e)
{
	struct erofs_inode inode;
	int r = fs_exists(folder, name) ? 1 : 0;

	if (r || (r = erofs_find(reader, path, &inode, e)) < 0)
		return r < 0 && e->kind == ERR_NOT_FOUND ? 0 : r;
	if (!S_ISREG(inode.mode) || inode.size_bytes > KERNEL_MOST)
		return err_set(e, ERR_CORRUPT, "the kernel partition's %s is no file of a possible size", path);
	own_str char *bytes = mem_alloc(inode.size_bytes + 1);
	if ((r = erofs_read(reader, &inode, 0, bytes, inode.size_bytes, e)) < 0)
		return r;
	r = fs_write_file(folder, name, bytes, inode.size_bytes, 0444, false, e);
	return r < 0 ? r : 1;
}

static int extract_kernels(const struct digest *partition, int fd, const char *folder, int folder_fd, struct kernel_files *k,
			   struct err *e)
{
	own_erofs_reader struct erofs_reader *reader = NULL;
	char hex[DIGEST_HEX_SIZE];
	own_str char *packed = mem_printf("%s.vmlinuz", digest_hex(partition, hex)), *unpacked = mem_printf("%s.vmlinux", hex);
	int r = erofs_open(fd, &reader, e);

	if (r < 0 || (r = extract(reader, "vmlinuz", folder_fd, packed, e)) < 0)
		return err_wrap(e, "the kernel partition");
	if (r == 0)
		return err_set(e, ERR_CORRUPT, "the kernel partition has no kernel");
	if ((r = extract(reader, "vmlinux", folder_fd, unpacked, e)) < 0)
		return err_wrap(e, "the kernel partition");
	k->kernel = mem_printf("%s/%s", folder, packed);
	k->unpacked = r > 0 ? mem_printf("%s/%s", folder, unpacked) : NULL;
	return 0;
}

static int open_init(const struct machine_board *board, int *ret_fd, struct err *e)
{
	bool native = board == machine_board_here();
	own_str char *path = mem_printf("%s/libexec/carrel/carrel-init%s%s", fs_prefix(), native ? "" : "-",
					native ? "" : board->architecture);

	*ret_fd = open(path, O_RDONLY | O_CLOEXEC);
	if (*ret_fd >= 0)
		return 0;
	if (errno != ENOENT || native)
		return err_errno(e, errno, "open %s", path);
	(void)err_set(e, ERR_UNSUPPORTED, "this installation was built without the first process of machines of %s (%s)",
		      board->machine, path);
	return err_hint(e, "build Carrel where the cross compiler for %s is installed: docs/guide/machines.md", board->machine);
}

static int make_files(struct machines *m, const struct machine_board *board, const struct machine_wanted *wanted,
		      struct kernel_files *k, struct err *e)
{
	own_str char *folder = mem_printf("%s/node/machines", m->node->config.state);
	char initramfs[INITRAMFS_NAME_SIZE];
	own_fd int folder_fd = -1, init_fd = -1;
	int r = open_init(board, &init_fd, e);

	if (r < 0 || (r = fs_mkdirs(folder, 0700, e)) < 0 || (r = fs_open_dir(AT_FDCWD, folder, &folder_fd, e)) < 0)
		return r;
	if ((r = initramfs_get(folder_fd, wanted->kernel, wanted->kernel_fd, init_fd, initramfs, e)) < 0 ||
	    (r = extract_kernels(wanted->kernel, wanted->kernel_fd, folder, folder_fd, k, e)) < 0)
		return r;
	k->initramfs = mem_printf("%s/%s", folder, initramfs);
	return 0;
}

static int find_kernel(struct machines *m, const struct machine_board *board, const struct machine_wanted *wanted,
		       const struct kernel_files **ret_files, struct err *e)
{
	static char kernel[] = "KERNEL", initramfs[] = "INITRAMFS";
	static const struct kernel_files planned = { .kernel = kernel, .initramfs = initramfs };
	struct kernel_files made = { 0 };

	static const struct kernel_files none;

	*ret_files = wanted->kernel ? &planned : &none;
	if (!wanted->kernel)
		return 0;
	for (struct kernel_files *k = m->kernels; k; k = k->next)
		if (digest_eq(&k->partition, wanted->kernel)) {
			*ret_files = k;
			return 0;
		}
	if (wanted->kernel_fd < 0)
		return 0;
	int r = make_files(m, board, wanted, &made, e);
	if (r < 0)
		return r;
	made.partition = *wanted->kernel;
	made.next = m->kernels;
	m->kernels = mem_dup(&made, sizeof made);
	*ret_files = m->kernels;
	return 0;
}

unsigned machines_processors(void)
{
	long processors = sysconf(_SC_NPROCESSORS_ONLN);
	return processors > 0 ? (unsigned)processors : 1;
}

int machines_host(struct machines *m, const struct machine_wanted *wanted, struct launch_machine *ret_host, struct err *e)
{
	const struct machine_board *board = machine_board(wanted->architecture);
	const struct kernel_files *files;
	const struct given *given = NULL;
	const char *type;
	int r;

	if (!board)
		return err_set(e, ERR_UNSUPPORTED, "no engine builds machines of the processor %s", wanted->architecture);
	if (wanted->kvm && board != machine_board_here())
		return err_set(e, ERR_UNSUPPORTED, "KVM runs machines of this host's processor only, not %s", board->machine);
	if (wanted->kvm && (r = kvm_check(m->node, e)) < 0)
		return r;
	(void)pthread_mutex_lock(&m->lock);
	r = find_type(m, board, &type, e);
	if (r >= 0)
		r = find_kernel(m, board, wanted, &files, e);
	if (r >= 0)
		r = find_processor(m, board, wanted, &given, e);
	if (r >= 0)
		*ret_host = (struct launch_machine){ .board = board,
						     .type = type,
						     .processor = given->processor.model,
						     .features = &given->bound,
						     .kernel = !wanted->kvm && files->unpacked ? files->unpacked
											       : files->kernel,
						     .initramfs = files->initramfs,
						     .processors = machines_processors(),
						     .kvm = wanted->kvm,
						     .boot_ms = m->node->config.boot_ms,
						     .vhost = wanted->kvm && access("/dev/vhost-net", R_OK | W_OK) == 0 };
	(void)pthread_mutex_unlock(&m->lock);
	return r < 0 ? r : 0;
}
