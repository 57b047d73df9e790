/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory. The order of files is the order of the image's partitions; what is the same for all workspaces of an image
 * (partitions, firmware) is opened for reading only, what is a workspace's own is locked as any volume is. The seed is made
 * anew for each start, as networks may have changed, and kept beside the machine's memory: one that goes on from there has the
 * seed that it was started with, for its guest may have mounted it.
 */
#include "node/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/str.h"
#include "store/overlay.h"
#include "store/seed.h"
#include "store/volume.h"

#define FIRMWARE "/usr/share/OVMF/OVMF_CODE_4M.fd"
#define VARIABLES "/usr/share/OVMF/OVMF_VARS_4M.fd"
#define VARIABLES_MOST (4U << 20)

bool disk_is_one(const struct assignment *a) { return a->image && a->image->machine; }

static bool has_uefi(const struct assignment *a)
{
	return a->spec && machine_choose(a->spec->machine, a->image->machine).firmware == FIRMWARE_UEFI;
}

char *disk_file_path(const struct record *r, size_t number, const char **ret_name)
{
	const struct image *image = r->wish.image;
	const char *name = disk_is_one(&r->wish) && r->wish.spec ?
				   machine_disk_name(r->wish.spec->machine, image->machine, image->partitions.count, number) :
				   NULL;

	if (!name)
		return NULL;
	if (ret_name)
		*ret_name = name;
	return mem_printf("%s/volumes/%s.%s", r->folder, name, str_eq(name, MACHINE_VARIABLES) ? "fd" : "qcow2");
}

bool disk_next_volume(const struct record *r, const char *kept, size_t at, struct disk_volume *v)
{
	const struct objects *volumes = &r->wish.spec->volumes;

	free(TAKE(v->path));
	v->spec = at == 0 || at > volumes->count ? NULL : (const struct spec_volume *)volumes->items + (at - 1);
	v->number = at == 0 ? 0 : at > volumes->count ? at - volumes->count : SIZE_MAX;
	if (at > volumes->count)
		return (v->path = disk_file_path(r, v->number, &v->name)) != NULL;
	v->path = record_volume_path(r, kept, v->spec);
	v->name = v->spec ? v->spec->name : "root";
	return true;
}

/* --- making them --- */

static int make_variables(const char *path, struct err *e)
{
	own_strbuf struct str bytes = { 0 };

	if (fs_exists(AT_FDCWD, path))
		return 0;
	int r = fs_read_file(AT_FDCWD, VARIABLES, VARIABLES_MOST, &bytes, e);
	if (r == -ENOENT) {
		(void)err_set(e, ERR_UNSUPPORTED, "this host has no UEFI for machines (" VARIABLES ")");
		return err_hint(e, "install ovmf, or choose firmware bios");
	}
	return r < 0 ? r : fs_write_file(AT_FDCWD, path, bytes.bytes, bytes.length, 0600, false, e);
}

int disk_check_variables(uint64_t bytes, struct err *e)
{
	struct stat st;

	if (stat(VARIABLES, &st) < 0) {
		(void)err_set(e, ERR_UNSUPPORTED, "this host has no UEFI for machines (" VARIABLES ")");
		return err_hint(e, "install ovmf");
	}
	if ((uint64_t)st.st_size == bytes)
		return 0;
	return err_set(e, ERR_UNSUPPORTED, "UEFI's variables have %" PRIu64 " bytes, and this host's UEFI keeps %" PRIu64,
		       bytes, (uint64_t)st.st_size);
}

static uint64_t least_bytes(const struct record *r, size_t number)
{
	return ((const struct image_partition *)r->wish.image->partitions.items)[number].size_bytes;
}

static uint64_t disk_size(const struct record *r, size_t number, uint64_t root_bytes)
{
	uint64_t least = least_bytes(r, number);

	return number == 0 && root_bytes > least ? root_bytes : least;
}

