/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_OWN_H
#define BASE_OWN_H

/*
 * Ownership visible in declarations: `own_fd int fd = -1;` closes at the end of the scope, `TAKE(p)` hands a pointer on and
 * `TAKE_FD(fd)` a descriptor, leaving nothing behind to free.
 */

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define TAKE(pointer)                                                                                                          \
	__extension__({                                                                                                        \
		__auto_type take_from = &(pointer);                                                                            \
		__auto_type taken = *take_from;                                                                                \
		*take_from = NULL;                                                                                             \
		taken;                                                                                                         \
	})

static inline int own_take_fd(int *fd)
{
	int taken = *fd;
	*fd = -1;
	return taken;
}
#define TAKE_FD(fd) own_take_fd(&(fd))

static inline void own_close(int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
}
static inline void own_free(void *pointer) { free(*(void **)pointer); }
static inline void own_fclose(FILE **file)
{
	if (*file)
		(void)fclose(*file);
}
static inline void own_closedir(DIR **dir)
{
	if (*dir)
		(void)closedir(*dir);
}

#define own_fd __attribute__((cleanup(own_close)))
#define own_str __attribute__((cleanup(own_free)))  /* any pointer from malloc */
#define own_file __attribute__((cleanup(own_fclose)))
#define own_dir __attribute__((cleanup(own_closedir)))

/* For a type with `void name_free(struct name *)`: DEFINE_FREE_AT(struct name, name, name_free) makes the cleanup call;
 * beside it stands `#define own_name __attribute__((cleanup(name_free_at)))`. */
#define DEFINE_FREE_AT(type, name, free_call)                                                                                  \
	static inline void name##_free_at(type **at)                                                                           \
	{                                                                                                                      \
		if (*at)                                                                                                       \
			free_call(*at);                                                                                        \
	}

#endif
