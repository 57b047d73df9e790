/* SPDX-License-Identifier: Apache-2.0 */
#include "node/kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/own.h"
#include "base/proc.h"
#include "base/str.h"
#include "node/record.h"

#define DEVICE "/dev/kvm"
#define ANSWER_MOST 1024
#define ANSWER_MS 30000 /* it gives up by itself before */

/* "BOOT-ID\nANSWER\n" of this boot. */
static bool known(const char *path, struct str *out)
{
	own_strbuf struct str text = { 0 };
	own_str char *first = mem_printf("%s\n", boot_id());

	if (fs_read_file(AT_FDCWD, path, ANSWER_MOST, &text, NULL) < 0 || !str_starts(str_text(&text), first))
		return false;
	str_puts(out, str_text(&text) + strlen(first));
	return true;
}

static int ask(const char *path, struct str *out, struct err *e)
{
	own_str char *program = mem_printf("%s/libexec/carrel/carrel-kvm", fs_prefix());
	const char *const argv[] = { program, NULL };
	own_strbuf struct str text = { 0 };
	int r = proc_run_within(ANSWER_MS, argv, ANSWER_MOST / 2, out, e);

	if (r < 0 && e->kind == ERR_TIMEOUT) /* once in a boot is enough of that */
		str_printf(out, "a test program did not come back within %d s: KVM hangs\n", ANSWER_MS / 1000);
	else if (r < 0)
		return r;
	str_printf(&text, "%s\n%s", boot_id(), str_text(out));
	return fs_write_file(AT_FDCWD, path, text.bytes, text.length, 0600, false, e);
}

int kvm_check(const struct node *n, struct err *e)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	own_str char *path = mem_printf("%s/node/kvm", n->config.run);
	own_strbuf struct str answer = { 0 };
	int r = 0;

	if (access(DEVICE, F_OK) < 0) { /* it may be there later: the module is loaded */
		(void)err_set(e, ERR_UNSUPPORTED, "this host has no KVM (" DEVICE ")");
		return err_hint(e, "load the module kvm_intel or kvm_amd, or use the engine emulator");
	}
	(void)pthread_mutex_lock(&lock);
	if (!known(path, &answer))
		r = ask(path, &answer, e);
	(void)pthread_mutex_unlock(&lock);
	if (r < 0)
		return r;
	while (answer.length && answer.bytes[answer.length - 1] == '\n')
		answer.bytes[--answer.length] = '\0';
	if (str_eq(str_text(&answer), "usable"))
		return 0;
	(void)err_set(e, ERR_UNSUPPORTED, "this host has no KVM that works: %s", str_text(&answer));
	return err_hint(e, "use the engine emulator");
}
