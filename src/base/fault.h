/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_FAULT_H
#define BASE_FAULT_H

/*
 * Fault points: places where tests make a process die or a call fail. Release builds (-Dfaults=false) compile them to nothing.
 *
 * The plan is the file named by CARREL_FAULTS, read anew at each point (tests change it while programs run); a line is
 * "POINT kill", "POINT ERRNO-NAME" (ENOSPC, ENOMEM, EIO, EAGAIN, EPERM) or "POINT wait FIFO" (blocks until FIFO is opened for
 * writing). A matching line is consumed: it acts once. "* log FILE" appends each point reached to FILE, which is how a sweep
 * finds all points.
 */

#ifdef CARREL_FAULTS
/* 0, or the positive errno that the caller shall behave as having got. */
int fault_point(const char *name);
#else
static inline int fault_point(const char *name)
{
	(void)name;
	return 0;
}
#endif

#endif
