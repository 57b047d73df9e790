/* SPDX-License-Identifier: Apache-2.0 */
#include "../test.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/proc.h"
#include "base/str.h"
#include "store/erofs_writer.h"
#include "store/initramfs.h"
#include "store/kernel.h"
#include "store/kernel_index.h"

static struct err e;

/* An ELF file of three sections: none, names, .modinfo. */
static void make_module(struct str *out, const char *info, size_t length)
{
	static const char names[] = "\0.shstrtab\0.modinfo";
	Elf64_Ehdr head = { .e_shoff = sizeof head, .e_shentsize = sizeof(Elf64_Shdr), .e_shnum = 3, .e_shstrndx = 1 };
	uint64_t at = sizeof head + 3 * sizeof(Elf64_Shdr);
	Elf64_Shdr sections[3] = {
		{ 0 },
		{ .sh_name = 1, .sh_type = SHT_STRTAB, .sh_offset = at, .sh_size = sizeof names },
		{ .sh_name = 11, .sh_type = SHT_PROGBITS, .sh_offset = at + sizeof names, .sh_size = length }
	};

	memcpy(head.e_ident, ELFMAG, SELFMAG);
	head.e_ident[EI_CLASS] = ELFCLASS64;
	head.e_ident[EI_DATA] = ELFDATA2LSB;
	str_add(out, &head, sizeof head);
	str_add(out, sections, sizeof sections);
	str_add(out, names, sizeof names);
	str_add(out, info, length);
}

static void depends_of_a_module(void **state)
{
	(void)state;
	static const char info[] = "license=GPL\0depends=virtio,virtio-ring\0name=virtio_blk";
	own_strbuf struct str module = { 0 };
	char *depends;

	make_module(&module, info, sizeof info);
	assert_int_equal(kernel_module_depends(module.bytes, module.length, &depends, &e), 0);
	assert_string_equal(depends, "virtio,virtio-ring");
	free(depends);
	for (size_t n = 0; n < module.length; n++) /* cut anywhere */
		if (kernel_module_depends(module.bytes, n, &depends, &e) == 0)
			free(depends);
	for (size_t i = 0; i < module.length; i++) { /* and damaged anywhere */
		module.bytes[i] = (char)~module.bytes[i];
		if (kernel_module_depends(module.bytes, module.length, &depends, &e) == 0)
			free(depends);
		module.bytes[i] = (char)~module.bytes[i];
	}
}

static void signature_goes(void **state)
{
	(void)state;
	static const char signed_module[] = "MODULEsig\0\0\0\0\0\0\0\0\0\0\0\3~Module signature appended~\n";
	static const char lies[] = "MODULEsig\0\0\0\0\0\0\0\0\1\0\0\3~Module signature appended~\n";

	assert_int_equal(kernel_module_unsigned_length(signed_module, sizeof signed_module - 1), 6);
	assert_int_equal(kernel_module_unsigned_length(lies, sizeof lies - 1), sizeof lies - 1);
	assert_int_equal(kernel_module_unsigned_length("MODULE", 6), 6);
}

static const char config[] =
	"CONFIG_X86_64=y\nCONFIG_BLK_DEV_INITRD=y\nCONFIG_DEVTMPFS=y\nCONFIG_TMPFS=y\nCONFIG_PROC_FS=y\nCONFIG_SYSFS=y\n"
	"CONFIG_UNIX98_PTYS=y\nCONFIG_VIRTIO_PCI=m\nCONFIG_VIRTIO_BLK=m\nCONFIG_VIRTIO_CONSOLE=m\nCONFIG_VIRTIO_NET=m\n"
	"CONFIG_EROFS_FS=m\nCONFIG_EXT4_FS=y\nCONFIG_UNIX=y\nCONFIG_INET=y\nCONFIG_EPOLL=y\nCONFIG_SIGNALFD=y\n"
	"CONFIG_TIMERFD=y\nCONFIG_CGROUPS=y\nCONFIG_SECCOMP_FILTER=y\n";

static void configuration(void **state)
{
	(void)state;
	char architecture[16];
	own_str char *whole = mem_printf("%sCONFIG_OVERLAY_FS=m\n", config),
		     *without = mem_printf("%s# CONFIG_OVERLAY_FS is not set\n", config);

	assert_int_equal(kernel_check_config(whole, architecture, &e), 0);
	assert_string_equal(architecture, "amd64");
	assert_int_equal(kernel_check_config(without, architecture, &e), -EOPNOTSUPP);
	assert_non_null(strstr(e.message, "CONFIG_OVERLAY_FS"));
	assert_int_equal(kernel_check_config("CONFIG_ALPHA=y\n", architecture, &e), -EOPNOTSUPP);
}

