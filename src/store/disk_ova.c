/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. An OVA is a plain tar: the description (OVF), perhaps a manifest with digests, then the disks. Only the tar's headers
 * are walked; disks stay where they are and are read through windows. Of the description four things are taken: which files are
 * disks of the one machine and in which order, processors, memory, and firmware. Everything else may be there and says nothing
 * here.
 *
 * The XML is read by expat; a document type, with which come entities, ends it at once.
 * Specification: DMTF DSP0243; resource types: CIM_ResourceAllocationSettingData.
 */
#include <errno.h>
#include <expat.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/hash.h"
#include "base/mem.h"
#include "base/str.h"
#include "store/disk_convert.h"
#include "store/disk_private.h"

#define MEMBERS_MOST 64
#define OVF_BYTES_MOST (4U << 20)
#define MANIFEST_BYTES_MOST 65536
#define TEXT_MOST 256
#define ITEMS_MOST 64

enum { RESOURCE_CPU = 3, RESOURCE_MEMORY = 4, RESOURCE_NETWORK = 10, RESOURCE_DISK = 17 };

struct member {
	char name[101];
	uint64_t offset, bytes;
};

struct archive {
	const struct disk_window *window;
	struct member members[MEMBERS_MOST];
	size_t count;
};

struct ovf_file {
	char id[TEXT_MOST], href[TEXT_MOST];
	bool packed;
};
struct ovf_disk {
	char id[TEXT_MOST], file[TEXT_MOST];
	bool parent;
};
struct ovf_item {
	unsigned type;
	uint64_t quantity;
	char units[TEXT_MOST], host[TEXT_MOST], kind[TEXT_MOST];
};

struct ovf {
	XML_Parser parser;
	struct ovf_file files[MEMBERS_MOST];
	struct ovf_disk disks[MEMBERS_MOST];
	struct ovf_item items[ITEMS_MOST], *item; /* item: the open one */
	size_t file_count, disk_count, item_count;
	unsigned machines;
	bool uefi;
	char text[TEXT_MOST];
	size_t text_length;
	struct err error; /* kind ERR_NONE: none */
};

/* --- the tar --- */

bool disk_is_ova(const uint8_t head[512])
{
	size_t length = strnlen((const char *)head, 100);

	return memcmp(head + 257, "ustar", 5) == 0 && length > 4 &&
	       strncasecmp((const char *)head + length - 4, ".ovf", 4) == 0;
}

static int take_number(const uint8_t *field, size_t length, uint64_t *ret_number, struct err *e)
{
	uint64_t value = 0;

	if (field[0] == 0x80) { /* GNU: big numbers as binary */
		if (field[1] || field[2] || field[3])
			return err_set(e, ERR_CORRUPT, "a member of the archive is too large");
		*ret_number = disk_be64(field + 4);
		return 0;
	}
	for (size_t i = 0; i < length && field[i] && field[i] != ' '; i++) {
		if (field[i] < '0' || field[i] > '7')
			return err_set(e, ERR_CORRUPT, "the archive has a header that cannot be read");
		value = value * 8 + (uint64_t)(field[i] - '0');
	}
	*ret_number = value;
	return 0;
}

static int take_header(struct archive *a, const uint8_t *h, uint64_t at, uint64_t *ret_next, struct err *e)
{
	struct member *m = &a->members[a->count];
	uint64_t bytes = 0;
	int r = memcmp(h + 257, "ustar", 5) == 0 ? take_number(h + 124, 12, &bytes, e) :
						   err_set(e, ERR_CORRUPT, "the archive has a header that cannot be read");

	if (r < 0)
		return r;
	uint64_t room = a->window->bytes - at - DISK_SECTOR;
	if (bytes > room)
		return err_set(e, ERR_CORRUPT, "the archive is cut within %.100s", (const char *)h);
	*ret_next = at + DISK_SECTOR + (bytes + DISK_SECTOR - 1) / DISK_SECTOR * DISK_SECTOR;
	if (h[156] == 'x' || h[156] == 'g') /* times and owners */
		return 0;
	if (h[156] != '0' && h[156] != '\0')
		return err_set(e, ERR_INVALID, "the archive has a member that is no file (%.100s)", (const char *)h);
	if (a->count == MEMBERS_MOST)
		return err_set(e, ERR_TOO_LARGE, "the archive has more than %d members", MEMBERS_MOST);
	(void)snprintf(m->name, sizeof m->name, "%.100s", (const char *)h);
	m->offset = at + DISK_SECTOR;
	m->bytes = bytes;
	a->count++;
	return 0;
}

