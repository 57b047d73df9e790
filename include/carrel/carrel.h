/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CARREL_CARREL_H
#define CARREL_CARREL_H

/*
 * libcarrel: deploy, use and remove workspaces from a program.
 *
 * Rules that hold for every call:
 * - 0 or a positive value is success, a negative errno is failure; the connection remembers the reason (carrel_error_...).
 * - A `ret_` output is untouched on failure. Texts that are returned through one are the caller's: carrel_free.
 * - What the API describes as an object comes as JSON text; its schema is what GET /v1/openapi.json says.
 * - REF is a workspace's id, a unique prefix of at least 4 digits of it, or its name.
 * - A connection is for one thread at a time; several connections may be used side by side.
 * - Nothing is printed, no signal is caught, no child is started.
 */

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define CARREL_API __attribute__((visibility("default")))
#else
#define CARREL_API
#endif

struct carrel;        /* a connection to a service */
struct carrel_stream; /* the standard streams of a program in a workspace */

/** Version of the library, "0.1.0". */
CARREL_API const char *carrel_version(void);

/* *
 * Makes a connection. Nothing is sent before the first call that needs the service.
 * @address "unix:/run/carrel/carreld.sock", "https://HOST:PORT", or NULL: the environment's CARREL_ADDRESS, else the first of
 * these. *ret_carrel is set also on failure (then it serves to ask for the reason), and is always to be closed.
 */
CARREL_API int carrel_open(const char *address, struct carrel **ret_carrel);

/** Closes a connection. NULL is fine. */
CARREL_API void carrel_close(struct carrel *c);

/** Frees a text that a call returned. NULL is fine. */
CARREL_API void carrel_free(void *text);

/* --- why the last call on this connection failed --- */

/** Stable name of the kind: "not-found", "denied", "invalid", ...; "none" after a success. */
CARREL_API const char *carrel_error_kind(const struct carrel *c);
/** One sentence for people. Empty after a success. Valid until the next call. */
CARREL_API const char *carrel_error_message(const struct carrel *c);
/** What the user can do about it, or "". Valid until the next call. */
CARREL_API const char *carrel_error_hint(const struct carrel *c);
/** The exit code that the command line has for this kind of error. */
CARREL_API int carrel_error_exit_code(const struct carrel *c);

/* --- any call of the API --- */

/**
 * Sends one request and returns the answer.
 * @path with its query, percent-encoded, "/v1/workspaces?limit=10"
 * @json body, or NULL
 * @ret_json may be NULL; an answer without a body is "null"
 */
CARREL_API int carrel_call(struct carrel *c, const char *method, const char *path, const char *json, char **ret_json);

/* --- workspaces --- */

/** The program's output waits for the first carrel_attach: nothing is lost. */
#define CARREL_DEPLOY_HELD 1U
/** Nothing is done; the answer is the plan of every step. */
#define CARREL_DEPLOY_DRY_RUN 2U

/**
 * Deploys a workspace.
 * @spec YAML or JSON, see carrel-spec(5)
 * @flags CARREL_DEPLOY_..., or 0
 * @ret_json the workspace, with "id" and "operation"; may be NULL
 */
CARREL_API int carrel_deploy(struct carrel *c, const char *spec, unsigned flags, char **ret_json);

/** All workspaces that the caller may see, as a JSON array. */
CARREL_API int carrel_list(struct carrel *c, char **ret_json);
/** One workspace. */
CARREL_API int carrel_show(struct carrel *c, const char *ref, char **ret_json);
/** What a workspace waits for, or why it failed. */
CARREL_API int carrel_why(struct carrel *c, const char *ref, char **ret_json);

/* These begin an operation; *ret_operation (may be NULL) is its id, for carrel_wait. */

/** Starts a workspace that is stopped or was deployed up to a lower rung. */
CARREL_API int carrel_start(struct carrel *c, const char *ref, char **ret_operation);
/** Stops a workspace: cleanly, and by force after `timeout_ms` (0: as its spec says). */
CARREL_API int carrel_stop(struct carrel *c, const char *ref, unsigned long timeout_ms, char **ret_operation);
/** Stops it and starts it again. */
CARREL_API int carrel_restart(struct carrel *c, const char *ref, char **ret_operation);
/** Freezes all processes; memory stays. */
CARREL_API int carrel_pause(struct carrel *c, const char *ref, char **ret_operation);
/** Ends a pause. */
CARREL_API int carrel_resume(struct carrel *c, const char *ref, char **ret_operation);
/** Puts its memory on disk and gives back what it uses; carrel_resume goes on from there. */
CARREL_API int carrel_suspend(struct carrel *c, const char *ref, char **ret_operation);
/** What carrel_suspend would come to now: {"level":"memory"|"volumes","reason":...}. Changes nothing. */
CARREL_API int carrel_suspend_check(struct carrel *c, const char *ref, char **ret_json);
/** Changes its engine: "workspace", "emulator" or "kvm". What runs is stopped and started there. */
CARREL_API int carrel_move(struct carrel *c, const char *ref, const char *engine, char **ret_operation);
/** Removes a workspace and its volumes, but kept ones. `force` not 0: also when it runs. */
CARREL_API int carrel_remove(struct carrel *c, const char *ref, int force, char **ret_operation);

