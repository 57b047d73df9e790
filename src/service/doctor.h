/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SERVICE_DOCTOR_H
#define SERVICE_DOCTOR_H

#include <jansson.h>

/* A host has looked anew and told its facts. */
void doctor_looked(json_int_t id);

#endif
