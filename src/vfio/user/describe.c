// SPDX-License-Identifier: MIT
/*
 * The PCI function that the client sees, made after the server's device (spec vfio.md 4.7, 6.5).
 *
 * The configuration space is ours: header, BARs, PM, MSI, MSI-X and PCI Express behave as the VFIO layer has
 * them for every device. Capabilities stand where the server has them, so that what it answers itself (vendor
 * capabilities, extended ones, what lies between) is forwarded byte by byte. Ids that VFIO hides are hidden.
 *
 * BARs are as large as the next power of two. Whether one is memory or I/O is not certain: a server that never set its
 * BAR registers up has them all read as I/O. So a region that can be mapped is memory, as are those that hold
 * the MSI-X table and those too large for I/O; the options memory= and ports= decide against that.
 */
#include "vfio/device.h"
#include "vfio/user/user.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <string.h>

#define FIRST_CAP 0x40u
#define FIRST_EXT_CAP 0x100u
#define IO_MAX 256u
#define EXP_SIZE 0x3cu

struct describer {
	struct vu_device *u;
	struct vfio_device *dev;
	const uint8_t *config;
	unsigned int size;	     /* of the server's space that is used */
	bool ours[VU_CONFIG_MAX];    /* answered here */
	bool visited[VU_CONFIG_MAX]; /* a capability begins here */
};

static uint32_t get(const struct describer *d, unsigned int pos, unsigned int size)
{
	uint32_t v = 0;

	for (unsigned int i = 0; i < size && pos + i < VU_CONFIG_MAX; i++)
		v |= (uint32_t)d->config[pos + i] << 8 * i;
	return v;
}

/* Takes bytes of the space for us. False: some are taken, or it ends before. */
static bool claim(struct describer *d, unsigned int pos, unsigned int length, unsigned int end)
{
	if (pos + length > end)
		return false;
	for (unsigned int i = pos; i < pos + length; i++)
		if (d->ours[i])
			return false;
	memset(d->ours + pos, true, length);
	return true;
}

/* ---- header and BARs ------------------------------------------------------------------------- */

static uint64_t round_up(uint64_t size, uint64_t least)
{
	uint64_t v = least;

	while (v < size)
		v *= 2;
	return v;
}

/* The first standard capability with that id; 0: none. */
static unsigned int find_cap(const struct describer *d, uint8_t id)
{
	unsigned int pos = d->config[PCI_CAPABILITY_LIST] & ~3u;

	for (unsigned int i = 0; i < 48 && pos >= FIRST_CAP; i++) {
		if (d->config[pos] == id)
			return pos;
		pos = d->config[pos + 1] & ~3u;
	}
	return 0;
}

static bool holds_msix(const struct describer *d, unsigned int bar)
{
	unsigned int pos = find_cap(d, PCI_CAP_ID_MSIX);

	return pos && ((get(d, pos + PCI_MSIX_TABLE, 4) & PCI_MSIX_TABLE_BIR) == bar ||
		       (get(d, pos + PCI_MSIX_PBA, 4) & PCI_MSIX_PBA_BIR) == bar);
}

static bool is_ports(const struct describer *d, unsigned int bar)
{
	const struct vu_region *r = &d->u->shape.regions[bar];

	if ((d->u->memory_mask | d->u->ports_mask) >> bar & 1)
		return d->u->ports_mask >> bar & 1;
	return get(d, PCI_BASE_ADDRESS_0 + 4 * bar, 4) & PCI_BASE_ADDRESS_SPACE_IO &&
	       !(r->flags & VFIO_REGION_INFO_FLAG_MMAP) && r->size <= IO_MAX && !holds_msix(d, bar);
}