/* --- operations and events --- */

/** Gets one JSON object. Non-zero ends carrel_events. */
typedef int carrel_json_fn(void *data, const char *json);

/**
 * Waits until an operation has ended; its failure is the failure of this call.
 * @progress called with each new version of the operation (step, bytes done and in all); may be NULL, its result is not used
 * @ret_json the operation; may be NULL
 */
CARREL_API int carrel_wait(struct carrel *c, const char *operation, carrel_json_fn *progress, void *data, char **ret_json);
/** Asks an operation to end; it undoes what it did. */
CARREL_API int carrel_cancel(struct carrel *c, const char *operation);

/* * Calls `event` with each event after number `after` (0: from the oldest kept one, -1: only new ones) as it happens, until it
 * returns non-zero. */
CARREL_API int carrel_events(struct carrel *c, long long after, carrel_json_fn *event, void *data);

/* --- programs --- */

struct carrel_stream_calls {
	/** What the program wrote; channel 1 is standard output, 2 standard error. */
	void (*output)(void *data, int channel, const char *bytes, size_t length);
	/** The program takes input: carrel_stream_write may be called. NULL: no input is given, and its end is sent at once. */
	void (*input)(void *data, struct carrel_stream *s);
};

/* *
 * Runs a program in a running workspace; carrel_stream_run comes next.
 * @request JSON: {"command":["ls","/"],"environment":{},"user":"","directory":"/","terminal":false,"stdin":true}; only command
 * is needed
 */
CARREL_API int carrel_exec(struct carrel *c, const char *ref, const char *request, const struct carrel_stream_calls *calls,
			   void *data, struct carrel_stream **ret_stream);
/** Connects to the program that a workspace was deployed with (see CARREL_DEPLOY_HELD). */
CARREL_API int carrel_attach(struct carrel *c, const char *ref, const struct carrel_stream_calls *calls, void *data,
			     struct carrel_stream **ret_stream);
/** The output that was kept; `follow` not 0: and what comes, until the program ends. */
CARREL_API int carrel_logs(struct carrel *c, const char *ref, int follow, const struct carrel_stream_calls *calls, void *data,
			   struct carrel_stream **ret_stream);
/** Makes the calls until the program has ended. *ret_status: 0-255, or 128 + signal. */
CARREL_API int carrel_stream_run(struct carrel_stream *s, int *ret_status);
/** Writes to the program's standard input. When it returns 0, stop: `input` is called again when the program takes more. */
CARREL_API int carrel_stream_write(struct carrel_stream *s, const void *bytes, size_t length);
/** Ends the program's standard input. */
CARREL_API void carrel_stream_end_input(struct carrel_stream *s);
/** New size of the program's terminal. */
CARREL_API void carrel_stream_resize(struct carrel_stream *s, unsigned rows, unsigned columns);
/** Sends a signal, "TERM", to the program. */
CARREL_API void carrel_stream_signal(struct carrel_stream *s, const char *signal);
/** Hangs up and frees. NULL is fine. */
CARREL_API void carrel_stream_close(struct carrel_stream *s);

/* --- files and images: archives as streams --- */

/** Puts up to `size` bytes into `buffer`: their number, 0 at the end, a negative errno to give up. */
typedef long carrel_read_fn(void *data, char *buffer, size_t size);
/** Takes bytes; non-zero gives up. */
typedef int carrel_write_fn(void *data, const char *bytes, size_t length);

/** Unpacks a tar into folder `path` of a workspace. */
CARREL_API int carrel_copy_in(struct carrel *c, const char *ref, const char *path, carrel_read_fn *read, void *data);
/** A tar of file or folder `path` of a workspace. */
CARREL_API int carrel_copy_out(struct carrel *c, const char *ref, const char *path, carrel_write_fn *write, void *data);

/* *
 * The disks of a stopped workspace that boots some, `format` "qcow2", "vmdk", "ova" or "raw". (A whole workspace in one file:
 * carrel export and carrel import, for such files are read in a process without rights, and this library starts none.)
 */
CARREL_API int carrel_export_disk(struct carrel *c, const char *ref, const char *format, carrel_write_fn *write, void *data);

/** All images, as a JSON array. */
CARREL_API int carrel_images(struct carrel *c, char **ret_json);
/** One image. */
CARREL_API int carrel_image_show(struct carrel *c, const char *name, char **ret_json);
/* * Uploads an archive, `format` "tar" (plain, gzip, xz, zstd) or "oci"; *ret_operation (may be NULL): the import, for
 * carrel_wait. */
CARREL_API int carrel_image_import(struct carrel *c, const char *name, const char *format, carrel_read_fn *read, void *data,
				   char **ret_operation);
/** Lets the service fetch an image, `source` "docker://HOST/NAME:TAG". */
CARREL_API int carrel_image_fetch(struct carrel *c, const char *name, const char *source, char **ret_operation);
/** Downloads an image, `format` "oci" or "tar". */
CARREL_API int carrel_image_export(struct carrel *c, const char *name, const char *format, carrel_write_fn *write, void *data);
/** Removes an image; workspaces that use it keep what they need. */
CARREL_API int carrel_image_remove(struct carrel *c, const char *name);

#ifdef __cplusplus
}
#endif

#endif
