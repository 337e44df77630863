// SPDX-License-Identifier: MIT
/*
 * The PCI configuration space that a client sees (spec vfio.md 4.7).
 *
 * Every byte of it is virtual. Four arrays say all that is common to registers: the value at open,
 * the bits that a write stores, the bits that writing 1 clears, and the value now. The builders
 * fill the first three while a model is made. What is left are the registers with an effect or with
 * a value that lives elsewhere:
 *
 *   COMMAND       decoding and bus mastering are copied to atomics for accesses and DMA;
 * INTX_DISABLE masks INTx STATUS        shows the INTx line PMCSR         only D0 and D3hot exist;
 * in D3hot the BARs do not answer DEVCTL        writing the FLR bit resets the function; the bit
 * reads 0 MSI, MSI-X    enable bits follow what SET_IRQS has set up
 *
 * An access is cut into naturally aligned pieces of 1, 2 or 4 bytes. Since the arrays work by byte,
 * it does not matter to them whether a piece crosses from one capability into the next. A piece
 * that lies in a range hooked by the model goes to the model instead, without any lock.
 *
 * config.lock guards `bytes` and orders the effects of COMMAND; FLR is carried out after it is
 * dropped.
 */
#include "vfio/internal.h"

#include <errno.h>
#include <string.h>
#include <linux/pci_regs.h>

#define FIRST_CAP 0x40u
#define CAPS_END 0x100u
#define EXP_SIZE 0x3cu

/* What the bits of COMMAND are for this function; the rest is hardwired to 0. */
#define COMMAND_WRITABLE                                                                 \
	(PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_PARITY | \
	 PCI_COMMAND_SERR | PCI_COMMAND_INTX_DISABLE)

int vfio_config_init(struct vfio_device *dev)
{
	struct vfio_config *cfg = &dev->config;

	cfg->size = 256;
	cfg->next_cap = FIRST_CAP;
	cfg->link = PCI_CAPABILITY_LIST;
	cfg->next_ext = VFIO_CONFIG_MAX; /* no room before PCIe */
	return pthread_mutex_init(&cfg->lock, NULL) ? -ENOMEM : 0;
}

void vfio_config_fini(struct vfio_device *dev)
{
	pthread_mutex_destroy(&dev->config.lock);
}

/* ---- builders ---------------------------------------------------------------------------- */

void vfio_config_set(struct vfio_device *dev, unsigned int pos, unsigned int size, uint32_t value,
		     uint32_t writable, uint32_t write1clear)
{
	struct vfio_config *cfg = &dev->config;

	if (pos + size > VFIO_CONFIG_MAX || size > 4) {
		vfio_build_fail(dev, "configuration register at 0x%x", pos);
		return;
	}
	vfio_store_le(cfg->init + pos, size, value);
	vfio_store_le(cfg->writable + pos, size, writable);
	vfio_store_le(cfg->write1clear + pos, size, write1clear);
}

void vfio_config_hook(struct vfio_device *dev, unsigned int first, unsigned int length)
{
	struct vfio_config *cfg = &dev->config;

	if (first > VFIO_CONFIG_MAX || length > VFIO_CONFIG_MAX - first ||
	    !dev->model->config_read || !dev->model->config_write) {
		vfio_build_fail(dev, "hook of configuration register 0x%x", first);
		return;
	}
	for (unsigned int pos = first; pos < first + length; pos++)
		cfg->hooked[pos / 8] |= (uint8_t)(1u << pos % 8);
}

unsigned int vfio_config_add_cap(struct vfio_device *dev, uint8_t id, unsigned int size)
{
	struct vfio_config *cfg = &dev->config;
	unsigned int pos = cfg->next_cap;

	if (pos + size > CAPS_END) {
		vfio_build_fail(dev, "no room for capability 0x%02x", id);
		return 0;
	}
	cfg->init[pos] = id;
	cfg->init[cfg->link] = (uint8_t)pos;
	cfg->link = pos + 1;
	cfg->next_cap = (pos + size + 3) & ~3u;
	return pos;
}

unsigned int vfio_config_add_ext_cap(struct vfio_device *dev, uint16_t id, unsigned int version,
				     unsigned int size)
{
	struct vfio_config *cfg = &dev->config;
	unsigned int pos = cfg->next_ext;

	if (pos + size > VFIO_CONFIG_MAX) {
		vfio_build_fail(dev, "no room for extended capability 0x%04x", id);
		return 0;
	}
	vfio_store_le(cfg->init + pos, 4, id | version << 16);
	if (cfg->ext_link)
		vfio_store_le(cfg->init + cfg->ext_link + 2, 2,
			      cfg->init[cfg->ext_link + 2] | pos << 4);
	cfg->ext_link = pos;
	cfg->next_ext = (pos + size + 3) & ~3u;
	return pos;
}

