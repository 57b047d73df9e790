/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SERVICE_HANDLERS_H
#define SERVICE_HANDLERS_H

/* What the routes table points to. */

#include "service/request.h"

handler_fn handle_version, handle_openapi, handle_doctor, handle_metrics;
handler_fn handle_workspaces_list, handle_workspaces_create, handle_workspace_show, handle_workspace_change,
	handle_workspace_remove;
handler_fn handle_workspace_start, handle_workspace_stop, handle_workspace_restart, handle_workspace_pause,
	handle_workspace_resume, handle_workspace_suspend, handle_workspace_move, handle_workspace_clone;
handler_fn handle_workspace_why, handle_workspace_stream;
handler_fn handle_snapshots_list, handle_snapshot_create, handle_snapshot_remove, handle_snapshot_restore;
handler_fn handle_volumes_list, handle_volume_remove;
handler_fn handle_operations_list, handle_operation_show, handle_operation_cancel;
handler_fn handle_events;
handler_fn handle_images_list, handle_images_add, handle_image_show, handle_image_remove, handle_image_export;
handler_fn handle_kernels_list, handle_kernels_add, handle_kernel_show, handle_kernel_remove, handle_kernel_default;
handler_fn handle_networks_list, handle_networks_create, handle_network_show, handle_network_remove;
handler_fn handle_groups_list, handle_group_show, handle_group_change, handle_group_remove;
handler_fn handle_workspace_traffic, handle_judge;
handler_fn handle_templates_list, handle_template_remove;
handler_fn handle_hosts_list, handle_host_channel, handle_host_stream;

extern const struct shape version_shape, image_view_shape, image_add_shape, kernel_view_shape;

#endif