/* Returns whether it takes two BAR registers. */
static bool add_bar(struct describer *d, unsigned int i)
{
	const struct vu_region *r = &d->u->shape.regions[i];
	uint32_t reg = get(d, PCI_BASE_ADDRESS_0 + 4 * i, 4);
	unsigned int flags = 0;
	uint64_t size;

	if (is_ports(d, i)) {
		vfio_pci_add_region(d->dev, i, round_up(r->size, 4), VFIO_BAR_IO);
		return false;
	}
	size = round_up(r->size, 16);
	if (!(reg & PCI_BASE_ADDRESS_SPACE_IO)) {
		if ((reg & PCI_BASE_ADDRESS_MEM_TYPE_MASK) == PCI_BASE_ADDRESS_MEM_TYPE_64)
			flags |= VFIO_BAR_64BIT;
		if (reg & PCI_BASE_ADDRESS_MEM_PREFETCH)
			flags |= VFIO_BAR_PREFETCH;
	}
	if (size > 1u << 31)
		flags |= VFIO_BAR_64BIT;
	if (i + 1 == VU_NR_BARS || d->u->shape.regions[i + 1].size)
		flags &= ~VFIO_BAR_64BIT;
	vfio_pci_add_region(d->dev, i, size, flags);
	for (unsigned int k = 0; k < r->nr_areas; k++)
		vfio_pci_add_file_pages(d->dev, i, r->areas[k].offset, r->areas[k].length,
					d->u->region_fds[i], r->areas[k].fd_offset);
	return flags & VFIO_BAR_64BIT;
}

static void add_header(struct describer *d)
{
	const struct vu_shape *s = &d->u->shape;
	struct vfio_pci_id id = {
		.vendor = (uint16_t)get(d, PCI_VENDOR_ID, 2),
		.device = (uint16_t)get(d, PCI_DEVICE_ID, 2),
		.subsystem_vendor = (uint16_t)get(d, PCI_SUBSYSTEM_VENDOR_ID, 2),
		.subsystem_device = (uint16_t)get(d, PCI_SUBSYSTEM_ID, 2),
		.class_code = get(d, PCI_CLASS_PROG, 2) | get(d, PCI_CLASS_DEVICE + 1, 1) << 16,
		.revision = d->config[PCI_REVISION_ID],
	};
	uint64_t rom = s->regions[VFIO_PCI_ROM_REGION_INDEX].size;

	if (s->irqs[VFIO_PCI_INTX_IRQ_INDEX])
		id.int_pin = SWI_MIN(SWI_MAX(d->config[PCI_INTERRUPT_PIN], 1), 4);
	vfio_pci_set_id(d->dev, &id);
	if (s->flags & VFIO_DEVICE_FLAGS_RESET)
		vfio_pci_set_reset(d->dev);
	for (unsigned int i = 0; i < VU_NR_BARS; i++)
		if (s->regions[i].size && add_bar(d, i))
			i++;
	if (rom)
		vfio_pci_add_region(d->dev, VFIO_PCI_ROM_REGION_INDEX, round_up(rom, 2048), 0);
	memset(d->ours, true, FIRST_CAP);
}

/* ---- standard capabilities ------------------------------------------------------------------- */

/* Each adds the capability at `pos` for us to answer. False: it cannot be ours. */
static bool add_pm(struct describer *d, unsigned int pos)
{
	if (!claim(d, pos, PCI_PM_SIZEOF, FIRST_EXT_CAP))
		return false;
	vfio_config_add_pm(d->dev);
	vfio_config_set(d->dev, pos + PCI_PM_PMC, 2,
			get(d, pos + PCI_PM_PMC, 2) & ~(uint32_t)PCI_PM_CAP_PME_MASK, 0, 0);
	return true;
}

static bool add_msi(struct describer *d, unsigned int pos)
{
	uint32_t control = get(d, pos + PCI_MSI_FLAGS, 2), vectors = 1, lg2 = 0;
	unsigned int size = (control & PCI_MSI_FLAGS_64BIT ? 14 : 10) +
			    (control & PCI_MSI_FLAGS_MASKBIT ? 10 : 0);

	if (!d->u->shape.irqs[VFIO_PCI_MSI_IRQ_INDEX] || !claim(d, pos, size, FIRST_EXT_CAP))
		return false;
	for (; vectors * 2 <= d->u->shape.irqs[VFIO_PCI_MSI_IRQ_INDEX]; vectors *= 2)
		lg2++;
	vfio_config_add_msi_as(
		d->dev,
		(uint16_t)((control & (PCI_MSI_FLAGS_64BIT | PCI_MSI_FLAGS_MASKBIT)) | lg2 << 1));
	return true;
}

