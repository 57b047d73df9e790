/* SPDX-License-Identifier: Apache-2.0 */
/* The few facts of a kernel module that loading it needs: elf(5), and scripts/sign-file.c of Linux for the signature's form. */
#include <elf.h>
#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "store/kernel.h"

static int cut(struct err *e) { return err_set(e, ERR_CORRUPT, "a module is not a whole ELF file"); }

static bool section(const uint8_t *bytes, size_t length, const Elf64_Ehdr *head, unsigned number, Elf64_Shdr *ret_section)
{
	uint64_t at = head->e_shoff + (uint64_t)number * sizeof *ret_section;

	if (head->e_shoff > length || at > length || length - at < sizeof *ret_section)
		return false;
	memcpy(ret_section, bytes + at, sizeof *ret_section);
	return ret_section->sh_type == SHT_NOBITS ||
	       (ret_section->sh_offset <= length && ret_section->sh_size <= length - ret_section->sh_offset);
}

static int find_info(const void *bytes, size_t length, const char **ret_info, size_t *ret_length, struct err *e)
{
	Elf64_Ehdr head;
	Elf64_Shdr names, s;

	if (length < sizeof head)
		return cut(e);
	memcpy(&head, bytes, sizeof head);
	if (memcmp(head.e_ident, ELFMAG, SELFMAG) != 0 || head.e_ident[EI_CLASS] != ELFCLASS64 ||
	    head.e_ident[EI_DATA] != ELFDATA2LSB || head.e_shentsize != sizeof s ||
	    !section(bytes, length, &head, head.e_shstrndx, &names) || names.sh_type == SHT_NOBITS)
		return cut(e);
	const char *texts = (const char *)bytes + names.sh_offset;
	for (unsigned i = 0; i < head.e_shnum; i++) {
		if (!section(bytes, length, &head, i, &s))
			return cut(e);
		if (s.sh_type == SHT_NOBITS || s.sh_name >= names.sh_size || names.sh_size - s.sh_name < sizeof ".modinfo" ||
		    memcmp(texts + s.sh_name, ".modinfo", sizeof ".modinfo") != 0)
			continue;
		*ret_info = (const char *)bytes + s.sh_offset;
		*ret_length = s.sh_size;
		return 0;
	}
	return err_set(e, ERR_CORRUPT, "a module has no section .modinfo");
}

static bool has_key(const char *text, const char *key)
{
	size_t n = strlen(key);

	return strncmp(text, key, n) == 0 && text[n] == '=';
}

int kernel_module_infos(const void *bytes, size_t length, struct str *ret_infos, struct err *e)
{
	static const char *const wanted[] = { "alias", "depends", "softdep" };
	const char *info;
	size_t size;
	int r = find_info(bytes, length, &info, &size, e);

	for (size_t at = 0; r >= 0 && at < size;) {
		size_t n = strnlen(info + at, size - at);
		own_str char *text = mem_strndup(info + at, n);
		for (size_t i = 0; i < ARRAY_SIZE(wanted); i++)
			if (has_key(text, wanted[i]) && !strpbrk(text, "\n\r\t"))
				str_add(ret_infos, text, n + 1);
		at += n + 1;
	}
	return r;
}

int kernel_module_depends(const void *bytes, size_t length, char **ret_depends, struct err *e)
{
	own_strbuf struct str infos = { 0 };
	int r = kernel_module_infos(bytes, length, &infos, e);

	if (r < 0)
		return r;
	*ret_depends = NULL;
	for (size_t at = 0; at < infos.length && !*ret_depends; at += strlen(infos.bytes + at) + 1)
		if (has_key(infos.bytes + at, "depends"))
			*ret_depends = mem_strdup(infos.bytes + at + strlen("depends="));
	if (!*ret_depends)
		*ret_depends = mem_strdup("");
	return 0;
}

#define MAGIC "~Module signature appended~\n"

size_t kernel_module_unsigned_length(const void *bytes, size_t length)
{
	size_t magic = strlen(MAGIC);
	uint32_t signature;

	/* the signature, its description (12 bytes, the last 4: length of the signature, big-endian), the magic */
	if (length < magic + 12 || memcmp((const char *)bytes + length - magic, MAGIC, magic) != 0)
		return length;
	size_t rest = length - magic - 12;
	memcpy(&signature, (const char *)bytes + rest + 8, sizeof signature);
	signature = be32toh(signature);
	return signature <= rest ? rest - signature : length;
}
