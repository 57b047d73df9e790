/* SPDX-License-Identifier: Apache-2.0 */
/* Queries of workspaces to the name server, and the refusals made of them. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "network/question.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char name[QUESTION_NAME_SIZE];
	struct names_question q = { 0 };
	unsigned char copy[QUESTION_MOST];
	size_t end;

	if (question_parse(data, size, name, &end) < 0)
		return 0;
	if (end > size || strlen(name) >= sizeof name ||
	    strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-_?.") != strlen(name))
		abort();
	question_classify(name, "lab.carrel", &q);
	if (q.kind < NAMES_HERE || q.kind > NAMES_OUTSIDE || strlen(q.name) >= sizeof q.name ||
	    (q.kind == NAMES_HERE && strchr(q.name, '.')))
		abort();
	memcpy(copy, data, size);
	if (question_refuse(copy, end, QUESTION_NXDOMAIN) != end || !(copy[2] & 0x80) || (copy[3] & 15) != QUESTION_NXDOMAIN)
		abort();
	return 0;
}