static int read_window(const struct disk_window *w, uint64_t at, void *bytes, size_t length, struct err *e)
{
	const struct disk d = { .window = *w };

	return disk_fetch(&d, at, bytes, length, e);
}

static int read_tar(struct archive *a, struct err *e)
{
	static const uint8_t end[DISK_SECTOR];
	uint8_t h[DISK_SECTOR];
	int r = 0;

	for (uint64_t at = 0; r == 0 && at + sizeof h <= a->window->bytes;) {
		if ((r = read_window(a->window, at, h, sizeof h, e)) < 0)
			return r;
		if (memcmp(h, end, sizeof h) == 0)
			return 0;
		r = take_header(a, h, at, &at, e);
	}
	return r;
}

static const struct member *find_member(const struct archive *a, const char *name)
{
	for (size_t i = 0; i < a->count; i++)
		if (str_eq(a->members[i].name, name))
			return &a->members[i];
	return NULL;
}

/* --- the manifest: SHA256(name)= hex --- */

static int hash_member(const struct archive *a, const struct member *m, struct digest *ret_digest, struct err *e)
{
	own_hash struct hash *h = hash_new();
	own_str uint8_t *buffer = mem_alloc(1 << 20);
	int r = 0;

	for (uint64_t done = 0, n; r == 0 && done < m->bytes; done += n) {
		n = disk_least(m->bytes - done, 1 << 20);
		r = read_window(a->window, m->offset + done, buffer, (size_t)n, e);
		hash_add(h, buffer, (size_t)n);
	}
	*ret_digest = hash_end(h);
	return r;
}

static int check_manifest_line(const struct archive *a, const char *line, struct err *e)
{
	char name[101], hex[65];
	struct digest said, got;

	if (sscanf(line, "SHA256(%100[^)])= %64[0-9a-f]", name, hex) != 2 &&
	    sscanf(line, "SHA256 (%100[^)]) = %64[0-9a-f]", name, hex) != 2)
		return 0; /* SHA-1 of older tools proves nothing */
	const struct member *m = find_member(a, name);
	if (!m || digest_parse_hex(hex, &said) < 0)
		return err_set(e, ERR_CORRUPT, "the manifest has a line for %s, the archive has no such file", name);
	int r = hash_member(a, m, &got, e);
	if (r == 0 && !digest_eq(&said, &got))
		r = err_set(e, ERR_CORRUPT, "%s is not the file of the manifest: its SHA-256 is another", name);
	return r;
}

static int check_manifest(const struct archive *a, struct err *e)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < a->count; i++) {
		const struct member *m = &a->members[i];
		if (!str_ends(m->name, ".mf"))
			continue;
		if (m->bytes > MANIFEST_BYTES_MOST)
			return err_set(e, ERR_TOO_LARGE, "%s has %llu bytes", m->name, (unsigned long long)m->bytes);
		own_str char *text = mem_alloc((size_t)m->bytes + 1);
		r = read_window(a->window, m->offset, text, (size_t)m->bytes, e);
		for (char *line = text, *next; r == 0 && line; line = next) {
			if ((next = strchr(line, '\n')))
				*next++ = '\0';
			r = check_manifest_line(a, line, e);
		}
	}
	return r;
}

/* --- the description --- */

static void stop(struct ovf *o, enum err_kind kind, const char *what)
{
	if (o->error.kind == ERR_NONE)
		(void)err_set(&o->error, kind, "%s", what);
	(void)XML_StopParser(o->parser, XML_FALSE);
}

static const char *local(const char *name)
{
	const char *colon = strrchr(name, ':');
	return colon ? colon + 1 : name;
}

static const char *attribute(const char *const *attributes, const char *name)
{
	for (size_t i = 0; attributes[i]; i += 2)
		if (str_eq(local(attributes[i]), name))
			return attributes[i + 1];
	return "";
}

static void keep(struct ovf *o, char to[TEXT_MOST], const char *text)
{
	if (strlen(text) >= TEXT_MOST)
		stop(o, ERR_TOO_LARGE, "the description has a name that is too long");
	else
		memcpy(to, text, strlen(text) + 1);
}

static void open_file(struct ovf *o, const char *const *attributes)
{
	if (o->file_count == MEMBERS_MOST) {
		stop(o, ERR_TOO_LARGE, "the description names too many files");
		return;
	}
	struct ovf_file *f = &o->files[o->file_count++];
	keep(o, f->id, attribute(attributes, "id"));
	keep(o, f->href, attribute(attributes, "href"));
	f->packed = *attribute(attributes, "compression") && !str_eq(attribute(attributes, "compression"), "identity");
}

