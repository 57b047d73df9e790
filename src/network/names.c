/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One folder is one dnsmasq and all that is known of it. The agent may be restarted at any time, so nothing is kept in memory:
 * a process is found by number and start time from the folder's file, its configuration is compared with the file it was
 * started with, and what workspaces are called is whatever files there are. Two processes belong together - dnsmasq, and the
 * front (names_front.h) that carrel-names forked before it became dnsmasq - and are started and ended together.
 *
 * The files of workspaces are read by dnsmasq as they appear (inotify), so they are written elsewhere and renamed into place.
 * It learns so what is new, but not what is gone or different: only then it gets a SIGHUP, which makes it read everything
 * again.
 */
#include "network/names.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/proc.h"
#include "network/names_front.h"

#define STOP_MS 2000
#define FILE_MOST ((size_t)1 << 20)

/* --- the configuration --- */

static void add_pool(struct str *s, const char *pool, bool six)
{
	char gateway[NETWORK_ADDRESS_SIZE], first[NETWORK_ADDRESS_SIZE];
	unsigned length;

	network_gateway(pool, gateway, &length);
	network_address(pool, first);
	if (six) {
		str_printf(s, "enable-ra\ndhcp-range=%s,static,off-link,%u,1h\n", first, length < 64 ? 64 : length);
		return;
	}
	struct in_addr mask = { htonl(UINT32_MAX << (32 - length)) };
	char text[INET_ADDRSTRLEN];
	(void)inet_ntop(AF_INET, &mask, text, sizeof text);
	str_printf(s, "dhcp-range=%s,static,%s,1h\n", first, text);
}

/* The front (names_front.h), not dnsmasq itself. */
static void add_server(struct str *s, const char *pool, const char *format)
{
	char gateway[NETWORK_ADDRESS_SIZE];
	unsigned length;

	if (!pool)
		return;
	network_gateway(pool, gateway, &length);
	const char *at = strstr(format, "%s");
	str_printf(s, "%.*s%s%s", (int)(at - format), format, gateway, at + 2);
}

int names_config(const struct names *n, struct str *ret_config, struct err *e)
{
	const struct network *w = n->network;
	char buffer[80];
	const char *zone = network_zone(w, buffer);
	struct str s = { 0 };

	if (w->kind == NETWORK_BRIDGE)
		return err_set(e, ERR_UNSUPPORTED, "network %s: a bridge of the site has the site's own DHCP and names",
			       w->name);
	str_puts(&s, "keep-in-foreground\nno-hosts\nno-poll\npid-file\nlog-facility=-\nquiet-dhcp\nquiet-dhcp6\nquiet-ra\n"
		     "user=nobody\ngroup=nogroup\n");
	str_printf(&s, "interface=%s\nexcept-interface=lo\nbind-dynamic\nport=%d\n", n->bridge, NAMES_PORT);
	str_printf(&s, "domain=%s\nlocal=/%s/\ndomain-needed\nbogus-priv\ncache-size=1000\nno-ping\ndhcp-authoritative\n", zone,
		   zone);
	str_puts(&s, "hostsdir=/data/hosts\ndhcp-hostsdir=/data/dhcp\ndhcp-leasefile=/data/leases\n");
	str_printf(&s, "dhcp-option=option:mtu,%" PRIu64 "\ndhcp-option=option:domain-search,%s\n", w->mtu, zone);
	if (w->ipv4)
		add_pool(&s, w->ipv4, false);
	if (w->ipv6)
		add_pool(&s, w->ipv6, true);
	add_server(&s, w->ipv4, "dhcp-option=option:dns-server,%s\n");
	add_server(&s, w->ipv6, "dhcp-option=option6:dns-server,[%s]\n"); /* in router advertisements, too */
	if (w->kind == NETWORK_ISOLATED || w->dns.count)
		str_puts(&s, "no-resolv\n");
	else
		str_puts(&s, "resolv-file=/data/resolv.conf\n");
	for (size_t i = 0; w->kind != NETWORK_ISOLATED && i < w->dns.count; i++)
		str_printf(&s, "server=%s\n", w->dns.items[i]);
	*ret_config = s;
	return 0;
}

/* --- the process --- */

enum process { DNSMASQ, FRONT };