static bool add_msix(struct describer *d, unsigned int pos)
{
	uint32_t table = get(d, pos + PCI_MSIX_TABLE, 4), pba = get(d, pos + PCI_MSIX_PBA, 4);
	uint32_t vectors = (get(d, pos + PCI_MSIX_FLAGS, 2) & PCI_MSIX_FLAGS_QSIZE) + 1;
	unsigned int bar = table & PCI_MSIX_TABLE_BIR, pba_bar = pba & PCI_MSIX_PBA_BIR;
	const struct vu_region *regions = d->u->shape.regions;

	vectors = SWI_MIN(vectors, d->u->shape.irqs[VFIO_PCI_MSIX_IRQ_INDEX]);
	table &= PCI_MSIX_TABLE_OFFSET;
	pba &= PCI_MSIX_PBA_OFFSET;
	if (!vectors || bar >= VU_NR_BARS || pba_bar >= VU_NR_BARS ||
	    table + vectors * 16ull > regions[bar].size ||
	    pba + (vectors + 63) / 64 * 8ull > regions[pba_bar].size || is_ports(d, bar) ||
	    !claim(d, pos, PCI_CAP_MSIX_SIZEOF, FIRST_EXT_CAP))
		return false;
	/* The builder has both in one BAR, which is the table's; the register then names the right one. */
	vfio_config_add_msix(d->dev, vectors, bar, table, bar == pba_bar ? pba : table);
	vfio_config_set(d->dev, pos + PCI_MSIX_PBA, 4, pba | pba_bar, 0, 0);
	return true;
}

/* Version 2 only: the older one is shorter, and forwarded. */
static bool add_exp(struct describer *d, unsigned int pos)
{
	static const struct {
		unsigned int pos, size;
	} constant[] = {{PCI_EXP_FLAGS, 2},  {PCI_EXP_DEVCAP, 4},  {PCI_EXP_LNKCAP, 4},
			{PCI_EXP_LNKSTA, 2}, {PCI_EXP_DEVCAP2, 4}, {PCI_EXP_LNKCAP2, 4}};

	if ((get(d, pos + PCI_EXP_FLAGS, 2) & PCI_EXP_FLAGS_VERS) < 2 ||
	    !claim(d, pos, EXP_SIZE, FIRST_EXT_CAP))
		return false;
	vfio_config_add_pcie(d->dev, get(d, pos + PCI_EXP_DEVCAP, 4) & PCI_EXP_DEVCAP_FLR);
	for (unsigned int i = 0; i < ARRAY_SIZE(constant); i++)
		vfio_config_set(d->dev, pos + constant[i].pos, constant[i].size,
				get(d, pos + constant[i].pos, constant[i].size), 0, 0);
	return true;
}

/* Any other that VFIO shows: the header is ours, the rest the server's. */
static bool add_other(struct describer *d, unsigned int pos)
{
	return claim(d, pos, 2, FIRST_EXT_CAP) && vfio_config_add_cap(d->dev, d->config[pos], 2);
}

static const struct {
	uint8_t id;
	bool (*add)(struct describer *d, unsigned int pos);
	bool only; /* hidden when we cannot answer it */
} shown[] = {
	{PCI_CAP_ID_PM, add_pm, true},	     {PCI_CAP_ID_MSI, add_msi, true},
	{PCI_CAP_ID_MSIX, add_msix, true},   {PCI_CAP_ID_EXP, add_exp, false},
	{PCI_CAP_ID_AGP, add_other, false},  {PCI_CAP_ID_VPD, add_other, false},
	{PCI_CAP_ID_PCIX, add_other, false}, {PCI_CAP_ID_HT, add_other, false},
	{PCI_CAP_ID_VNDR, add_other, false}, {PCI_CAP_ID_SATA, add_other, false},
	{PCI_CAP_ID_AF, add_other, false},
};

static void add_cap(struct describer *d, unsigned int pos)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(shown); i++) {
		if (shown[i].id != d->config[pos])
			continue;
		vfio_config_place(d->dev, pos);
		if (!shown[i].add(d, pos) && !shown[i].only)
			add_other(d, pos);
		return;
	}
}

