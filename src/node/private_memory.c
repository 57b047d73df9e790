/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which pages QEMU owns follows from two facts of Linux: a page that was written in a private mapping of a file is anonymous
 * from then on (bit 61 of its pagemap entry is clear, or it is in swap), and the others are the base's. So the memory is the
 * base's copy with those pages over it. The mapping is found by the base's inode among QEMU's maps; where it is in the file
 * its offset says.
 *
 * Pages are compared before they are written, in both functions: a second call, while the machine stands still, then writes
 * what changed since the first, and that is what decides how long it stands.
 */
#include "node/private_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/mem.h"
#include "base/own.h"
#include "model/memory_place.h"

#define PAGE 4096u
#define AT_ONCE 512u /* pages */

/* Of an entry of pagemap: in memory, in swap, a page of the file's or shared. */
#define PRESENT (UINT64_C(1) << 63)
#define SWAPPED (UINT64_C(1) << 62)
#define OF_FILE (UINT64_C(1) << 61)

bool private_memory_is(int folder)
{
	struct stat st;
	return fstatat(folder, MEMORY_BASE, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

struct reading {
	pid_t pid;
	int pagemap, to;
	char *theirs, *ours; /* AT_ONCE pages each */
};

/* A run of pages that are QEMU's own, no more than AT_ONCE. What is the same already is not written: it would have to reach the
 * disk. */
static int copy_run(const struct reading *r, uint64_t at, uint64_t offset, size_t pages, struct err *e)
{
	size_t length = pages * PAGE;
	struct iovec local = { r->theirs, length }, remote = { (void *)(uintptr_t)at, length };

	if (process_vm_readv(r->pid, &local, 1, &remote, 1, 0) != (ssize_t)length)
		return err_errno(e, errno ? errno : EIO, "read the machine's memory");
	ssize_t have = pread(r->to, r->ours, length, (off_t)offset);
	for (size_t i = 0; i < pages; i++) {
		size_t from = i * PAGE;
		if (have >= (ssize_t)(from + PAGE) && memcmp(r->theirs + from, r->ours + from, PAGE) == 0)
			continue;
		if (pwrite(r->to, r->theirs + from, PAGE, (off_t)(offset + from)) != (ssize_t)PAGE)
			return err_errno(e, errno ? errno : ENOSPC, "write the machine's memory");
	}
	return 0;
}

static bool is_own(uint64_t entry) { return entry & SWAPPED || (entry & PRESENT && !(entry & OF_FILE)); }

/* One mapping of the file. */
static int copy_mapping(const struct reading *r, uint64_t start, uint64_t end, uint64_t offset, struct err *e)
{
	uint64_t entries[AT_ONCE];

	for (uint64_t at = start; at < end;) {
		size_t pages = (end - at) / PAGE < AT_ONCE ? (size_t)((end - at) / PAGE) : AT_ONCE;
		ssize_t n = pread(r->pagemap, entries, pages * sizeof *entries, (off_t)(at / PAGE * sizeof *entries));
		if (n != (ssize_t)(pages * sizeof *entries))
			return err_errno(e, n < 0 ? errno : EIO, "read QEMU's page map");
		for (size_t i = 0, run; i < pages; i += run + 1) {
			for (run = 0; i + run < pages && is_own(entries[i + run]); run++)
				;
			int done = run ? copy_run(r, at + i * PAGE, offset + (at - start) + i * PAGE, run, e) : 0;
			if (done < 0)
				return done;
		}
		at += pages * PAGE;
	}
	return 0;
}

static int copy_mappings(struct reading *r, FILE *maps, ino_t base, struct err *e)
{
	uint64_t start, end, offset, inode, found = 0;
	char line[512], private;

	while (fgets(line, sizeof line, maps)) {
		if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %*c%*c%*c%c %" SCNx64 " %*s %" SCNu64, &start, &end, &private,
			   &offset, &inode) != 5 ||
		    inode != base || private != 'p')
			continue;
		int done = copy_mapping(r, start, end, offset, e);
		if (done < 0)
			return done;
		found += end - start;
	}
	return found ? 0 : err_set(e, ERR_INTERNAL, "QEMU has not mapped the file that the machine began from");
}

static FILE *open_of(pid_t pid, const char *name)
{
	char path[64];

	(void)snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
	return fopen(path, "re");
}

int private_memory_update(int folder, pid_t qemu, int to, struct err *e)
{
	own_str char *pages = mem_alloc((size_t)2 * AT_ONCE * PAGE);
	own_file FILE *maps = NULL, *pagemap = NULL;
	struct stat st;

	int fault = fault_point("private-memory");
	if (fault)
		return err_errno(e, fault, "gather the machine's memory");
	if (fstatat(folder, MEMORY_BASE, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	maps = open_of(qemu, "maps");
	pagemap = open_of(qemu, "pagemap");
	if (!maps || !pagemap)
		return err_errno(e, errno, "look into QEMU's process");
	struct reading r = { .pid = qemu, .pagemap = fileno(pagemap), .to = to, .theirs = pages,
			     .ours = pages + (size_t)AT_ONCE * PAGE };
	return copy_mappings(&r, maps, st.st_ino, e);
}

/* --- memory that is a file of its own --- */

static int update_chunk(int from, int to, char *theirs, char *ours, off_t at, size_t length, struct err *e)
{
	ssize_t n = pread(from, theirs, length, at), have = pread(to, ours, length, at);

	if (n < 0)
		return err_errno(e, errno, "read the machine's memory");
	if (have == n && memcmp(theirs, ours, (size_t)n) == 0)
		return 0;
	for (ssize_t i = 0; i < n; i += PAGE) {
		size_t page = n - i < (ssize_t)PAGE ? (size_t)(n - i) : PAGE;
		if (have >= i + (ssize_t)page && memcmp(theirs + i, ours + i, page) == 0)
			continue;
		if (pwrite(to, theirs + i, page, at + i) != (ssize_t)page)
			return err_errno(e, errno ? errno : ENOSPC, "write the machine's memory");
	}
	return 0;
}

int shared_memory_update(int from, int to, struct err *e)
{
	const size_t most = (size_t)AT_ONCE * PAGE;
	own_str char *pages = mem_alloc(2 * most);
	off_t at = 0, end;

	while ((at = lseek(from, at, SEEK_DATA)) >= 0) {
		end = lseek(from, at, SEEK_HOLE);
		if (end < 0)
			break;
		for (; at < end; at += (off_t)most) {
			size_t length = end - at < (off_t)most ? (size_t)(end - at) : most;
			int r = update_chunk(from, to, pages, pages + most, at, length, e);
			if (r < 0)
				return r;
		}
		at = end;
	}
	return errno == ENXIO ? 0 : err_errno(e, errno, "look through the machine's memory");
}
