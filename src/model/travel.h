/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MODEL_TRAVEL_H
#define MODEL_TRAVEL_H

/*
 * What is bound from the start of a workspace that may change its engine with its memory (spec: travels). Programs choose their
 * code by the processor when they start, and keep the choice: what an emulated processor lacks, or what lays data out by the
 * processor's state, is not offered to them.
 *
 * AVX-512 and TSX are not emulated. Lazy binding saves the processor's state into a room that was measured at the start, which
 * on another processor is too small; so everything is bound at the start (ld.so(8)).
 */

#include <stdbool.h>
#include <stddef.h>

/*
 * The environment of its programs. A program that is started without it (su -, sudo, sshd, cron, pg_ctlcluster clean theirs)
 * chooses by the processor, and so do libraries that know no such variable (libgcrypt, Go's).
 *
 *   GLIBC_TUNABLES         glibc's names ("Memory Related Tunables" of its manual, glibc.cpu.hwcaps)
 *   LD_BIND_NOW            ld.so(8)
 *   OPENSSL_ia32cap        OPENSSL_ia32cap(3): of CPUID's leaf 7, ECX and EBX, without AVX-512, SHA, GFNI, VAES, VPCLMULQDQ
 *   GNUTLS_CPUID_OVERRIDE  GnuTLS's manual, "Hardware acceleration": AES-NI, SSSE3, PCLMUL and AVX
 *   NETTLE_FAT_OVERRIDE    Nettle's fat-x86_64.c: what it may use
 *   OPENBLAS_CORETYPE      OpenBLAS's kernels for AVX2 and FMA
 */
#define TRAVEL_TUNABLES "GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512BW,-AVX512DQ,-AVX512CD,-XSAVEC,-RTM"
extern const char *const travel_environment[]; /* NAME=VALUE, the tunables first, to NULL */

/* Whether programs of such a workspace may have chosen their code by this word of /proc/cpuinfo's flags. */
bool travel_counts(const char *flag);

/* Whether CRIU makes again what an open descriptor of a process leads to, by the text of its link in /proc/PID/fd; files and
 * sockets pass. */
bool travel_link_goes(const char *link);
/* A line of /proc/PID/net/tcp or tcp6: "ADDRESS:PORT to ADDRESS:PORT" when it is an established connection to somebody else. */
bool travel_connection(const char *line, bool ipv6, char *ret_text, size_t size);

/* Serials of a travelling machine's disks. */
#define TRAVEL_TOOLS "tools"   /* EROFS: the program that goes on in carrel-init's place, CRIU, modules */
#define TRAVEL_LUGGAGE "luggage" /* ext4: where the workspace is written when it departs */
#define TRAVEL_IMAGES "images" /* EROFS: the memory state that it goes on from */
#define TRAVEL_PROGRAM "/libexec/carrel/carrel-inner" /* on the tools */
#define TRAVEL_SAID 3 /* its descriptor: what its predecessor had read of the channel */
#define TRAVEL_FOLDER "memory" /* on the luggage */
#define TRAVEL_SCRATCH "/scratch" /* inside: where its disks are mounted */
#define TRAVEL_CGROUP "/cgroup/workspace" /* inside */

#endif