static void unpacked_image(void **state)
{
	static const char packed[] = "packed kernel", gzip[] = "\x1f\x8b packed kernel";
	uint8_t image[2048] = { 0 };
	size_t offset = 0, length = 0;

	(void)state;
	image[0x1f1] = 1;
	memcpy(image + 0x202, "HdrS\x08\x02", 6);
	image[0x248] = 0x10; /* behind two sectors */
	image[0x24c] = sizeof packed;
	memcpy(image + 1040, packed, sizeof packed);
	assert_true(kernel_image_payload(image, sizeof image, &offset, &length));
	assert_int_equal(offset, 1040);
	assert_int_equal(length, sizeof packed - 4); /* its unpacked length is behind it */
	memcpy(image + 1040, gzip, sizeof packed);
	assert_true(kernel_image_payload(image, sizeof image, &offset, &length));
	assert_int_equal(length, sizeof packed);
	assert_false(kernel_image_payload(image, 1040, &offset, &length));
	assert_false(kernel_image_payload(image, 20, &offset, &length));
	memset(image + 0x248, 0xff, 8);
	assert_false(kernel_image_payload(image, sizeof image, &offset, &length));
	image[0x207] = 1; /* too old to tell */
	assert_false(kernel_image_payload(image, sizeof image, &offset, &length));
	assert_true(kernel_config_has("CONFIG_A=y\nCONFIG_PVH=y\n", "PVH"));
	assert_false(kernel_config_has("CONFIG_PVH=m\nCONFIG_XPVH=y\n# CONFIG_PVH is not set\n", "PVH"));
}

static struct str files[16];
static char names[16][40];
static size_t file_count;

static int take_file(void *data, const char *name, const struct str *content, struct err *error)
{
	(void)data;
	(void)error;
	assert_true(file_count < 16);
	(void)snprintf(names[file_count], sizeof names[0], "%s", name);
	str_add(&files[file_count++], content->bytes, content->length);
	return 0;
}

static const struct str *file_of(const char *name)
{
	for (size_t i = 0; i < file_count; i++)
		if (str_eq(names[i], name))
			return &files[i];
	fail_msg("no file %s", name);
	return &files[0];
}