static void open_disk(struct ovf *o, const char *const *attributes)
{
	if (o->disk_count == MEMBERS_MOST) {
		stop(o, ERR_TOO_LARGE, "the description names too many disks");
		return;
	}
	struct ovf_disk *d = &o->disks[o->disk_count++];
	keep(o, d->id, attribute(attributes, "diskId"));
	keep(o, d->file, attribute(attributes, "fileRef"));
	d->parent = *attribute(attributes, "parentRef") != '\0';
}

static void on_open(void *data, const char *name, const char **attributes)
{
	struct ovf *o = data;
	const char *what = local(name);

	o->text_length = 0;
	if (str_eq(what, "File"))
		open_file(o, attributes);
	else if (str_eq(what, "Disk"))
		open_disk(o, attributes);
	else if (str_eq(what, "VirtualSystemCollection"))
		stop(o, ERR_UNSUPPORTED, "the description is one of several machines");
	else if (str_eq(what, "VirtualSystem"))
		o->machines++;
	else if (str_eq(what, "Config") && str_eq(attribute(attributes, "key"), "firmware"))
		o->uefi = str_eq(attribute(attributes, "value"), "efi");
	else if (str_eq(what, "Item") || str_eq(what, "StorageItem") || str_eq(what, "EthernetPortItem")) {
		if (o->item_count == ITEMS_MOST)
			stop(o, ERR_TOO_LARGE, "the description has too many devices");
		else
			o->item = &o->items[o->item_count++];
	}
}

static void on_text(void *data, const char *bytes, int length)
{
	struct ovf *o = data;
	size_t room = sizeof o->text - 1 - o->text_length, n = (size_t)length < room ? (size_t)length : room;

	memcpy(o->text + o->text_length, bytes, n);
	o->text_length += n;
}

static void on_close(void *data, const char *name)
{
	struct ovf *o = data;
	const char *what = local(name);
	uint64_t number = 0;

	o->text[o->text_length] = '\0';
	o->text_length = 0;
	if (str_eq(what, "Item") || str_eq(what, "StorageItem") || str_eq(what, "EthernetPortItem"))
		o->item = NULL;
	if (!o->item)
		return;
	if (str_eq(what, "ResourceType") && str_to_u64(o->text, 65535, &number) == 0)
		o->item->type = (unsigned)number;
	else if (str_eq(what, "VirtualQuantity") && str_to_u64(o->text, UINT64_C(1) << 44, &number) == 0)
		o->item->quantity = number;
	else if (str_eq(what, "AllocationUnits"))
		keep(o, o->item->units, o->text);
	else if (str_eq(what, "HostResource"))
		keep(o, o->item->host, o->text);
	else if (str_eq(what, "ResourceSubType"))
		keep(o, o->item->kind, o->text);
}

static void on_doctype(void *data, const char *name, const char *system, const char *public, int internal)
{
	(void)name;
	(void)system;
	(void)public;
	(void)internal;
	stop(data, ERR_INVALID, "the description has a document type, and so perhaps entities");
}

static int parse_ovf(struct ovf *o, const char *text, size_t length, struct err *e)
{
	o->parser = XML_ParserCreate(NULL);
	if (!o->parser)
		return err_set(e, ERR_INTERNAL, "expat does not start");
	XML_SetUserData(o->parser, o);
	XML_SetElementHandler(o->parser, on_open, on_close);
	XML_SetCharacterDataHandler(o->parser, on_text);
	XML_SetStartDoctypeDeclHandler(o->parser, on_doctype);
	(void)XML_SetHashSalt(o->parser, 0x63617272); /* the sandbox has no files to take chance from */
	enum XML_Status status = XML_Parse(o->parser, text, (int)length, 1);
	if (status != XML_STATUS_OK && o->error.kind == ERR_NONE)
		(void)err_set(&o->error, ERR_CORRUPT, "the description cannot be read: line %lu: %s",
			      (unsigned long)XML_GetCurrentLineNumber(o->parser), XML_ErrorString(XML_GetErrorCode(o->parser)));
	XML_ParserFree(o->parser);
	if (o->error.kind == ERR_NONE)
		return 0;
	*e = o->error;
	return -e->number;
}

/* --- both together --- */

