/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel inside a bzImage (Documentation/arch/x86/boot.rst of Linux): an ELF file that was packed. A machine that is given
 * the ELF file starts it at its PVH entry, without a boot loader that copies it and without unpacking it by an emulated
 * processor.
 */
#include <elf.h>
#include <stdint.h>
#include <string.h>

#include "store/kernel.h"

#define SETUP_SECTORS_AT  0x1f1
#define MAGIC_AT          0x202
#define VERSION_AT        0x206
#define PAYLOAD_OFFSET_AT 0x248
#define PAYLOAD_LENGTH_AT 0x24c
#define HEADER_END        0x250
#define VERSION_LEAST     0x0208 /* the first that tells where the payload is */

static uint32_t get_u32(const uint8_t *at)
{
	return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

bool kernel_image_payload(const void *bytes, size_t length, size_t *ret_offset, size_t *ret_length)
{
	const uint8_t *image = bytes;

	if (length < HEADER_END || memcmp(image + MAGIC_AT, "HdrS", 4) != 0 ||
	    (get_u32(image + VERSION_AT) & 0xffff) < VERSION_LEAST)
		return false;
	uint64_t sectors = image[SETUP_SECTORS_AT] ? image[SETUP_SECTORS_AT] : 4;
	uint64_t offset = (sectors + 1) * 512 + get_u32(image + PAYLOAD_OFFSET_AT), size = get_u32(image + PAYLOAD_LENGTH_AT);
	if (size < 8 || offset > length || size > length - offset)
		return false;
	bool gzip = image[offset] == 0x1f &&
		    image[offset + 1] == 0x8b; /* has its length in itself; behind others the build puts it */
	*ret_offset = offset;
	*ret_length = size - (gzip ? 0 : 4);
	return true;
}

bool kernel_image_is_elf(const void *bytes, size_t length)
{
	Elf64_Ehdr h;

	if (length < sizeof h)
		return false;
	memcpy(&h, bytes, sizeof h);
	return memcmp(h.e_ident, ELFMAG, SELFMAG) == 0 && h.e_ident[EI_CLASS] == ELFCLASS64 &&
	       h.e_ident[EI_DATA] == ELFDATA2LSB && h.e_machine == EM_X86_64 && h.e_phoff < length && h.e_phnum > 0;
}