void vfio_config_place(struct vfio_device *dev, unsigned int pos)
{
	struct vfio_config *cfg = &dev->config;

	if (pos % 4 || pos < FIRST_CAP || pos >= cfg->size)
		vfio_build_fail(dev, "a capability at 0x%x", pos);
	else if (pos < CAPS_END)
		cfg->next_cap = pos;
	else
		cfg->next_ext = pos;
}

void vfio_config_add_pm(struct vfio_device *dev)
{
	unsigned int pos = vfio_config_add_cap(dev, PCI_CAP_ID_PM, PCI_PM_SIZEOF);

	if (!pos)
		return;
	dev->config.pm = pos;
	vfio_config_set(dev, pos + PCI_PM_PMC, 2, 3, 0, 0);
	/* No soft reset: coming back from D3hot loses nothing. */
	vfio_config_set(dev, pos + PCI_PM_CTRL, 2, PCI_PM_CTRL_NO_SOFT_RESET,
			PCI_PM_CTRL_STATE_MASK, 0);
}

void vfio_config_add_pcie(struct vfio_device *dev, bool flr)
{
	struct vfio_config *cfg = &dev->config;
	unsigned int pos = vfio_config_add_cap(dev, PCI_CAP_ID_EXP, EXP_SIZE);

	if (!pos)
		return;
	cfg->exp = pos;
	cfg->size = VFIO_CONFIG_MAX;
	cfg->next_ext = CAPS_END;
	dev->has_flr = flr;
	dev->has_reset |= flr;
	vfio_config_set(dev, pos + PCI_EXP_FLAGS, 2, 2, 0, 0); /* version 2, endpoint */
	vfio_config_set(dev, pos + PCI_EXP_DEVCAP, 4,
			PCI_EXP_DEVCAP_RBER | (flr ? PCI_EXP_DEVCAP_FLR : 0), 0, 0);
	vfio_config_set(dev, pos + PCI_EXP_DEVCTL, 2,
			PCI_EXP_DEVCTL_RELAX_EN | PCI_EXP_DEVCTL_NOSNOOP_EN |
				PCI_EXP_DEVCTL_READRQ_512B,
			0xffff & ~(PCI_EXP_DEVCTL_PHANTOM | PCI_EXP_DEVCTL_BCR_FLR), 0);
	/* One lane at 2.5 GT/s. */
	vfio_config_set(dev, pos + PCI_EXP_LNKCAP, 4, 0x11, 0, 0);
	vfio_config_set(dev, pos + PCI_EXP_LNKSTA, 2, 0x11, 0, 0);
	vfio_config_set(dev, pos + PCI_EXP_DEVCTL2, 2, 0, 0xffff & ~PCI_EXP_DEVCTL2_ARI, 0);
}

void vfio_config_add_msi(struct vfio_device *dev, unsigned int vectors_lg2)
{
	vfio_config_add_msi_as(dev,
			       (uint16_t)(PCI_MSI_FLAGS_64BIT | (SWI_MIN(vectors_lg2, 7u) << 1)));
}

void vfio_config_add_msi_as(struct vfio_device *dev, uint16_t control)
{
	unsigned int vectors_lg2 = (control & PCI_MSI_FLAGS_QMASK) >> 1;
	bool wide = control & PCI_MSI_FLAGS_64BIT, masks = control & PCI_MSI_FLAGS_MASKBIT;
	unsigned int data = wide ? PCI_MSI_DATA_64 : PCI_MSI_DATA_32;
	unsigned int pos;

	if (vectors_lg2 > 5) {
		vfio_build_fail(dev, "%u MSI vectors", 1u << vectors_lg2);
		return;
	}
	/* Masks and pending bits follow the data, at a multiple of four bytes. */
	pos = vfio_config_add_cap(dev, PCI_CAP_ID_MSI, data + (masks ? 12 : 2));
	if (!pos)
		return;
	dev->config.msi = pos;
	dev->msi_vectors = 1u << vectors_lg2;
	vfio_config_set(dev, pos + PCI_MSI_FLAGS, 2,
			control &
				(PCI_MSI_FLAGS_64BIT | PCI_MSI_FLAGS_MASKBIT | PCI_MSI_FLAGS_QMASK),
			PCI_MSI_FLAGS_ENABLE | PCI_MSI_FLAGS_QSIZE, 0);
	vfio_config_set(dev, pos + PCI_MSI_ADDRESS_LO, 4, 0, 0xfffffffc, 0);
	if (wide)
		vfio_config_set(dev, pos + PCI_MSI_ADDRESS_HI, 4, 0, 0xffffffff, 0);
	vfio_config_set(dev, pos + data, 2, 0, 0xffff, 0);
	if (masks)
		vfio_config_set(dev, pos + data + 4, 4, 0, 0xffffffff, 0);
}