uint64_t disk_root_bytes(const struct record *r, uint64_t root_bytes) { return disk_size(r, 0, root_bytes); }

int disk_make(const struct record *r, uint64_t root_bytes, struct err *e)
{
	size_t disks = r->wish.image->partitions.count;
	char *path;
	int done = 0;

	for (size_t i = 0; done >= 0 && (path = disk_file_path(r, i, NULL)); i++) {
		done = i < disks ? overlay_make(path, disk_size(r, i, root_bytes), e) : make_variables(path, e);
		free(path);
	}
	return done < 0 ? done : disk_grow(r, root_bytes, false, e);
}

int disk_grow(const struct record *r, uint64_t root_bytes, bool live, struct err *e)
{
	own_str char *path = disk_file_path(r, 0, NULL);
	own_fd int lock = -1;
	uint64_t now = 0, wanted = disk_size(r, 0, root_bytes);
	int done = fs_exists(AT_FDCWD, path) ? overlay_measure(path, &now, e) : 0;

	if (done < 0 || now == 0 || now >= wanted)
		return done;
	if (live)
		return 1;
	done = volume_open(path, &lock, e);
	return done < 0 ? done : overlay_grow(path, wanted, e);
}

/* --- opening them --- */

static int open_firmware(int *ret_fd, struct err *e)
{
	int fd = open(FIRMWARE, O_RDONLY | O_CLOEXEC);

	if (fd < 0) {
		(void)err_set(e, ERR_UNSUPPORTED, "this host has no UEFI for machines (" FIRMWARE ")");
		return err_hint(e, "install ovmf, or choose firmware bios");
	}
	*ret_fd = fd;
	return 0;
}

int disk_open_files(const struct record *r, struct isolate_disk *ret_disk, struct err *e)
{
	struct isolate_disk d = { .others = mem_alloc_array(r->wish.image->partitions.count + 1, sizeof *d.others),
				  .firmware = -1, .variables = -1, .seed = -1, .is_one = true };
	size_t disks = r->wish.image->partitions.count;
	char *path;
	int done = 0;

	for (size_t i = 1; done >= 0 && (path = disk_file_path(r, i, NULL)); i++) {
		done = volume_open(path, i < disks ? &d.others[d.count] : &d.variables, e);
		if (done >= 0 && i < disks)
			d.count++;
		free(path);
	}
	if (done >= 0 && has_uefi(&r->wish))
		done = open_firmware(&d.firmware, e);
	if (done < 0) {
		disk_close_files(&d);
		return done;
	}
	*ret_disk = d;
	return 0;
}

void disk_close_files(struct isolate_disk *d)
{
	if (!d->is_one)
		return;
	for (size_t i = 0; i < d->count; i++)
		own_close(&d->others[i]);
	free(d->others);
	own_close(&d->firmware);
	own_close(&d->variables);
	own_close(&d->seed);
	*d = (struct isolate_disk){ 0 };
}

/* --- the seed (cloud-init: doc/rtd/reference/datasources/nocloud, network-config-format-v2) --- */

static char *dump(json_t *json)
{
	char *text = json_dumps(json, JSON_INDENT(1) | JSON_SORT_KEYS);

	json_decref(json);
	return text ? text : mem_strdup("{}"); /* JSON is YAML */
}

static char *meta_data(const struct assignment *a)
{
	const char *name = a->spec->host_name ? a->spec->host_name : a->spec->name ? a->spec->name : a->id;
	json_t *keys = json_array();

	for (size_t i = 0; i < a->spec->ssh_keys.count; i++)
		(void)json_array_append_new(keys, json_string(a->spec->ssh_keys.items[i]));
	return dump(json_pack("{s:s, s:s, s:o}", "instance-id", a->id, "local-hostname", name, "public-keys", keys));
}

