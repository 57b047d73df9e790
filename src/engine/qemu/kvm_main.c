/* SPDX-License-Identifier: Apache-2.0 */
/* carrel-kvm: whether KVM really works here. One line: "usable", or the reason why not. */
#include <stdio.h>
#include <stdlib.h>

#include "engine/qemu/kvm_probe.h"

int main(void)
{
	struct err e = { 0 };

	(void)puts(kvm_probe(&e) == 0 ? "usable" : e.message);
	return EXIT_SUCCESS;
}
