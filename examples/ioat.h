/* SPDX-License-Identifier: MIT */
#ifndef IOAT_H
#define IOAT_H

/*
 * Intel's I/OAT DMA engine as far as dma-copy needs it: a channel's registers in BAR0, and the
 * descriptors it reads from memory. Each PCI function is one channel. All is little-endian, as is
 * every machine that has one.
 */

#include <stdbool.h>
#include <stdint.h>

/* Vendor and device numbers of the engines with MSI-X and this register layout (version 3.2 on). */
static inline bool ioat_matches(unsigned int vendor, unsigned int device)
{
	switch (device & ~0x7u) {
	case 0x0e20: /* Ivy Bridge, Haswell, Broadwell: eight functions */
	case 0x2f20:
	case 0x6f20:
		return vendor == 0x8086;
	}
	/* Skylake and Cascade Lake; Ice Lake */
	return vendor == 0x8086 && (device == 0x2021 || device == 0x0b00);
}

struct reg {
	const char *name;
	uint16_t offset;
	uint16_t size;
};

/* ---- registers in BAR0 ---- */

/* Low five bits: log2 of the most bytes a descriptor may copy. */
static const struct reg reg_xfercap = {"transfer capability", 0x01, 1};

static const struct reg reg_intrctrl = {"interrupt control", 0x03, 1};
#define INTRCTRL_MSIX 0x08

static const struct reg reg_version = {"version", 0x08, 1};

static const struct reg reg_chanctrl = {"channel control", 0x80, 2};
#define CHANCTRL_REARM 0x01	       /* allow the next interrupt; needed after each */
#define CHANCTRL_ERROR_COMPLETION 0x04 /* write the completion record on errors too */
#define CHANCTRL_ERROR_ABORT 0x08      /* any error halts the channel */
#define CHANCTRL_RUN (CHANCTRL_REARM | CHANCTRL_ERROR_COMPLETION | CHANCTRL_ERROR_ABORT)

static const struct reg reg_command = {"channel command", 0x84, 1};
#define COMMAND_RESET 0x20 /* reads as set until the reset is done */

/* The doorbell: descriptors handed over since the chain address was written, modulo 65536. */
static const struct reg reg_count = {"descriptor count", 0x86, 2};

/* A state, and the address of the last descriptor done. The completion record has the same form. */
static const struct reg reg_status = {"channel status", 0x88, 8};
#define STATUS_STATE 0x7u
#define STATUS_ADDRESS (~UINT64_C(0x3f))
enum ioat_state { IOAT_ACTIVE, IOAT_IDLE, IOAT_SUSPENDED, IOAT_HALTED, IOAT_ARMED };

static const struct reg reg_chain = {"chain address", 0x90, 8}; /* of the first descriptor */
static const struct reg reg_completion = {"completion address", 0x98, 8};

/* A bit stays set until it is written as 1. */
static const struct reg reg_error = {"channel error", 0xa8, 4};
#define IOAT_REGS_SIZE 0x100u

/* The first of the errors in words. */
static inline const char *ioat_error_name(uint32_t error)
{
	if (error & 0x1)
		return "bad source address";
	if (error & 0x2)
		return "bad destination address";
	return error & 0x100 ? "read failed" : "another error";
}

/* ---- registers in PCI config space ---- */

static const struct reg cfg_command = {"PCI command", 0x04, 2};
#define PCI_COMMAND_MEMORY 0x2 /* BARs answer */
#define PCI_COMMAND_MASTER 0x4 /* DMA goes out */

/* Two that keep the channel's errors for the system; cleared as the channel error register is. */
static const struct reg cfg_uncorrectable = {"uncorrectable error status", 0x148, 4};
static const struct reg cfg_error = {"internal channel error", 0x180, 4};

/* ---- in memory ---- */

/* The device follows `next`, so a ring of them is linked once and then only refilled. */
struct ioat_desc {
	uint32_t size;
	uint32_t control;		    /* operation in bits 31:24, 0 = copy */
	uint64_t source, destination, next; /* IOVAs */
	uint64_t unused[4];
};
#define DESC_INTERRUPT 0x1  /* raise one when done */
#define DESC_COMPLETION 0x8 /* write the completion record when done */

_Static_assert(sizeof(struct ioat_desc) == 64, "the size the device steps by");

#endif
