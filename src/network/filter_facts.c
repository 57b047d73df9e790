/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Other programs' rules that would stop our packets. An accept of ours does not overrule them: each base chain of a hook must
 * let a packet pass, so what they drop can only be allowed in their own tables. We never touch those; we say what to do. Found
 * are chains whose policy drops, and firewalld's, which end with a reject. libvirt's chains reject packets of its own bridges
 * alone, unless it was given a policy.
 */
#include "network/filter.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/own.h"
#include "network/filter_netlink.h"

struct finding {
	struct filter_fact *facts;
	size_t most, count;
};

static struct filter_fact *fact_new(struct finding *f)
{
	if (f->count == f->most)
		return NULL;
	f->facts[f->count] = (struct filter_fact){ 0 };
	return &f->facts[f->count++];
}

static void chain_seen(void *context, const char *family, const char *table, const char *chain)
{
	struct finding *found = context;
	const char *program = strcmp(family, "ip6") ? "iptables" : "ip6tables";
	bool iptables = !strcmp(table, "filter") && !strcmp(chain, "FORWARD");

	if (!strncmp(table, "carrel_", 7))
		return;
	struct filter_fact *fact = fact_new(found);
	if (!fact)
		return;
	(void)snprintf(fact->what, sizeof fact->what,
		       "table %s %.48s, chain %.48s drops forwarded packets that it does not know%s", family, table, chain,
		       iptables                      ? " (Docker sets this)" :
		       !strcmp(table, "firewalld")   ? " (firewalld)" :
		       !strncmp(table, "libvirt", 7) ? " (libvirt)" :
						       "");
	if (iptables)
		(void)snprintf(
			fact->advice, sizeof fact->advice,
			"allow our bridges: %s -I DOCKER-USER -i 'crn+' -j ACCEPT; %s -I DOCKER-USER -o 'crn+' -j ACCEPT",
			program, program);
	else if (!strcmp(table, "firewalld"))
		(void)snprintf(fact->advice, sizeof fact->advice,
			       "firewall-cmd --permanent --zone=trusted --add-interface=BRIDGE for each bridge of "
			       "ours, then firewall-cmd --reload");
	else
		(void)snprintf(fact->advice, sizeof fact->advice,
			       "accept packets from and to interfaces crn* in that chain: nft insert rule %s %.48s %.48s "
			       "iifname \"crn*\" accept, and the same with oifname",
			       family, table, chain);
}

static char setting(const char *path)
{
	own_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
	char value = 0;
	return fd >= 0 && read(fd, &value, 1) == 1 ? value : 0;
}

static void find_settings(struct finding *found)
{
	struct filter_fact *fact;

	if (setting("/proc/sys/net/ipv4/ip_forward") == '0' && (fact = fact_new(found))) {
		(void)snprintf(fact->what, sizeof fact->what, "this host does not forward packets (net.ipv4.ip_forward is 0)");
		(void)snprintf(fact->advice, sizeof fact->advice,
			       "the agent sets it when a network is made; a sysctl file that resets it must go");
	}
	if (setting("/proc/sys/net/bridge/bridge-nf-call-iptables") == '1' && (fact = fact_new(found))) {
		(void)snprintf(fact->what, sizeof fact->what,
			       "bridged frames also meet the host's IP rules (bridge-nf-call-iptables is 1)");
		(void)snprintf(fact->advice, sizeof fact->advice,
			       "a workspace cannot use a port that its own network publishes, and it costs speed; sysctl "
			       "net.bridge.bridge-nf-call-iptables=0 if nobody needs it");
	}
	if (setting("/proc/net/ip_tables_names") && (fact = fact_new(found))) {
		(void)snprintf(fact->what, sizeof fact->what, "rules of iptables-legacy are loaded, which nft does not show");
		(void)snprintf(fact->advice, sizeof fact->advice,
			       "look at them with iptables-legacy-save; a FORWARD policy DROP there stops workspaces");
	}
}

int filter_facts(struct filter_fact *facts, size_t most, struct err *e)
{
	struct finding found = { .facts = facts, .most = most };
	struct filter_netlink *netlink;

	if (filter_netlink_open(&netlink, e) < 0)
		return -1;
	int result = filter_netlink_dropping(netlink, chain_seen, &found, e);
	filter_netlink_free(netlink);
	if (result < 0)
		return result;
	find_settings(&found);
	return (int)found.count;
}