static json_t *interface_config(const struct launch_interface *f)
{
	json_t *addresses = json_array(), *servers = json_array(), *search = json_array();

	if (f->ipv4)
		(void)json_array_append_new(addresses, json_string(f->ipv4));
	if (f->ipv6) /* alone on its link, as in a namespace */
		(void)json_array_append_new(addresses, json_sprintf("%.*s/128", (int)strcspn(f->ipv6, "/"), f->ipv6));
	for (size_t i = 0; i < ARRAY_SIZE(f->dns); i++)
		if (f->dns[i])
			(void)json_array_append_new(servers, json_string(f->dns[i]));
	if (f->zone)
		(void)json_array_append_new(search, json_string(f->zone));
	/* gateway4 and gateway6 are understood by all of cloud-init's writers, routes to ::/0 not by ifupdown's */
	return json_pack("{s:{s:s}, s:s, s:i, s:b, s:b, s:o, s:s*, s:s*, s:{s:o, s:o}}", "match", "macaddress", f->mac,
			 "set-name", f->device, "mtu", (int)f->mtu, "dhcp4", 0, "dhcp6", 0, "addresses", addresses, "gateway4",
			 f->gateway4, "gateway6", f->gateway6, "nameservers", "addresses", servers, "search", search);
}

static char *network_config(const struct isolate_parts *parts)
{
	json_t *ethernets = json_object();

	for (size_t i = 0; i < parts->interface_count; i++)
		(void)json_object_set_new(ethernets, parts->interfaces[i].device, interface_config(&parts->interfaces[i]));
	return dump(json_pack("{s:i, s:o}", "version", 2, "ethernets", ethernets));
}

static int make_seed(const struct assignment *a, const struct isolate_parts *parts, const char *path, struct err *e)
{
	own_str char *meta = meta_data(a), *network = network_config(parts);
	const char *user = a->spec->user_data ? a->spec->user_data : "#cloud-config\n{}\n";
	const struct seed_file files[] = { { "meta-data", meta, strlen(meta) },
					   { "network-config", network, strlen(network) },
					   { "user-data", user, strlen(user) } };
	own_strbuf struct str bytes = { 0 };

	seed_write("cidata", files, ARRAY_SIZE(files), &bytes);
	return fs_write_file(AT_FDCWD, path, bytes.bytes, bytes.length, 0600, false, e);
}

static int open_seed(const struct record *r, struct isolate_parts *parts, struct err *e)
{
	own_str char *folder = record_path(r, MEMORY_FOLDER), *path = record_path(r, MEMORY_FOLDER "/" MEMORY_SEED);
	int done = fs_mkdirs(folder, 0700, e);

	if (done == 0 && !parts->memory)
		done = make_seed(&r->wish, parts, path, e);
	if (done < 0)
		return done;
	own_close(&parts->disk.seed);
	parts->disk.seed = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	return parts->disk.seed < 0 ? err_errno(e, errno, "open the seed") : 0;
}

int disk_launch_fds(const struct record *r, struct isolate_parts *parts, int **ret_fds, size_t *ret_count, struct err *e)
{
	const struct isolate_disk *d = &parts->disk;
	int *fds = mem_alloc_array(2 * parts->lower_count + parts->volume_count + 4, sizeof *fds);
	size_t n = 0;
	int done = open_seed(r, parts, e);

	for (size_t i = 0; i < parts->lower_count; i++) {
		fds[n++] = parts->partition_fds[i];
		fds[n++] = i == 0 ? parts->volumes[0].fd : d->others[i - 1];
	}
	for (size_t i = 1; i < parts->volume_count; i++)
		fds[n++] = parts->volumes[i].fd;
	if (d->firmware >= 0) {
		fds[n++] = d->firmware;
		fds[n++] = d->variables;
	}
	fds[n++] = d->seed;
	if (done < 0 || (parts->lower_count > 1 && d->count + 1 < parts->lower_count)) {
		free(fds);
		return done < 0 ? done : err_set(e, ERR_INTERNAL, "not all disks are open");
	}
	*ret_fds = fds;
	*ret_count = n;
	return 0;
}