void vfio_config_add_msix(struct vfio_device *dev, unsigned int vectors, unsigned int bar,
			  uint32_t table, uint32_t pba)
{
	uint64_t size = bar < VFIO_NR_BARS ? dev->regions[bar].size : 0;
	unsigned int pos;

	if (!vectors || vectors > 2048 || (table | pba) % 8 ||
	    table + vectors * (uint64_t)PCI_MSIX_ENTRY_SIZE > size ||
	    pba + (vectors + 63) / 64 * 8ull > size) {
		vfio_build_fail(dev, "MSI-X table of %u vectors at 0x%x in BAR %u", vectors, table,
				bar);
		return;
	}
	pos = vfio_config_add_cap(dev, PCI_CAP_ID_MSIX, PCI_CAP_MSIX_SIZEOF);
	if (!pos)
		return;
	dev->config.msix = pos;
	dev->msix_vectors = vectors;
	dev->msix_bar = bar;
	dev->msix_table = table;
	vfio_config_set(dev, pos + PCI_MSIX_FLAGS, 2, vectors - 1, 0, 0);
	vfio_config_set(dev, pos + PCI_MSIX_TABLE, 4, table | bar, 0, 0);
	vfio_config_set(dev, pos + PCI_MSIX_PBA, 4, pba | bar, 0, 0);
}

static void set_bar(struct vfio_device *dev, unsigned int index)
{
	const struct vfio_region *r = &dev->regions[index];
	unsigned int pos = PCI_BASE_ADDRESS_0 + 4 * index;
	uint64_t mask = ~(r->size - 1);

	if (!r->size)
		return;
	if (r->flags & VFIO_BAR_IO) {
		vfio_config_set(dev, pos, 4, (uint32_t)r->address | PCI_BASE_ADDRESS_SPACE_IO,
				(uint32_t)mask & ~3u, 0);
		return;
	}
	vfio_config_set(dev, pos, 4,
			(uint32_t)r->address |
				(r->flags & VFIO_BAR_64BIT ? PCI_BASE_ADDRESS_MEM_TYPE_64 : 0) |
				(r->flags & VFIO_BAR_PREFETCH ? PCI_BASE_ADDRESS_MEM_PREFETCH : 0),
			(uint32_t)mask & ~15u, 0);
	if (r->flags & VFIO_BAR_64BIT)
		vfio_config_set(dev, pos + 4, 4, (uint32_t)(r->address >> 32),
				(uint32_t)(mask >> 32), 0);
}

static bool has_bar(const struct vfio_device *dev, bool io)
{
	for (unsigned int i = 0; i < VFIO_NR_BARS; i++)
		if (dev->regions[i].size && !!(dev->regions[i].flags & VFIO_BAR_IO) == io)
			return true;
	return false;
}

