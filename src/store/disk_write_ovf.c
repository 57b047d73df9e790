/* SPDX-License-Identifier: Apache-2.0 */
#include "store/disk_write.h"

#define MEMORY_DEFAULT (UINT64_C(512) << 20)

static void add_text(struct str *out, const char *text)
{
	for (; *text; text++) {
		if (*text == '<' || *text == '>' || *text == '&' || *text == '"')
			str_printf(out, "&#%d;", *text);
		else
			str_putc(out, *text);
	}
}

/* The order of elements in an item is that of the schema: by name. */
static void add_hardware(struct str *out, const struct image_machine *m, size_t disks)
{
	uint64_t memory = m && m->memory_bytes ? m->memory_bytes : MEMORY_DEFAULT;
	uint64_t processors = m && m->cpu_milli ? (m->cpu_milli + 999) / 1000 : 1;

	str_printf(
		out,
		"   <Item>\n    <rasd:ElementName>%llu processors</rasd:ElementName>\n    "
		"<rasd:InstanceID>1</rasd:InstanceID>\n"
		"    <rasd:ResourceType>3</rasd:ResourceType>\n    <rasd:VirtualQuantity>%llu</rasd:VirtualQuantity>\n   "
		"</Item>\n"
		"   <Item>\n    <rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits>\n    "
		"<rasd:ElementName>memory</rasd:ElementName>\n"
		"    <rasd:InstanceID>2</rasd:InstanceID>\n    <rasd:ResourceType>4</rasd:ResourceType>\n"
		"    <rasd:VirtualQuantity>%llu</rasd:VirtualQuantity>\n   </Item>\n"
		"   <Item>\n    <rasd:Address>0</rasd:Address>\n    <rasd:ElementName>SATA controller</rasd:ElementName>\n"
		"    <rasd:InstanceID>3</rasd:InstanceID>\n    <rasd:ResourceSubType>vmware.sata.ahci</rasd:ResourceSubType>\n"
		"    <rasd:ResourceType>20</rasd:ResourceType>\n   </Item>\n",
		(unsigned long long)processors, (unsigned long long)processors, (unsigned long long)(memory >> 20));
	for (size_t i = 0; i < disks; i++)
		str_printf(out,
			   "   <Item>\n    <rasd:AddressOnParent>%zu</rasd:AddressOnParent>\n    <rasd:ElementName>disk "
			   "%zu</rasd:ElementName>\n"
			   "    <rasd:HostResource>ovf:/disk/disk%zu</rasd:HostResource>\n    "
			   "<rasd:InstanceID>%zu</rasd:InstanceID>\n"
			   "    <rasd:Parent>3</rasd:Parent>\n    <rasd:ResourceType>17</rasd:ResourceType>\n   </Item>\n",
			   i, i, i, i + 5);
	str_puts(out, "   <Item>\n    <rasd:AutomaticAllocation>true</rasd:AutomaticAllocation>\n    "
		      "<rasd:Connection>network</rasd:Connection>\n"
		      "    <rasd:ElementName>network card</rasd:ElementName>\n    <rasd:InstanceID>4</rasd:InstanceID>\n"
		      "    <rasd:ResourceSubType>E1000</rasd:ResourceSubType>\n    <rasd:ResourceType>10</rasd:ResourceType>\n "
		      "  </Item>\n");
	if (m && m->firmware == FIRMWARE_UEFI)
		str_puts(out, "   <vmw:Config ovf:required=\"false\" vmw:key=\"firmware\" vmw:value=\"efi\"/>\n");
}

void disk_write_ovf(const char *name, const struct image_machine *machine, const struct disk_ovf_disk *disks, size_t count,
		    struct str *out)
{
	str_puts(out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Envelope xmlns=\"http://schemas.dmtf.org/ovf/envelope/1\""
		      " xmlns:ovf=\"http://schemas.dmtf.org/ovf/envelope/1\"\n"
		      "  xmlns:rasd=\"http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData\"\n"
		      "  xmlns:vssd=\"http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData\"\n"
		      "  xmlns:vmw=\"http://www.vmware.com/schema/ovf\">\n <References>\n");
	for (size_t i = 0; i < count; i++)
		str_printf(out, "  <File ovf:id=\"file%zu\" ovf:href=\"%s\" ovf:size=\"%llu\"/>\n", i, disks[i].file,
			   (unsigned long long)disks[i].file_bytes);
	str_puts(out, " </References>\n <DiskSection>\n  <Info>disks</Info>\n");
	for (size_t i = 0; i < count; i++)
		str_printf(out,
			   "  <Disk ovf:diskId=\"disk%zu\" ovf:fileRef=\"file%zu\" ovf:capacity=\"%llu\" "
			   "ovf:capacityAllocationUnits=\"byte\"\n"
			   "   ovf:format=\"http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized\"/>\n",
			   i, i, (unsigned long long)disks[i].disk_bytes);
	str_puts(out, " </DiskSection>\n <NetworkSection>\n  <Info>networks</Info>\n  <Network ovf:name=\"network\">\n   "
		      "<Description>any network</Description>\n  </Network>\n </NetworkSection>\n <VirtualSystem ovf:id=\"");
	add_text(out, name);
	str_puts(out, "\">\n  <Info>a machine</Info>\n  <Name>");
	add_text(out, name);
	str_puts(
		out,
		"</Name>\n  <OperatingSystemSection ovf:id=\"102\">\n   <Info>any, 64 bit</Info>\n  </OperatingSystemSection>\n"
		"  <VirtualHardwareSection>\n   <Info>devices</Info>\n   <System>\n    "
		"<vssd:ElementName>devices</vssd:ElementName>\n"
		"    <vssd:InstanceID>0</vssd:InstanceID>\n    <vssd:VirtualSystemType>vmx-10</vssd:VirtualSystemType>\n   "
		"</System>\n");
	add_hardware(out, machine, count);
	str_puts(out, "  </VirtualHardwareSection>\n </VirtualSystem>\n</Envelope>\n");
}
