/* SPDX-License-Identifier: Apache-2.0 */
#include "model/travel.h"

#include <stddef.h>

#include "base/mem.h"
#include "base/str.h"

const char *const travel_environment[] = { TRAVEL_TUNABLES, "LD_BIND_NOW=1", "OPENSSL_ia32cap=:~0x5f42fc230000", "GNUTLS_CPUID_OVERRIDE=0x1e",
					   "NETTLE_FAT_OVERRIDE=vendor:intel,aesni,pclmul", "OPENBLAS_CORETYPE=Haswell", NULL };

bool travel_counts(const char *flag)
{
	static const char *const chosen_by[] = { "cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3", "avx", "avx2", "bmi1", "bmi2",
						 "f16c", "fma", "abm", "movbe", "xsave" };

	for (size_t i = 0; i < ARRAY_SIZE(chosen_by); i++)
		if (str_eq(flag, chosen_by[i]))
			return true;
	return false;
}