void vfio_config_finish(struct vfio_device *dev)
{
	const struct vfio_pci_id *id = &dev->id;
	const struct vfio_region *rom = &dev->regions[VFIO_ROM];

	vfio_config_set(dev, PCI_VENDOR_ID, 2, id->vendor, 0, 0);
	vfio_config_set(dev, PCI_DEVICE_ID, 2, id->device, 0, 0);
	vfio_config_set(dev, PCI_COMMAND, 2,
			(has_bar(dev, false) ? PCI_COMMAND_MEMORY : 0) |
				(has_bar(dev, true) ? PCI_COMMAND_IO : 0),
			COMMAND_WRITABLE, 0);
	if (dev->config.link != PCI_CAPABILITY_LIST)
		vfio_config_set(dev, PCI_STATUS, 2, PCI_STATUS_CAP_LIST, 0, 0);
	vfio_config_set(dev, PCI_REVISION_ID, 4, id->revision | id->class_code << 8, 0, 0);
	vfio_config_set(dev, PCI_CACHE_LINE_SIZE, 1, 0, 0xff, 0);
	vfio_config_set(dev, PCI_LATENCY_TIMER, 1, 0, 0xff, 0);
	/* Bit 7 of the header type: there are more functions at this address. */
	vfio_config_set(dev, PCI_HEADER_TYPE, 1, dev->place.multifunction ? 0x80 : 0, 0, 0);
	for (unsigned int i = 0; i < VFIO_NR_BARS; i++)
		set_bar(dev, i);
	vfio_config_set(dev, PCI_SUBSYSTEM_VENDOR_ID, 2, id->subsystem_vendor, 0, 0);
	vfio_config_set(dev, PCI_SUBSYSTEM_ID, 2, id->subsystem_device, 0, 0);
	if (rom->size)
		vfio_config_set(dev, PCI_ROM_ADDRESS, 4, (uint32_t)rom->address,
				(uint32_t) ~(rom->size - 1) | PCI_ROM_ADDRESS_ENABLE, 0);
	vfio_config_set(dev, PCI_INTERRUPT_LINE, 1, 0, 0xff, 0);
	vfio_config_set(dev, PCI_INTERRUPT_PIN, 1, id->int_pin, 0, 0);
	memcpy(dev->config.bytes, dev->config.init, sizeof(dev->config.bytes));
}

/* ---- effects ----------------------------------------------------------------------------- */

static uint16_t get16(const struct vfio_config *cfg, unsigned int pos)
{
	return (uint16_t)vfio_load_le(cfg->bytes + pos, 2);
}

/* Copies what others look at out of the bytes. */
static void publish_locked(struct vfio_device *dev)
{
	struct vfio_config *cfg = &dev->config;
	uint16_t command = get16(cfg, PCI_COMMAND);
	unsigned int decoding = 0;

	if (!cfg->pm || !(get16(cfg, cfg->pm + PCI_PM_CTRL) & PCI_PM_CTRL_STATE_MASK)) {
		if (command & PCI_COMMAND_MEMORY)
			decoding |= VFIO_DECODE_MEMORY;
		if (command & PCI_COMMAND_IO)
			decoding |= VFIO_DECODE_IO;
	}
	atomic_store(&dev->decoding, decoding);
	atomic_store(&dev->bus_master, command & PCI_COMMAND_MASTER);
	if (command & PCI_COMMAND_MASTER)
		atomic_store(&dev->told_bus_master, false);
	vfio_irq_intx_disable(dev, command & PCI_COMMAND_INTX_DISABLE);
}

uint16_t vfio_config_command(struct vfio_device *dev)
{
	unsigned int decoding = atomic_load(&dev->decoding);

	return (uint16_t)((decoding & VFIO_DECODE_IO ? PCI_COMMAND_IO : 0) |
			  (decoding & VFIO_DECODE_MEMORY ? PCI_COMMAND_MEMORY : 0) |
			  (atomic_load(&dev->bus_master) ? PCI_COMMAND_MASTER : 0));
}

static void tell_command(struct vfio_device *dev)
{
	if (dev->model->command)
		dev->model->command(dev->priv);
}

void vfio_config_start(struct vfio_device *dev)
{
	struct vfio_config *cfg = &dev->config;

	pthread_mutex_lock(&cfg->lock);
	memcpy(cfg->bytes, cfg->init, sizeof(cfg->bytes));
	publish_locked(dev);
	pthread_mutex_unlock(&cfg->lock);
	tell_command(dev);
}

void vfio_config_stop(struct vfio_device *dev)
{
	struct vfio_config *cfg = &dev->config;

	pthread_mutex_lock(&cfg->lock);
	cfg->bytes[PCI_COMMAND] &= (uint8_t)~PCI_COMMAND_MASTER;
	publish_locked(dev);
	pthread_mutex_unlock(&cfg->lock);
	tell_command(dev);
}

/* The value of a byte where it does not stand in the array. */
static uint8_t overlay(struct vfio_device *dev, unsigned int pos, uint8_t v)
{
	const struct vfio_config *cfg = &dev->config;

	if (pos == PCI_STATUS && vfio_irq_line(dev))
		return v | PCI_STATUS_INTERRUPT;
	if (cfg->msi && pos == cfg->msi + PCI_MSI_FLAGS &&
	    vfio_irq_active(dev) != VFIO_PCI_MSI_IRQ_INDEX)
		return (uint8_t)(v & ~PCI_MSI_FLAGS_ENABLE);
	if (cfg->msix && pos == cfg->msix + PCI_MSIX_FLAGS + 1 &&
	    vfio_irq_active(dev) == VFIO_PCI_MSIX_IRQ_INDEX)
		return v | PCI_MSIX_FLAGS_ENABLE >> 8;
	return v;
}

