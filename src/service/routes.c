/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one table of the API: method, path, who may, handler, the shapes of body and answer, and the words for the
 * documentation. Dispatch, checks of rights and queries, and OpenAPI follow from it; a route that is not here does not exist.
 * The first whose path fits counts, so a literal segment stands before a parameter in its place.
 */
#include "service/event.h"
#include "service/handlers.h"
#include "service/host.h"
#include "service/network.h"
#include "service/operation.h"
#include "service/routes.h"
#include "service/views.h"

static const struct parameter list_query[] = { LIMIT_PARAMETER,
					       { "after", "cursor of the page before", false },
					       { "label", "only workspaces with this label: key or key=value", false },
					       { "state", "only workspaces in this state", false },
					       { 0 } };
static const struct parameter show_query[] = {
	{ "wait", "seconds to wait (600) until it is in one of the states, another run began, or it is gone", true, 0, 600, 0 },
	{ "state", "of wait: states, joined by commas", false },
	{ 0 }
};
static const struct parameter create_query[] = { { "dry-run", "1: answer with the plan and change nothing", false }, { 0 } };
static const struct parameter remove_query[] = { { "force", "1: stop it first when it runs", false }, { 0 } };
static const struct parameter suspend_query[] = {
	{ "check", "1: answer with what it would come to (schema suspend-check) and change nothing", false }, { 0 }
};
static const struct parameter move_query[] = {
	{ "check", "1, of a live move: answer with what it would come to (schema suspend-check) and change nothing", false },
	{ 0 }
};
static const struct parameter wait_query[] = { { "wait", "seconds to wait for its end (600)", true }, { 0 } };
static const struct parameter volume_query[] = { { "owner", "user id of the owner; your own when missing", true }, { 0 } };
static const struct parameter events_query[] = { { "after", "number of the last event that was seen", true },
						 LIMIT_PARAMETER,
						 { "follow", "1: server-sent events, without end", false },
						 { 0 } };
static const struct parameter image_query[] = { { "name", "name of the image", false },
						{ "format", "of the body: tar, oci, disk or raw", false },
						{ "firmware", "of a disk: bios or uefi", false },
						{ "disk-bus", "of a disk: virtio, sata or nvme", false },
						{ "nic", "of a disk: virtio or e1000", false },
						{ "tag", "of an OCI archive with several images", false },
						{ "architecture", "processor; the service's own when missing", false },
						{ "init", "whether it has an init: yes or no; found out when missing", false },
						{ 0 } };
static const struct parameter host_query[] = {
	{ "host", "name of the host; the one that new workspaces go to when missing", false }, { 0 }
};
static const struct parameter kernel_query[] = { { "name", "name of the kernel", false }, { 0 } };
static const struct parameter image_page_query[] = { LIMIT_PARAMETER,
						     { "after", "name of the last item of the page before", false },
						     { 0 } };
static const struct parameter display_query[] = {
	{ "raw", "1: messages are RFB as they are, as viewers in a browser speak it; else frames as in all streams", false },
	{ 0 }
};
static const struct parameter export_query[] = {
	{ "format", "oci, oci-zstd, partitions or tar; of disks qcow2, vmdk, ova or raw", false }, { 0 }
};

#define W "/v1/workspaces/{workspace}"
#define STREAM (ROUTE_WEBSOCKET)