static void add_caps(struct describer *d)
{
	unsigned int pos = d->config[PCI_CAPABILITY_LIST] & ~3u;

	if (!(get(d, PCI_STATUS, 2) & PCI_STATUS_CAP_LIST))
		return;
	while (pos >= FIRST_CAP && !d->visited[pos]) {
		d->visited[pos] = true;
		add_cap(d, pos);
		pos = d->config[pos + 1] & ~3u;
	}
}

/* ---- extended capabilities ------------------------------------------------------------------- */

static bool ext_shown(uint16_t id)
{
	static const uint16_t ids[] = {
		PCI_EXT_CAP_ID_ERR,   PCI_EXT_CAP_ID_VC,   PCI_EXT_CAP_ID_DSN,
		PCI_EXT_CAP_ID_PWR,   PCI_EXT_CAP_ID_VNDR, PCI_EXT_CAP_ID_ACS,
		PCI_EXT_CAP_ID_ARI,   PCI_EXT_CAP_ID_ATS,  PCI_EXT_CAP_ID_SRIOV,
		PCI_EXT_CAP_ID_MCAST, PCI_EXT_CAP_ID_PRI,  PCI_EXT_CAP_ID_REBAR,
		PCI_EXT_CAP_ID_DPA,   PCI_EXT_CAP_ID_TPH,  PCI_EXT_CAP_ID_LTR,
		PCI_EXT_CAP_ID_DVSEC};

	for (unsigned int i = 0; i < ARRAY_SIZE(ids); i++)
		if (ids[i] == id)
			return true;
	return false;
}

static void add_ext_caps(struct describer *d)
{
	unsigned int pos = FIRST_EXT_CAP;

	while (pos >= FIRST_EXT_CAP && pos + 4 <= d->size && !d->visited[pos]) {
		uint32_t header = get(d, pos, 4);

		d->visited[pos] = true;
		if (!header || header == UINT32_MAX)
			return;
		/* The chain begins at 0x100, if with an id that says nothing. */
		if (ext_shown(PCI_EXT_CAP_ID(header)) || pos == FIRST_EXT_CAP) {
			bool show = ext_shown(PCI_EXT_CAP_ID(header));

			if (!claim(d, pos, 4, VU_CONFIG_MAX))
				return;
			vfio_config_place(d->dev, pos);
			vfio_config_add_ext_cap(d->dev, show ? PCI_EXT_CAP_ID(header) : 0,
						show ? PCI_EXT_CAP_VER(header) : 0, 4);
		}
		pos = PCI_EXT_CAP_NEXT(header) & ~3u;
	}
}

/* ---- the rest -------------------------------------------------------------------------------- */

/* What is not ours is the server's. Its value now stands in for when nobody has the device open. */
static void forward_rest(struct describer *d)
{
	unsigned int first = 0;

	for (unsigned int pos = 0; pos <= d->size; pos++) {
		if (pos < d->size && !d->ours[pos]) {
			vfio_config_set(d->dev, pos, 1, d->config[pos], 0, 0);
			continue;
		}
		if (first < pos)
			vfio_config_hook(d->dev, first, pos - first);
		first = pos + 1;
	}
}

int vu_describe(struct vu_device *u, const uint8_t config[VU_CONFIG_MAX], struct swi_reason *why)
{
	uint64_t size = u->shape.regions[VFIO_PCI_CONFIG_REGION_INDEX].size;
	struct describer d = {.u = u, .dev = u->dev, .config = config};
	uint32_t vendor = config[PCI_VENDOR_ID] | config[PCI_VENDOR_ID + 1] << 8;

	if (vendor == 0xffff)
		return swi_fail(why, -ENODEV, "the server's device has no vendor id");
	d.size = (unsigned int)SWI_MIN(size, VU_CONFIG_MAX);
	add_header(&d);
	add_caps(&d);
	/* Only a PCI Express function has more than 256 bytes. */
	if (vfio_device_region_size(u->dev, VFIO_PCI_CONFIG_REGION_INDEX) < VU_CONFIG_MAX)
		d.size = SWI_MIN(d.size, FIRST_EXT_CAP);
	else
		add_ext_caps(&d);
	forward_rest(&d);
	return 0;
}
