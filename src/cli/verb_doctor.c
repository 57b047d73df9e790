/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/show.h"

#include "base/mem.h"

static int doctor(struct cli *cli, const struct args *a, struct err *e)
{
	(void)a;
	return show_object(cli, mem_strdup("/v1/doctor"), e);
}

static const struct example examples[] = { { "carrel doctor", "what each host can do and what it lacks" }, { 0 } };
const struct verb verb_doctor = { "doctor", "say what the hosts can do and what is missing", NULL, NULL, NULL, NULL, examples, doctor };