const struct route routes[] = {
	{ "GET", "/v1/version", NEED_READ, handle_version, "Version of the service, and who you are", NULL, &version_shape,
	  NULL, 0, 0 },
	{ "GET", "/v1/openapi.json", NEED_READ, handle_openapi, "This file", NULL, NULL, NULL, ROUTE_TEXT, 0 },
	{ "GET", "/v1/doctor", NEED_READ, handle_doctor, "What hosts can do and what they miss", NULL, NULL, NULL, ROUTE_TEXT,
	  0 },
	{ "GET", "/metrics", NEED_READ, handle_metrics, "Metrics (OpenMetrics)", NULL, NULL, NULL, ROUTE_TEXT, 0 },

	{ "GET", "/v1/workspaces", NEED_READ, handle_workspaces_list, "List workspaces", NULL, &workspace_shape, list_query,
	  ROUTE_LIST | ROUTE_TAG, 0 },
	{ "POST", "/v1/workspaces", NEED_CHANGE, handle_workspaces_create, "Deploy a workspace", &create_shape,
	  &workspace_shape, create_query, ROUTE_KEY, 201 },
	{ "GET", W, NEED_READ, handle_workspace_show, "Show a workspace", NULL, &workspace_shape, show_query, ROUTE_TAG, 0 },
	{ "PATCH", W, NEED_CHANGE, handle_workspace_change, "Rename, relabel or grow a workspace", &change_shape,
	  &workspace_shape, NULL, ROUTE_TAG, 0 },
	{ "DELETE", W, NEED_CHANGE, handle_workspace_remove, "Remove a workspace", NULL, &operation_shape, remove_query,
	  ROUTE_TAG, 202 },
	{ "POST", W "/start", NEED_CHANGE, handle_workspace_start, "Start it", NULL, &operation_shape, NULL, 0, 202 },
	{ "POST", W "/stop", NEED_CHANGE, handle_workspace_stop, "Stop it", &stop_shape, &operation_shape, NULL, ROUTE_OPTIONAL,
	  202 },
	{ "POST", W "/restart", NEED_CHANGE, handle_workspace_restart, "Stop it if it runs, and start it", NULL,
	  &operation_shape, NULL, 0, 202 },
	{ "POST", W "/pause", NEED_CHANGE, handle_workspace_pause, "Freeze its processes", NULL, &operation_shape, NULL, 0,
	  202 },
	{ "POST", W "/resume", NEED_CHANGE, handle_workspace_resume, "Let them go on, from memory or from disk", NULL,
	  &operation_shape, NULL, 0, 202 },
	{ "POST", W "/suspend", NEED_CHANGE, handle_workspace_suspend, "Put its memory on disk and give back what it uses",
	  NULL, &operation_shape, suspend_query, 0, 202 },
	{ "POST", W "/move", NEED_CHANGE, handle_workspace_move, "Change its engine: stop it there, start it here", &move_shape,
	  &operation_shape, move_query, 0, 202 },
	{ "POST", W "/clone", NEED_CHANGE, handle_workspace_clone, "Make copies of it: running ones of a running machine, else "
	  "of its volumes",
	  &clone_shape, &operation_shape, NULL, ROUTE_OPTIONAL | ROUTE_KEY, 202 },
	{ "GET", W "/why", NEED_READ, handle_workspace_why, "What it waits for, or why it failed", NULL, &why_shape, NULL, 0,
	  0 },
	{ "GET", W "/attach", NEED_CHANGE, handle_workspace_stream, "Input and output of its program", NULL, NULL, NULL, STREAM,
	  0 },
	{ "GET", W "/display", NEED_CHANGE, handle_workspace_stream, "The screen of a machine that boots a disk (RFB, RFC "
	  "6143)", NULL, NULL,
	  display_query, STREAM, 0 },
	{ "GET", W "/console", NEED_CHANGE, handle_workspace_stream, "Its console", NULL, NULL, NULL, STREAM, 0 },
	{ "GET", W "/exec", NEED_CHANGE, handle_workspace_stream, "Run one more program in it", NULL, NULL, NULL, STREAM, 0 },
	{ "GET", W "/logs", NEED_READ, handle_workspace_stream, "What its program wrote", NULL, NULL, NULL, STREAM, 0 },
	{ "GET", W "/copy-in", NEED_CHANGE, handle_workspace_stream, "Unpack a tar in it", NULL, NULL, NULL, STREAM, 0 },
	{ "GET", W "/copy-out", NEED_CHANGE, handle_workspace_stream, "A tar of a part of it", NULL, NULL, NULL, STREAM, 0 },
	{ "GET", W "/export", NEED_CHANGE, handle_workspace_stream, "A bundle of it, up to its last chunk", NULL, NULL, NULL,
	  STREAM, 0 },
	{ "GET", W "/import", NEED_CHANGE, handle_workspace_stream, "Fill a new workspace with a bundle's chunks", NULL, NULL,
	  NULL, STREAM, 0 },
	{ "GET", W "/snapshots", NEED_READ, handle_snapshots_list, "List its snapshots", NULL, &snapshot_view_shape, NULL,
	  ROUTE_LIST, 0 },
	{ "POST", W "/snapshots", NEED_CHANGE, handle_snapshot_create, "Make a snapshot of its volumes",
	  &snapshot_request_shape, &operation_shape, NULL, ROUTE_OPTIONAL, 202 },
	{ "DELETE", W "/snapshots/{snapshot}", NEED_CHANGE, handle_snapshot_remove, "Remove a snapshot", NULL, &operation_shape,
	  NULL, 0, 202 },
	{ "POST", W "/snapshots/{snapshot}/restore", NEED_CHANGE, handle_snapshot_restore, "Put its volumes back to a "
	  "snapshot", NULL, &operation_shape,
	  NULL, 0, 202 },

	{ "GET", W "/traffic", NEED_READ, handle_workspace_traffic, "Its interfaces, with counters and drops", NULL,
	  &traffic_shape, NULL, 0, 0 },
	{ "POST", W "/judge", NEED_READ, handle_judge, "Whether a connection from it passes, and by which rule; an address "
	  "judges from outside",
	  &judge_shape, &judged_shape, NULL, 0, 0 },

	{ "GET", "/v1/networks", NEED_READ, handle_networks_list, "List networks", NULL, &network_view_shape, page_query,
	  ROUTE_LIST, 0 },
	{ "POST", "/v1/networks", NEED_ADMIN, handle_networks_create, "Create a network", &network_create_shape,
	  &network_view_shape, NULL, 0, 201 },
	{ "GET", "/v1/networks/{network}", NEED_READ, handle_network_show, "Show a network and who is on it", NULL,
	  &network_view_shape, NULL, ROUTE_TAG, 0 },
	{ "DELETE", "/v1/networks/{network}", NEED_ADMIN, handle_network_remove, "Remove a network that nobody uses", NULL,
	  NULL, NULL, ROUTE_TAG, 204 },
	{ "GET", "/v1/groups", NEED_READ, handle_groups_list, "List groups", NULL, &group_view_shape, image_page_query,
	  ROUTE_LIST, 0 },
	{ "GET", "/v1/groups/{group}", NEED_READ, handle_group_show, "Show a group", NULL, &group_view_shape, NULL, ROUTE_TAG,
	  0 },
	{ "PATCH", "/v1/groups/{group}", NEED_CHANGE, handle_group_change, "Share a group", &group_change_shape,
	  &group_view_shape, NULL, ROUTE_TAG, 0 },
	{ "DELETE", "/v1/groups/{group}", NEED_CHANGE, handle_group_remove, "Remove a group that nobody is in", NULL, NULL,
	  NULL, ROUTE_TAG, 204 },

	{ "GET", "/v1/volumes", NEED_READ, handle_volumes_list, "List kept volumes", NULL, &volume_shape, NULL, ROUTE_LIST, 0 },
	{ "DELETE", "/v1/volumes/{volume}", NEED_CHANGE, handle_volume_remove, "Remove a kept volume", NULL, NULL, volume_query,
	  0, 204 },

	{ "GET", "/v1/operations", NEED_READ, handle_operations_list, "List operations of the last day", NULL, &operation_shape,
	  page_query, ROUTE_LIST, 0 },
	{ "GET", "/v1/operations/{operation}", NEED_READ, handle_operation_show, "Show an operation, or wait for its end", NULL,
	  &operation_shape, wait_query, 0, 0 },
	{ "POST", "/v1/operations/{operation}/cancel", NEED_CHANGE, handle_operation_cancel, "Cancel it", NULL,
	  &operation_shape, NULL, 0, 202 },
	{ "GET", "/v1/events", NEED_READ, handle_events, "What happened", NULL, &event_shape, events_query, ROUTE_LIST, 0 },

	{ "GET", "/v1/images", NEED_READ, handle_images_list, "List images", NULL, &image_view_shape, image_page_query,
	  ROUTE_LIST, 0 },
	{ "POST", "/v1/images", NEED_CHANGE, handle_images_add, "Import an image: an archive as the body, or a source in "
	  "JSON", &image_add_shape,
	  &operation_shape, image_query, ROUTE_STREAM, 202 },
	{ "GET", "/v1/images/{image}", NEED_READ, handle_image_show, "Show an image", NULL, &image_view_shape, NULL, 0, 0 },
	{ "DELETE", "/v1/images/{image}", NEED_CHANGE, handle_image_remove, "Remove an image's name", NULL, NULL, NULL, 0,
	  204 },
	{ "GET", "/v1/images/{image}/export", NEED_READ, handle_image_export, "An archive of it", NULL, NULL, export_query,
	  ROUTE_TEXT, 0 },

	{ "GET", "/v1/kernels", NEED_READ, handle_kernels_list, "List kernels for machines", NULL, &kernel_view_shape, NULL,
	  ROUTE_LIST, 0 },
	{ "POST", "/v1/kernels", NEED_CHANGE, handle_kernels_add, "Import a kernel: Debian's package of one (or a tar of what "
	  "it installs) as the body, or a source in JSON; the first of a processor becomes its default", &image_add_shape,
	  &operation_shape, kernel_query, ROUTE_STREAM, 202 },
	{ "GET", "/v1/kernels/{kernel}", NEED_READ, handle_kernel_show, "Show a kernel", NULL, &kernel_view_shape, NULL, 0, 0 },
	{ "DELETE", "/v1/kernels/{kernel}", NEED_CHANGE, handle_kernel_remove, "Remove a kernel", NULL, NULL, NULL, 0, 204 },
	{ "POST", "/v1/kernels/{kernel}/default", NEED_ADMIN, handle_kernel_default, "Make it the default of its processor",
	  NULL, NULL, NULL, 0, 204 },

	{ "GET", "/v1/templates", NEED_READ, handle_templates_list, "List templates of machines, the one used last first", NULL,
	  &template_shape, host_query, ROUTE_LIST, 0 },
	{ "DELETE", "/v1/templates/{template}", NEED_ADMIN, handle_template_remove, "Remove a template: the next machine of "
	  "its kind boots", NULL, NULL,
	  host_query, 0, 204 },

	{ "GET", "/v1/hosts", NEED_READ, handle_hosts_list, "List hosts", NULL, &host_shape, NULL, ROUTE_LIST, 0 },
	{ "GET", "/v1/hosts/{host}/channel", NEED_HOST, handle_host_channel, "Wish and truth of a host", NULL, NULL, NULL,
	  STREAM, 0 },
	{ "GET", "/v1/hosts/{host}/streams/{stream}", NEED_HOST, handle_host_stream, "The host's side of a stream", NULL, NULL,
	  NULL, STREAM, 0 },
	{ 0 },
};
