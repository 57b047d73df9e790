/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/engine.h"

#include "base/mem.h"
#include "engine/workspace/describe.h"
#include "engine/workspace/request.h"

static int workspace_check(const struct launch *l, struct err *e)
{
	struct request request;
	int r = request_plan(l, &request, e);

	if (r >= 0)
		request_done(&request);
	return r;
}

static int workspace_plan(const struct launch *l, struct str *ret_plan, struct err *e)
{
	struct request request;
	int r = request_plan(l, &request, e);

	if (r < 0)
		return r;
	plan_encode(&request.plan, ret_plan);
	request_done(&request);
	return 0;
}

static int workspace_describe(const struct launch *l, json_t **ret_plan, struct err *e)
{
	struct request request;
	int r = request_plan(l, &request, e);

	if (r < 0)
		return r;
	*ret_plan = describe_plan(&request.plan);
	request_done(&request);
	return 0;
}

const struct engine engine_workspace = {
	.name = "workspace",
	.check = workspace_check,
	.plan = workspace_plan,
	.describe = workspace_describe,
};

bool engine_wants_machine(const struct spec *s, bool programs)
{
	if (s->engine != ENGINE_AUTO)
		return s->engine == ENGINE_KVM || s->engine == ENGINE_EMULATOR;
	return s->isolation == ISOLATION_MACHINE || !programs;
}

int engine_choose(const struct spec *s, const struct engine_host *host, const struct engine **ret_engine, struct err *e)
{
	static const struct engine *const engines[] = { [ENGINE_WORKSPACE] = &engine_workspace, [ENGINE_KVM] = &engine_kvm,
							[ENGINE_EMULATOR] = &engine_emulator };
	unsigned wanted = s->engine;

	if (wanted == ENGINE_AUTO)
		wanted = !engine_wants_machine(s, host->programs) ? ENGINE_WORKSPACE : host->kvm ? ENGINE_KVM : ENGINE_EMULATOR;
	if (wanted >= ARRAY_SIZE(engines) || !engines[wanted]) {
		(void)err_set(e, ERR_UNSUPPORTED, "engine %s is not in this version", spec_engine_names[s->engine]);
		return err_hint(e, "use \"engine: workspace\", \"kvm\" or \"emulator\", or leave it out");
	}
	*ret_engine = engines[wanted];
	return 0;
}

int engine_of(const struct launch *l, const struct engine **ret_engine, struct err *e)
{
	const struct engine_host plain = { .programs = true };

	if (!l->engine)
		return engine_choose(l->spec, &plain, ret_engine, e);
	*ret_engine = l->engine;
	return 0;
}

int engine_plan(const struct launch *l, json_t **ret_plan, struct err *e)
{
	const struct engine *engine = NULL;
	int r = engine_of(l, &engine, e);

	return r < 0 ? r : engine->describe(l, ret_plan, e);
}
