/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_JSON_MEMORY_H
#define BASE_JSON_MEMORY_H

/* For daemons, before anything else: JSON that finds no memory ends the program, as everything does (decision 2), instead of
 * being taken for a message that says nothing. */
void json_memory_init(void);

#endif