/* Field 22 of /proc/PID/stat, behind the name in parentheses; 0: no such process. */
static uint64_t start_time(pid_t pid)
{
	own_str char *path = mem_printf("/proc/%d/stat", (int)pid);
	own_strbuf struct str stat = { 0 };
	unsigned long long time = 0;

	if (fs_read_file(AT_FDCWD, path, 4096, &stat, NULL) < 0)
		return 0;
	const char *at = strrchr(str_text(&stat), ')');
	if (!at ||
	    sscanf(at + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu", &time) != 1)
		return 0;
	return time;
}

/* When it was a child of this agent, not of one before. */
static void reap(int pidfd) { (void)waitid(P_PIDFD, (id_t)pidfd, NULL, WEXITED | WNOHANG); }

/* -1: it does not run. */
static int find(const char *folder, enum process which)
{
	own_str char *path = mem_printf("%s/pid", folder);
	own_strbuf struct str text = { 0 };
	int pids[2] = { 0, 0 };
	unsigned long long times[2] = { 0, 0 };

	if (fs_read_file(AT_FDCWD, path, 128, &text, NULL) < 0 ||
	    sscanf(str_text(&text), "%d %llu %d %llu", &pids[0], &times[0], &pids[1], &times[1]) != 4 || pids[which] <= 1 ||
	    !times[which])
		return -1;
	int pid = pids[which];
	unsigned long long time = times[which];
	own_fd int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (pidfd < 0 || start_time(pid) != time)
		return -1;
	struct pollfd ended = { .fd = pidfd, .events = POLLIN };
	if (poll(&ended, 1, 0) == 1) {
		reap(pidfd);
		return -1;
	}
	return TAKE_FD(pidfd);
}

static int end_one(const char *folder, enum process which, struct err *e)
{
	own_fd int pidfd = find(folder, which);
	struct pollfd ended = { .fd = pidfd, .events = POLLIN };

	if (pidfd < 0)
		return 0;
	int r = proc_signal(pidfd, which == FRONT ? SIGKILL : SIGTERM, e); /* the one holds nothing */
	if (r == 0 && poll(&ended, 1, STOP_MS) == 0)
		r = proc_signal(pidfd, SIGKILL, e);
	if (r == 0)
		(void)poll(&ended, 1, STOP_MS);
	reap(pidfd);
	return r;
}

static int end(const char *folder, struct err *e)
{
	own_str char *path = mem_printf("%s/pid", folder);
	int r = end_one(folder, DNSMASQ, e);

	if (r == 0)
		r = end_one(folder, FRONT, e);
	return r == 0 && unlink(path) < 0 && errno != ENOENT ? err_errno(e, errno, "remove %s", path) : r;
}

/* "PID STARTTIME PID STARTTIME": dnsmasq and its child. */
static int write_pids(const char *folder, pid_t dnsmasq, pid_t front, struct err *e)
{
	own_str char *path = mem_printf("%s/pid", folder);
	own_str char *text = mem_printf("%d %" PRIu64 " %d %" PRIu64 "\n", (int)dnsmasq, start_time(dnsmasq), (int)front,
					front ? start_time(front) : 0);

	return fs_write_file(AT_FDCWD, path, text, strlen(text), 0600, false, e);
}

/* 0: it has not been started yet. */
static pid_t read_front(const char *folder)
{
	own_str char *path = mem_printf("%s/front", folder);
	own_strbuf struct str text = { 0 };
	uint64_t pid = 0;

	if (fs_read_file(AT_FDCWD, path, 32, &text, NULL) < 0)
		return 0;
	text.bytes[strcspn(str_text(&text), "\n")] = '\0';
	return str_to_u64(str_text(&text), INT32_MAX, &pid) < 0 ? 0 : (pid_t)pid;
}

/* Whether dnsmasq listens there. */
static bool serves(const char *gateway)
{
	struct sockaddr_in four = { .sin_family = AF_INET, .sin_port = htons(NAMES_PORT) };
	struct sockaddr_in6 six = { .sin6_family = AF_INET6, .sin6_port = htons(NAMES_PORT) };
	bool is_four = inet_pton(AF_INET, gateway, &four.sin_addr) == 1;
	own_fd int fd = socket(is_four ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (!is_four && inet_pton(AF_INET6, gateway, &six.sin6_addr) != 1)
		return true;
	return fd >= 0 && connect(fd, is_four ? (struct sockaddr *)&four : (struct sockaddr *)&six,
				  is_four ? sizeof four : sizeof six) == 0;
}

/* It has bound its sockets, or dropped out, when it has read the configuration: a child that ends at once is an error here. */
static int begin(const char *folder, const struct names *n, struct err *e)
{
	char zone[80], gateways[2][NETWORK_ADDRESS_SIZE] = { "" };
	unsigned length, count = 0;
	const char *const pools[] = { n->network->ipv4, n->network->ipv6 };
	own_str char *program = mem_printf("%s/libexec/carrel/carrel-names", fs_prefix());
	own_str char *log_path = mem_printf("%s/log", folder), *front_path = mem_printf("%s/front", folder);
	for (size_t i = 0; i < ARRAY_SIZE(pools); i++)
		if (pools[i])
			network_gateway(pools[i], gateways[count++], &length);
	const char *const argv[] = {
		program, folder, network_zone(n->network, zone), count > 0 ? gateways[0] : NULL, count > 1 ? gateways[1] : NULL,
		NULL
	};
	own_fd int log = open(log_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	struct proc_fd fds[] = { { 0, -1 }, { 1, log }, { 2, log } };
	struct proc_spawn how = { .argv = argv, .fds = fds, .fd_count = 3, .new_session = true };
	own_fd int pidfd = -1;
	pid_t pid = 0;

	if (log < 0)
		return err_errno(e, errno, "open %s", log_path);
	(void)unlink(front_path);
	int r = proc_start(&how, &pidfd, &pid, e);
	if (r < 0)
		return r;
	/* first without its child, in case that we end in between */
	r = write_pids(folder, pid, 0, e);
	struct pollfd ended = { .fd = pidfd, .events = POLLIN };
	bool over = false;
	for (int waited = 0; r == 0 && !over && waited < STOP_MS && !serves(gateways[0]); waited += 5)
		over = poll(&ended, 1, 5) == 1;
	if (over) {
		own_strbuf struct str said = { 0 };
		reap(pidfd);
		(void)!fs_read_file(AT_FDCWD, log_path, FILE_MOST, &said, NULL);
		int length_said = (int)strcspn(str_text(&said), "\n");
		return err_set(e, ERR_INTERNAL, "dnsmasq ended at once: %.*s", length_said < 300 ? length_said : 300,
			       str_text(&said));
	}
	pid_t front = 0;
	for (int waited = 0; r == 0 && waited < STOP_MS && (front = read_front(folder)) == 0; waited += 10)
		(void)poll(&ended, 1, 10);
	return r == 0 ? write_pids(folder, pid, front, e) : r;
}

static bool same_file(const char *path, const void *bytes, size_t length)
{
	own_strbuf struct str there = { 0 };
	return fs_read_file(AT_FDCWD, path, FILE_MOST, &there, NULL) >= 0 && there.length == length &&
	       (!length || memcmp(there.bytes, bytes, length) == 0);
}

/* 1: it was written. By way of the folder itself, as dnsmasq reads whatever appears in its folders. */
static int put_file(const char *folder, const char *path, const struct str *content, struct err *e)
{
	own_str char *next = mem_printf("%s/next", folder);

	if (same_file(path, content->bytes, content->length))
		return 0;
	int r = fs_write_file(AT_FDCWD, next, content->length ? content->bytes : "", content->length, 0644, false, e);
	if (r == 0 && rename(next, path) < 0)
		r = err_errno(e, errno, "write %s", path);
	return r < 0 ? r : 1;
}

static int prepare(const char *folder, struct err *e)
{
	static const char *const folders[] = { "", "/data", "/data/hosts", "/data/dhcp", "/root" };
	own_str char *leases = mem_printf("%s/data/leases", folder), *resolv = mem_printf("%s/data/resolv.conf", folder);
	own_strbuf struct str host = { 0 };
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(folders) && r == 0; i++) {
		own_str char *path = mem_printf("%s%s", folder, folders[i]);
		r = fs_mkdirs(path, 0755, e);
	}
	if (r == 0 && !fs_exists(AT_FDCWD, leases))
		r = put_file(folder, leases, &(struct str){ 0 }, e);
	if (r < 0 || fs_read_file(AT_FDCWD, "/etc/resolv.conf", FILE_MOST, &host, NULL) < 0)
		return r;
	r = put_file(folder, resolv, &host, e);
	return r < 0 ? r : 0;
}

int names_start(const char *folder, const struct names *n, struct err *e)
{
	own_str char *path = mem_printf("%s/config", folder);
	own_strbuf struct str config = { 0 };
	int r = names_config(n, &config, e);

	if (r == 0)
		r = prepare(folder, e);
	if (r < 0)
		return r;
	own_fd int running = find(folder, DNSMASQ), front = find(folder, FRONT);
	if (running >= 0 && front >= 0 && same_file(path, config.bytes, config.length))
		return 0;
	r = end(folder, e);
	if (r == 0)
		r = put_file(folder, path, &config, e);
	if (r >= 0)
		r = begin(folder, n, e);
	return r < 0 ? err_wrap(e, "names of network %s", n->network->name) : 1;
}

int names_stop(const char *folder, struct err *e)
{
	int r = end(folder, e);
	return r < 0 ? r : fs_remove_tree(AT_FDCWD, folder, e);
}

/* --- who is on the network --- */

static void add_lease(struct str *s, const struct member *m, const struct member_address *a)
{
	if (!a->mac)
		return;
	str_printf(s, "%s,", a->mac);
	if (a->ipv4)
		str_printf(s, "%s,", a->ipv4);
	if (a->ipv6)
		str_printf(s, "[%s],", a->ipv6);
	str_printf(s, "%s\n", m->name);
}

int names_put(const char *folder, const struct names *n, const struct member *m, struct err *e)
{
	own_str char *hosts = mem_printf("%s/data/hosts/%s", folder, m->id),
		     *dhcp = mem_printf("%s/data/dhcp/%s", folder, m->id);
	own_strbuf struct str names = { 0 }, leases = { 0 };
	const struct member_address *a = m->addresses.items;
	char buffer[80];
	const char *zone = network_zone(n->network, buffer);

	for (size_t i = 0; i < m->addresses.count; i++) {
		if (!str_eq(a[i].network, n->network->name))
			continue;
		if (a[i].ipv4)
			str_printf(&names, "%s %s.%s\n", a[i].ipv4, m->name, zone);
		if (a[i].ipv6)
			str_printf(&names, "%s %s.%s\n", a[i].ipv6, m->name, zone);
		add_lease(&leases, m, &a[i]);
	}
	if (!names.length && !leases.length)
		return names_remove(folder, m->id, e);
	bool changes = fs_exists(AT_FDCWD, dhcp);
	int r = put_file(folder, hosts, &names, e);
	if (r >= 0)
		r = put_file(folder, dhcp, &leases, e);
	own_fd int pidfd = r == 1 && changes ? find(folder, DNSMASQ) : -1;
	if (pidfd >= 0) /* a lease that was changed: what it said before is forgotten only so */
		r = proc_signal(pidfd, SIGHUP, e);
	return r < 0 ? r : 0;
}

int names_remove(const char *folder, const char *id, struct err *e)
{
	own_str char *hosts = mem_printf("%s/data/hosts/%s", folder, id), *dhcp = mem_printf("%s/data/dhcp/%s", folder, id);

	if (unlink(hosts) < 0 && errno != ENOENT)
		return err_errno(e, errno, "remove %s", hosts);
	if (unlink(dhcp) < 0)
		return errno == ENOENT ? 0 : err_errno(e, errno, "remove %s", dhcp);
	own_fd int pidfd = find(folder, DNSMASQ);
	return pidfd < 0 ? 0 : proc_signal(pidfd, SIGHUP, e);
}

int names_sweep(const char *folder, bool (*known)(void *data, const char *id), void *data, struct err *e)
{
	own_str char *path = mem_printf("%s/data/dhcp", folder);
	own_dir DIR *list = opendir(path);
	struct dirent *entry;
	int r = 0;

	if (!list)
		return errno == ENOENT ? 0 : err_errno(e, errno, "open %s", path);
	while (r == 0 && (r = fs_next_entry(list, &entry, e)) > 0)
		r = entry->d_name[0] != '.' && !known(data, entry->d_name) ? names_remove(folder, entry->d_name, e) : 0;
	return r;
}
