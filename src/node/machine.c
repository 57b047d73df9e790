/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. QEMU is asked once which machines it knows; the newest versioned q35 is taken, since an alias would mean
 * another machine after an upgrade. Kernel and initramfs are functions of the kernel partition and of carrel-init, named by digests, so
 * they are made once and stay right when either changes. A try that failed is made again: what was missing may be there now.
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
#include "base/hash.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/proc.h"
#include "base/str.h"
#include "store/erofs_reader.h"
#include "store/initramfs.h"

#define QEMU "/usr/bin/qemu-system-x86_64"
#define TYPE_PREFIX "pc-q35-"
#define KERNEL_MOST (64u << 20)

/* What Debian's QEMU opens: its libraries (and, among them, its own modules) and firmware. */
static const char *const places[] = { QEMU,		"/lib",		   "/lib64",	  "/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/etc/ld.so.cache",
				      "/usr/share/qemu", "/usr/share/seabios", "/usr/lib/ipxe", NULL };

struct machines {
	const struct node *node;
	pthread_mutex_t lock;
	bool ready;
	char *type, *kernel, *initramfs;
	struct stat source; /* kernel partition that the files were made from */
};

struct machines *machines_new(const struct node *n)
{
	struct machines *m = mem_alloc(sizeof *m);

	m->node = n;
	(void)pthread_mutex_init(&m->lock, NULL);
	return m;
}

static void forget(struct machines *m)
{
	free(m->type);
	free(m->kernel);
	free(m->initramfs);
	m->type = m->kernel = m->initramfs = NULL;
	m->ready = false;
}

void machines_free(struct machines *m)
{
	if (!m)
		return;
	forget(m);
	(void)pthread_mutex_destroy(&m->lock);
	free(m);
}

/* --- QEMU --- */

/* "pc-q35-7.2" out of the list; the highest version, compared as numbers. */
static char *newest_type(const char *list)
{
	unsigned best[2] = { 0, 0 };

	for (const char *at = list; (at = strstr(at, TYPE_PREFIX)); at++) {
		unsigned major = 0, minor = 0;
		if ((at == list || at[-1] == '\n') && sscanf(at, TYPE_PREFIX "%u.%u", &major, &minor) == 2 &&
		    (major > best[0] || (major == best[0] && minor > best[1]))) {
			best[0] = major;
			best[1] = minor;
		}
	}
	return best[0] ? mem_printf(TYPE_PREFIX "%u.%u", best[0], best[1]) : NULL;
}

static int ask_qemu(struct machines *m, struct err *e)
{
	static const char *const argv[] = { QEMU, "-machine", "help", NULL };
	own_strbuf struct str list = { 0 };

	if (access(QEMU, X_OK) < 0) {
		(void)err_set(e, ERR_UNSUPPORTED, "this host has no QEMU (" QEMU ")");
		return err_hint(e, "install qemu-system-x86");
	}
	int r = proc_run(argv, 65536, &list, e);
	if (r < 0)
		return r;
	m->type = newest_type(str_text(&list));
	return m->type ? 0 : err_set(e, ERR_UNSUPPORTED, QEMU " has no machine " TYPE_PREFIX "*");
}

/* --- the kernel's files --- */

static int extract_kernel(int partition, int folder, const char *name, struct err *e)
{
	own_erofs_reader struct erofs_reader *reader = NULL;
	struct erofs_inode inode;
	int r = erofs_open(partition, &reader, e);

	if (r < 0 || (r = erofs_find(reader, "vmlinuz", &inode, e)) < 0)
		return err_wrap(e, "the kernel partition");
	if (!S_ISREG(inode.mode) || inode.size_bytes > KERNEL_MOST)
		return err_set(e, ERR_CORRUPT, "the kernel partition's kernel is no file of a possible size");
	own_str char *bytes = mem_alloc(inode.size_bytes + 1);
	if ((r = erofs_read(reader, &inode, 0, bytes, inode.size_bytes, e)) < 0)
		return r;
	return fs_write_file(folder, name, bytes, inode.size_bytes, 0444, false, e);
}

static int make_files(struct machines *m, int partition, struct err *e)
{
	own_str char *folder = mem_printf("%s/node/machines", m->node->config.state);
	own_str char *init = mem_printf("%s/libexec/carrel/carrel-init", fs_prefix());
	char hex[DIGEST_HEX_SIZE], initramfs[INITRAMFS_NAME_SIZE];
	own_fd int folder_fd = -1, init_fd = open(init, O_RDONLY | O_CLOEXEC);
	struct digest d;

	if (init_fd < 0)
		return err_errno(e, errno, "open %s", init);
	int r = fs_mkdirs(folder, 0700, e);
	if (r < 0 || (r = fs_open_dir(AT_FDCWD, folder, &folder_fd, e)) < 0 || (r = hash_fd(partition, &d, e)) < 0)
		return r;
	own_str char *name = mem_printf("%s.vmlinuz", digest_hex(&d, hex));
	if (!fs_exists(folder_fd, name) && (r = extract_kernel(partition, folder_fd, name, e)) < 0)
		return r;
	if ((r = initramfs_get(folder_fd, &d, partition, init_fd, initramfs, e)) < 0)
		return r;
	m->kernel = mem_printf("%s/%s", folder, name);
	m->initramfs = mem_printf("%s/%s", folder, initramfs);
	return 0;
}

static int open_partition(const struct machines *m, int *ret_fd, struct stat *ret_st, struct err *e)
{
	own_str char *path = mem_printf("%s/node/kernel.erofs", m->node->config.state);
	own_fd int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 && errno == ENOENT) {
		(void)err_set(e, ERR_UNSUPPORTED, "this host has no kernel for machines (%s)", path);
		return err_hint(e, "apt-get download linux-image-cloud-amd64's package, then carrel-kernel build PACKAGE %s", path);
	}
	if (fd < 0 || fstat(fd, ret_st) < 0)
		return err_errno(e, errno, "open %s", path);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static int find(struct machines *m, struct err *e)
{
	own_fd int partition = -1;
	struct stat st;
	int r = open_partition(m, &partition, &st, e);

	if (r < 0)
		return r;
	if (m->ready && st.st_ino == m->source.st_ino && st.st_mtim.tv_sec == m->source.st_mtim.tv_sec && st.st_size == m->source.st_size)
		return 0;
	forget(m);
	if ((r = ask_qemu(m, e)) < 0 || (r = make_files(m, partition, e)) < 0)
		return r;
	m->source = st;
	m->ready = true;
	return 0;
}

int machines_host(struct machines *m, bool kvm, struct launch_machine *ret_host, struct err *e)
{
	long processors = sysconf(_SC_NPROCESSORS_ONLN);

	if (kvm) {
		(void)err_set(e, ERR_UNSUPPORTED, "this host has no KVM that is known to work");
		return err_hint(e, "use engine emulator");
	}
	(void)pthread_mutex_lock(&m->lock);
	int r = find(m, e);
	if (r >= 0)
		*ret_host = (struct launch_machine){ .program = QEMU, .type = m->type, .kernel = m->kernel, .initramfs = m->initramfs,
						     .places = places, .processors = processors > 0 ? (unsigned)processors : 1, .kvm = kvm,
						     .vhost = kvm && access("/dev/vhost-net", R_OK | W_OK) == 0 };
	(void)pthread_mutex_unlock(&m->lock);
	return r < 0 ? r : 0;
}
