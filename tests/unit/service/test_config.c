/* SPDX-License-Identifier: Apache-2.0 */
#include "../test.h"

#include <grp.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "service/config.h"

/* Groups of every Debian stand for those that an administrator makes. */
static char adm_name[] = "adm", games_name[] = "games", backup_name[] = "backup";

static struct config settings(bool everyone)
{
	return (struct config){ .admin_group = adm_name, .user_group = games_name, .viewer_group = backup_name,
				.everyone = everyone };
}

static gid_t group(const char *name)
{
	const struct group *g = getgrnam(name);
	if (!g)
		skip();
	return g->gr_gid;
}

static void test_roles(void **state)
{
	struct config c = settings(false), open = settings(true);
	gid_t adm = group("adm"), games = group("games"), backup = group("backup"), nobody = 65534;
	const uid_t other = 70000;

	(void)state;
	assert_true(identity_decide(&c, 0, NULL, 0).admin);
	assert_true(identity_decide(&c, geteuid(), NULL, 0).admin);
	struct identity who = identity_decide(&c, other, &nobody, 1);
	assert_false(who.admin || who.user || who.viewer);
	who = identity_decide(&c, other, &adm, 1);
	assert_true(who.admin && who.user && who.viewer);
	who = identity_decide(&c, other, &games, 1);
	assert_true(who.user && !who.admin && !who.viewer);
	who = identity_decide(&c, other, &backup, 1);
	assert_true(who.viewer && !who.admin && !who.user);
	who = identity_decide(&open, other, &nobody, 1);
	assert_true(who.user && !who.admin);
}

static void test_settings_have_presets(void **state)
{
	struct config c = { 0 };
	struct err e;

	(void)state;
	char program[] = "carreld", option[] = "--config=/nonexistent/carreld.yaml", state_option[] = "--state=/tmp/x";
	char *without[] = { program, state_option, NULL }, *with[] = { program, option, NULL };
	assert_ok(config_read(2, without, &c, &e), &e);
	assert_string_equal(c.state, "/tmp/x");
	assert_string_equal(c.admin_group, "carrel-admin");
	assert_int_equal(c.socket_mode, 666);
	assert_false(c.everyone);
	config_done(&c);
	assert_fails(config_read(2, with, &c, &e), &e, ERR_NOT_FOUND, "carreld.yaml");
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_roles), cmocka_unit_test(test_settings_have_presets) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