/* "byte * 2^20", "MegaBytes", "MB" */
static uint64_t unit_bytes(const char *units)
{
	const char *power = strstr(units, "2^");
	uint64_t n = 0;

	if (power && str_to_u64(power + 2, 40, &n) == 0)
		return UINT64_C(1) << n;
	if (strncasecmp(units, "giga", 4) == 0 || str_eq(units, "GB"))
		return UINT64_C(1) << 30;
	if (strncasecmp(units, "kilo", 4) == 0 || str_eq(units, "KB"))
		return UINT64_C(1) << 10;
	return str_eq(units, "byte") ? 1 : UINT64_C(1) << 20;
}

static int add_disk(const struct archive *a, const struct ovf *o, const struct ovf_disk *d, struct disk_upload *u,
		    struct err *e)
{
	const struct ovf_file *f = NULL;
	enum disk_format format = DISK_RAW;

	for (size_t i = 0; i < o->file_count; i++)
		if (str_eq(o->files[i].id, d->file))
			f = &o->files[i];
	if (d->parent)
		return err_set(e, ERR_INVALID, "disk %s is only the difference to another", d->id);
	if (!f)
		return err_set(e, ERR_INVALID, "disk %s has no file: empty disks cannot be imported", d->id);
	if (f->packed)
		return err_set(e, ERR_UNSUPPORTED, "%s is compressed as a whole", f->href);
	const struct member *m = find_member(a, f->href);
	if (!m)
		return err_set(e, ERR_INVALID, "the description names the file '%s', which is not in the archive", f->href);
	if (u->count == DISK_PARTS_MOST)
		return err_set(e, ERR_TOO_LARGE, "the machine has more than %d disks", DISK_PARTS_MOST);
	const struct disk_window w = { a->window->fd, a->window->offset + m->offset, m->bytes };
	int r = disk_detect(&w, &format, e);
	if (r < 0)
		return err_wrap(e, "%s", f->href);
	u->parts[u->count++] = (struct disk_part){ format, w.offset, w.bytes };
	return 0;
}

static int take_items(const struct archive *a, const struct ovf *o, struct disk_upload *u, struct err *e)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < o->item_count; i++) {
		const struct ovf_item *item = &o->items[i];
		const char *slash = strrchr(item->host, '/');
		if (item->type == RESOURCE_CPU && item->quantity <= 1024)
			u->machine.cpu_milli = item->quantity * 1000;
		if (item->type == RESOURCE_MEMORY && item->quantity < (UINT64_C(1) << 44) / unit_bytes(item->units))
			u->machine.memory_bytes = item->quantity * unit_bytes(item->units);
		if (item->type == RESOURCE_NETWORK && strncasecmp(item->kind, "virtio", 6) == 0)
			u->machine.nic = NIC_VIRTIO;
		if (item->type != RESOURCE_DISK)
			continue;
		for (size_t k = 0; r == 0 && k < o->disk_count; k++)
			if (slash && str_eq(slash + 1, o->disks[k].id))
				r = add_disk(a, o, &o->disks[k], u, e);
	}
	return r;
}

static int inspect(const struct archive *a, struct ovf *o, struct disk_upload *u, struct err *e)
{
	const struct member *description = &a->members[0];

	if (a->count == 0 || description->bytes > OVF_BYTES_MOST)
		return err_set(e, ERR_TOO_LARGE, "a description of %llu bytes",
			       (unsigned long long)(a->count ? description->bytes : 0));
	own_str char *text = mem_alloc((size_t)description->bytes + 1);
	int r = read_window(a->window, description->offset, text, (size_t)description->bytes, e);
	if (r < 0 || (r = parse_ovf(o, text, (size_t)description->bytes, e)) < 0)
		return r;
	if (o->machines != 1)
		return err_set(e, ERR_INVALID, "the description has %u machines", o->machines);
	u->machine = (struct image_machine){ .firmware = o->uefi ? FIRMWARE_UEFI : FIRMWARE_AUTO, .disk_bus = BUS_SATA,
					     .nic = NIC_E1000 };
	if ((r = take_items(a, o, u, e)) < 0)
		return r;
	if (u->count == 0)
		return err_set(e, ERR_INVALID, "the machine has no disks");
	return check_manifest(a, e);
}

int disk_inspect_ova(const struct disk_window *w, struct disk_upload *ret_upload, struct err *e)
{
	struct disk_upload u = { 0 };
	own_str struct archive *a = mem_alloc(sizeof *a);
	own_str struct ovf *o = mem_alloc(sizeof *o);

	a->window = w;
	int r = read_tar(a, e);
	if (r == 0)
		r = inspect(a, o, &u, e);
	if (r < 0)
		return err_wrap(e, "ova");
	*ret_upload = u;
	return 0;
}
