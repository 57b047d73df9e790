/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/qemu/size.h"

#include "engine/qemu/arguments.h"

struct launch_size machine_size_wished(const struct spec *spec, const struct image *image, unsigned host_processors)
{
	static const struct image_machine nothing;
	struct spec_resources wanted = spec_resources_or_default(spec);
	const struct image_machine *disk = image && image->machine ? image->machine : &nothing;

	return (struct launch_size){
		.processors = machine_processors(wanted.cpu_milli ? wanted.cpu_milli : disk->cpu_milli, host_processors),
		.memory_bytes = machine_memory(machine_memory_wish(wanted.memory_bytes, disk)),
	};
}

struct launch_size machine_size(const struct launch *l)
{
	struct launch_size size = machine_size_wished(l->spec, l->image, l->host_machine->processors),
			   fixed = l->host_machine->size;

	return (struct launch_size){ fixed.processors ? fixed.processors : size.processors,
				     fixed.memory_bytes ? fixed.memory_bytes : size.memory_bytes };
}