static uint32_t u32_at(const struct str *s, size_t at)
{
	const uint8_t *b = (const uint8_t *)s->bytes + at;

	assert_true(at + 4 <= s->length);
	return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

/* As libkmod searches: the first value of a key, or NULL. */
static const char *search(const struct str *s, const char *key)
{
	uint32_t node = u32_at(s, 8);

	while (node) {
		size_t at = node & 0x0fffffff, child = 0;
		if (node & 0x80000000) {
			size_t n = strlen(s->bytes + at);
			if (strncmp(s->bytes + at, key, n) != 0)
				return NULL;
			key += n;
			at += n + 1;
		}
		if (node & 0x20000000) {
			uint8_t first = (uint8_t)s->bytes[at], last = (uint8_t)s->bytes[at + 1], c = (uint8_t)*key;
			child = c >= first && c <= last ? at + 2 + 4 * (size_t)(c - first) : 0;
			at += 2 + 4 * (size_t)(last - first + 1);
		}
		if (!*key)
			return node & 0x40000000 && u32_at(s, at) > 0 ? s->bytes + at + 8 : NULL;
		node = child ? u32_at(s, child) : 0;
		key++;
	}
	return NULL;
}

static void index_of_modules(void **state)
{
	static const char tun[] = "alias=devname:net/tun\0alias=char-major-10-200\0softdep=pre: a",
			  a[] = "alias=pci:v*d1-\0alias=block-major-7-*";
	struct str of_tun = { 0 }, of_a = { 0 }, none = { 0 };

	(void)state;
	str_add(&of_tun, tun, sizeof tun);
	str_add(&of_a, a, sizeof a);
	const struct kernel_index_module list[] = { { "a", "kernel/a.ko", "", &of_a },
						    { "b_b", "kernel/b-b.ko", "a,c", &none },
						    { "c", "kernel/c.ko", "a,absent,b_b", &none }, /* a circle */
						    { "tun", "kernel/net/tun.ko", "b_b", &of_tun } };
	assert_ok(kernel_index_write(list, ARRAY_SIZE(list), "kernel/fs/in-it.ko\nkernel/x\n", take_file, NULL, &e), &e);
	assert_string_equal(str_text(file_of("modules.dep")),
			    "kernel/a.ko:\nkernel/b-b.ko: kernel/c.ko kernel/a.ko\nkernel/c.ko: kernel/b-b.ko kernel/a.ko\n"
			    "kernel/net/tun.ko: kernel/b-b.ko kernel/c.ko kernel/a.ko\n");
	assert_non_null(strstr(str_text(file_of("modules.devname")), "\ntun net/tun c10:200\n"));
	assert_non_null(strstr(str_text(file_of("modules.softdep")), "\nsoftdep tun pre: a\n"));
	assert_non_null(strstr(str_text(file_of("modules.alias")), "\nalias pci:v*d1- a\n"));
	assert_string_equal(search(file_of("modules.dep.bin"), "b_b"), "kernel/b-b.ko: kernel/c.ko kernel/a.ko");
	assert_string_equal(search(file_of("modules.alias.bin"), "char_major_10_200"), "tun");
	assert_string_equal(search(file_of("modules.alias.bin"), "pci:v*d1_"), "a");
	assert_string_equal(search(file_of("modules.builtin.bin"), "in_it"), "");
	assert_null(search(file_of("modules.dep.bin"), "b"));
	assert_null(search(file_of("modules.dep.bin"), "tunn"));
	for (size_t i = 0; i < file_count; i++)
		str_done(&files[i]);
	str_done(&of_tun);
	str_done(&of_a);
}

static void add(struct erofs_writer *w, const char *path, const char *text)
{
	struct erofs_attributes a = { .mode = S_IFREG | 0644 };

	assert_int_equal(erofs_begin_file(w, path, &a, strlen(text), false, &e), 0);
	assert_int_equal(erofs_add_data(w, 0, text, strlen(text), &e), 0);
	assert_int_equal(erofs_end_file(w, &e), 0);
}

static int kernel_partition(void)
{
	int fd = memfd_create("kernel", MFD_CLOEXEC);
	own_erofs_writer struct erofs_writer *w = erofs_writer_new(fd, 0, &erofs_default_limits);
	uint64_t size, inodes;

	add(w, "release", "6.1.0-test");
	add(w, "architecture", "amd64");
	add(w, "modules/1-00-a.ko", "first module");
	add(w, "modules/2-01-b.ko", "other");
	assert_int_equal(erofs_finish(w, &size, &inodes, &e), 0);
	return fd;
}

static void initramfs_is_an_archive(void **state)
{
	(void)state;
	char folder[] = "/tmp/carrel-initramfs-XXXXXX", name[INITRAMFS_NAME_SIZE], again[INITRAMFS_NAME_SIZE];
	own_fd int kernel = kernel_partition(), init = memfd_create("init", MFD_CLOEXEC), dir = -1;
	struct digest d = hash_bytes("k", 1);
	struct kernel_about about;

	assert_int_equal(kernel_describe(kernel, &about, &e), 0);
	assert_string_equal(about.release, "6.1.0-test");
	assert_int_equal(about.modules, 2);
	assert_int_equal(write(init, "#!init", 6), 6);
	assert_non_null(mkdtemp(folder));
	assert_int_equal(fs_open_dir(AT_FDCWD, folder, &dir, &e), 0);
	assert_int_equal(initramfs_get(dir, &d, kernel, init, name, &e), 0);
	assert_int_equal(initramfs_get(dir, &d, kernel, init, again, &e), 0);
	assert_string_equal(name, again);
	if (access("/usr/bin/cpio", X_OK) == 0) {
		own_str char *path = mem_printf("--file=%s/%s", folder, name);
		const char *list[] = { "cpio", "-t", "--quiet", path, NULL };
		const char *content[] = { "cpio", "-i", "--quiet", "--to-stdout", path, "modules/1-00-a.ko", NULL };
		own_strbuf struct str out = { 0 }, bytes = { 0 };
		assert_int_equal(proc_run(list, 4096, &out, &e), 0);
		assert_string_equal(str_text(&out), "dev\ndev/console\ninit\nmodules\nmodules/1-00-a.ko\nmodules/2-01-b.ko\n");
		assert_int_equal(proc_run(content, 4096, &bytes, &e), 0);
		assert_string_equal(str_text(&bytes), "first module");
	}
	d.bytes[0] ^= 1;
	assert_int_equal(initramfs_get(dir, &d, kernel, init, again, &e), 0);
	assert_string_not_equal(name, again);
	assert_int_equal(fs_remove_tree(AT_FDCWD, folder, &e), 0);
}

static void a_package_that_is_none(void **state)
{
	(void)state;
	own_fd int package = memfd_create("package", MFD_CLOEXEC), out = memfd_create("out", MFD_CLOEXEC);

	assert_true(write(package, "!<arch>\nnot an archive at all", 29) == 29);
	assert_true(kernel_build(package, out, &e) < 0);
	assert_true(e.kind == ERR_CORRUPT || e.kind == ERR_INVALID);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(depends_of_a_module),    cmocka_unit_test(signature_goes),
		cmocka_unit_test(configuration),          cmocka_unit_test(unpacked_image),
		cmocka_unit_test(index_of_modules),       cmocka_unit_test(initramfs_is_an_archive),
		cmocka_unit_test(a_package_that_is_none),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
