/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NETWORK_FILTER_JUDGE_H
#define NETWORK_FILTER_JUDGE_H

#include "network/filter_model.h"

/* A connection with everything known. */
struct filter_case {
	const struct filter_party *from, *to; /* NULL: outside */
	struct filter_address from_address, to_address;
	const struct filter_interface *from_at, *to_at; /* NULL: the one with that address */
	enum rule_protocol protocol;
	bool plain;                           /* another protocol than those three: only rules without services match */
	bool any;                             /* of any service: exceptions that name some do not count */
	uint16_t port;
	bool published;
};

/* A code of enum filter_code, and whose rule it is (NULL: nobody's). */
uint32_t filter_judge_case(const struct filter_model *m, const struct filter_case *c, enum filter_side *ret_side,
			   const struct filter_party **ret_whose);

#endif