/* A byte is about to become `v`: what it becomes really. */
static uint8_t filter_locked(struct vfio_device *dev, unsigned int pos, uint8_t v)
{
	const struct vfio_config *cfg = &dev->config;

	if (cfg->pm && pos == cfg->pm + PCI_PM_CTRL) {
		unsigned int state = v & PCI_PM_CTRL_STATE_MASK;

		/* D1 and D2 are not supported: the write of the state is ignored. */
		if (state == 1 || state == 2)
			v = (uint8_t)((v & ~PCI_PM_CTRL_STATE_MASK) |
				      (cfg->bytes[pos] & PCI_PM_CTRL_STATE_MASK));
	}
	if (cfg->msi && pos == cfg->msi + PCI_MSI_FLAGS) {
		unsigned int capable = (v & PCI_MSI_FLAGS_QMASK) >> 1;

		if ((unsigned int)(v & PCI_MSI_FLAGS_QSIZE) >> 4 > capable)
			v = (uint8_t)((v & ~PCI_MSI_FLAGS_QSIZE) | capable << 4);
		if (vfio_irq_active(dev) != VFIO_PCI_MSI_IRQ_INDEX)
			v = (uint8_t)(v & ~PCI_MSI_FLAGS_ENABLE);
	}
	return v;
}

/* ---- accesses ---------------------------------------------------------------------------- */

static bool hooked(const struct vfio_config *cfg, unsigned int pos, unsigned int size)
{
	for (unsigned int p = pos; p < pos + size; p++)
		if (!(cfg->hooked[p / 8] & 1u << p % 8))
			return false;
	return true;
}

static void write_piece(struct vfio_device *dev, unsigned int pos, const uint8_t *buf,
			unsigned int size)
{
	struct vfio_config *cfg = &dev->config;
	unsigned int flr_byte = cfg->exp + PCI_EXP_DEVCTL + 1;
	bool flr = false, changed;
	uint16_t command;

	pthread_mutex_lock(&cfg->lock);
	command = vfio_config_command(dev);
	for (unsigned int i = 0; i < size; i++) {
		unsigned int p = pos + i;
		uint8_t v = (uint8_t)((cfg->bytes[p] & ~cfg->writable[p]) |
				      (buf[i] & cfg->writable[p]));

		v = (uint8_t)(v & ~(buf[i] & cfg->write1clear[p]));
		cfg->bytes[p] = filter_locked(dev, p, v);
		if (dev->has_flr && p == flr_byte && buf[i] & PCI_EXP_DEVCTL_BCR_FLR >> 8)
			flr = true;
	}
	publish_locked(dev);
	changed = command != vfio_config_command(dev);
	pthread_mutex_unlock(&cfg->lock);
	if (changed)
		tell_command(dev);
	if (flr)
		vfio_device_reset(dev, true);
}

int vfio_config_read(struct vfio_device *dev, unsigned int pos, uint8_t *buf, size_t len)
{
	struct vfio_config *cfg = &dev->config;
	unsigned int size;

	for (; len; pos += size, buf += size, len -= size) {
		size = vfio_piece(pos, len, 4);
		if (hooked(cfg, pos, size)) {
			uint32_t value = 0;
			int rc = dev->model->config_read(dev->priv, pos, size, &value);

			if (rc)
				return rc;
			vfio_store_le(buf, size, value);
			continue;
		}
		pthread_mutex_lock(&cfg->lock);
		for (unsigned int i = 0; i < size; i++)
			buf[i] = overlay(dev, pos + i, cfg->bytes[pos + i]);
		pthread_mutex_unlock(&cfg->lock);
	}
	return 0;
}

int vfio_config_write(struct vfio_device *dev, unsigned int pos, const uint8_t *buf, size_t len)
{
	unsigned int size;

	for (; len; pos += size, buf += size, len -= size) {
		size = vfio_piece(pos, len, 4);
		if (hooked(&dev->config, pos, size)) {
			int rc = dev->model->config_write(dev->priv, pos, size,
							  (uint32_t)vfio_load_le(buf, size));

			if (rc)
				return rc;
			continue;
		}
		write_piece(dev, pos, buf, size);
	}
	return 0;
}
