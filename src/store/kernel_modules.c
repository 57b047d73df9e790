/* SPDX-License-Identifier: Apache-2.0 */
/* The few facts of a kernel module that loading it needs: elf(5), and scripts/sign-file.c of Linux for the signature's form. */
#include <elf.h>
#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
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

/* NUL-terminated texts, "key=value". */
static char *value_of(const uint8_t *info, size_t length, const char *key)
{
	size_t n = strlen(key);

	for (size_t at = 0; at < length;) {
		size_t left = length - at, text = strnlen((const char *)info + at, left);
		if (text > n && memcmp(info + at, key, n) == 0 && info[at + n] == '=')
			return mem_strndup((const char *)info + at + n + 1, text - n - 1);
		at += text + 1;
	}
	return mem_strdup("");
}

int kernel_module_depends(const void *bytes, size_t length, char **ret_depends, struct err *e)
{
	Elf64_Ehdr head;
	Elf64_Shdr names, s;

	if (length < sizeof head)
		return cut(e);
	memcpy(&head, bytes, sizeof head);
	if (memcmp(head.e_ident, ELFMAG, SELFMAG) != 0 || head.e_ident[EI_CLASS] != ELFCLASS64 || head.e_ident[EI_DATA] != ELFDATA2LSB ||
	    head.e_shentsize != sizeof s || !section(bytes, length, &head, head.e_shstrndx, &names) || names.sh_type == SHT_NOBITS)
		return cut(e);
	const char *texts = (const char *)bytes + names.sh_offset;
	for (unsigned i = 0; i < head.e_shnum; i++) {
		if (!section(bytes, length, &head, i, &s))
			return cut(e);
		if (s.sh_type == SHT_NOBITS || s.sh_name >= names.sh_size || names.sh_size - s.sh_name < sizeof ".modinfo" ||
		    memcmp(texts + s.sh_name, ".modinfo", sizeof ".modinfo") != 0)
			continue;
		*ret_depends = value_of((const uint8_t *)bytes + s.sh_offset, s.sh_size, "depends");
		return 0;
	}
	return err_set(e, ERR_CORRUPT, "a module has no section .modinfo");
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
