/* SPDX-License-Identifier: Apache-2.0 */
/* Engines whose workspaces can be suspended. */
#include "node/suspend.h"

const struct suspend_engine *const suspend_engines[] = { &suspend_workspace, &suspend_emulator, &suspend_kvm, NULL };
