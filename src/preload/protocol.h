/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_PRELOAD_PROTOCOL_H
#define SWIOMMU_PRELOAD_PROTOCOL_H

/*
 * Between the preload helper in the program and the supervisor.
 *
 * Marked calls. The helper makes system calls as the program would, but puts HELPER_MARK into the upper half of the
 * descriptor argument, which the kernel ignores. So the supervisor sees with every trapped call whether it came through
 * a helper: nothing has to be registered, and a program that has none (after an exec of a static one, say) is not
 * taken for one that has. Some marked ioctls exist only between the two (HELPER_CALL_*).
 *
 * Tokens. An open file's position is its token (see run/files.c); the helper reads it before each fast call, which tells
 * for certain what the descriptor is at that moment. The supervisor takes it together with a secret number only, which
 * it gave out for a descriptor that the program really had.
 *
 * The ring. Slots in memory that both sides see; a thread of the supervisor looks at them while there is traffic.
 * It serves only calls that succeed: whatever it refuses, the helper repeats as an ordinary system call, for a call that
 * fails has changed nothing. So the ring can be left at any time and on any doubt.
 *
 * Everything here comes from the program, which is not trusted: the supervisor copies before it looks.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/ioctl.h>

/* Upper half of the descriptor argument: the mark, and the number of the process' ring (0: none). */
#define HELPER_MARK 0x53570000u
#define HELPER_MARK_MASK 0xffff0000u
#define HELPER_FD(fd, ring) \
	((uint64_t)(HELPER_MARK | ((ring)&0xffffu)) << 32 | (uint32_t)(int32_t)(fd))

static inline bool helper_is_marked(uint64_t fd_arg)
{
	return (fd_arg >> 32 & HELPER_MARK_MASK) == HELPER_MARK;
}

static inline unsigned int helper_ring_of(uint64_t fd_arg)
{
	return fd_arg >> 32 & 0xffff;
}

/* ---- marked ioctls ----------------------------------------------------------------------------- */

/* On an open file of ours: what it is to be called by. -ENOTTY: not one of ours. */
struct helper_token {
	uint64_t token, secret;
	uint32_t flags;
	uint32_t reserved;
};
#define HELPER_CALL_TOKEN _IOR(';', 0xf8, struct helper_token)
/* It is a device. */
#define HELPER_TOKEN_DEVICE 1u
/* Private memory is to be made shared before it is mapped through it. */
#define HELPER_TOKEN_CONVERT 2u

/* On a device: the area at file position `offset`; as struct vfio_area. -EINVAL: cannot be mapped. */
struct helper_area {
	uint64_t offset;
	uint64_t length; /* from there on */
	uint32_t trapped;
	int32_t fd; /* to be mapped, and closed then; -1: the device's own */
	uint64_t fd_offset;
};
#define HELPER_CALL_AREA _IOWR(';', 0xf9, struct helper_area)

/* On no descriptor (-1): one access to a device's registers, by token. */
struct helper_access {
	uint64_t token, secret;
	uint64_t position; /* region << 40 | offset */
	uint64_t data;	   /* address of `size` bytes, at most HELPER_ACCESS_MAX */
	uint32_t size;
	uint32_t write;
};
#define HELPER_CALL_ACCESS _IOW(';', 0xfa, struct helper_access)
#define HELPER_ACCESS_MAX 64u

/* On no descriptor: what the instruction in `code` does. -EINVAL: not known here. */
struct helper_insn;
#define HELPER_CALL_DECODE _IOWR(';', 0xfb, struct helper_insn)

/* On no descriptor: a ring for this process. */
struct helper_ring_info {
	int32_t fd; /* to be mapped, and closed then */
	uint32_t number;
	uint32_t size;
	uint32_t reserved;
};
#define HELPER_CALL_RING _IOR(';', 0xfc, struct helper_ring_info)

/* On no descriptor: 0 while the supervisor lives. */
#define HELPER_CALL_PING _IO(';', 0xfd)

/* On no descriptor: a stretch of the process' file for memory that is made shared (convert.c). */
struct helper_share {
	uint64_t length; /* in; whole pages */
	uint64_t offset; /* in the file */
	uint64_t inode;
	int32_t fd; /* to be mapped, and closed then */
	uint32_t reserved;
};
#define HELPER_CALL_SHARE _IOWR(';', 0xfe, struct helper_share)

/* ---- instructions ------------------------------------------------------------------------------ */

/*
 * One instruction, told by its effect on memory. `m` is the memory operand, `r` the other one: a register or
 * an immediate.
 */
enum helper_op {
	HELPER_OP_LOAD = 1,    /* r = m, zero extended */
	HELPER_OP_LOAD_SIGNED, /* r = m, sign extended */
	HELPER_OP_STORE,       /* m = r */
	HELPER_OP_ALU,	       /* m or r = m op r; or only the flags */
	HELPER_OP_UNARY,       /* m = op m */
	HELPER_OP_EXCHANGE,
	HELPER_OP_EXCHANGE_ADD,
	HELPER_OP_COMPARE_EXCHANGE,
	HELPER_OP_MOVE_STRING,	/* [rdi] = [rsi] */
	HELPER_OP_STORE_STRING, /* [rdi] = rax */
	HELPER_OP_LOAD_STRING,	/* rax = [rsi] */
	HELPER_OP_VECTOR_LOAD,
	HELPER_OP_VECTOR_STORE,
	HELPER_OP_MOVE_64, /* 64 bytes from m to [r] */
};

enum helper_alu {
	HELPER_ALU_ADD,
	HELPER_ALU_OR,
	HELPER_ALU_ADC,
	HELPER_ALU_SBB,
	HELPER_ALU_AND,
	HELPER_ALU_SUB,
	HELPER_ALU_XOR,
	HELPER_ALU_CMP, /* as SUB, without the result */
	HELPER_ALU_TEST,
	HELPER_ALU_NOT,
	HELPER_ALU_NEG,
	HELPER_ALU_INC,
	HELPER_ALU_DEC,
};

#define HELPER_NO_REG 0xffu
#define HELPER_REG_RIP 16u
#define HELPER_CODE_MAX 15u

struct helper_insn {
	uint8_t code[16]; /* in: the bytes at the instruction pointer; out: unchanged */
	uint8_t length;	  /* in: how many of them are known; out: of the instruction */
	uint8_t op;	  /* enum helper_op */
	uint8_t alu;
	uint8_t size;		    /* bytes of m */
	uint8_t reg;		    /* r: number as in the encoding, HELPER_NO_REG: imm */
	uint8_t reg_size;	    /* bytes of r */
	uint8_t reg_high;	    /* r is AH, CH, DH or BH */
	uint8_t to_reg;		    /* ALU: the result goes to r */
	uint8_t repeat;		    /* string: count in rcx */
	uint8_t base, index, scale; /* of m's address */
	uint8_t segment;	    /* 1 FS, 2 GS */
	uint8_t address_size;	    /* bytes: 4 or 8 */
	uint8_t vector_at;	    /* VECTOR: byte of the register where m's bytes are */
	uint8_t vector_keep; /* LOAD: so many low bytes of the register not in m keep their value */
	uint8_t vector_zero_upper; /* LOAD: what lies above is set to zero (VEX, EVEX) */
	uint8_t reserved[7];
	int64_t displacement;
	uint64_t imm;
};

/* ---- the ring ---------------------------------------------------------------------------------- */

#define HELPER_SLOTS 16u
#define HELPER_DATA_MAX 160u

/*
 * A slot goes FREE -> CLAIMED -> PENDING (helper) -> TAKEN -> DONE (supervisor) -> FREE. The helper may take a PENDING one
 * back, and says WAITED in place of TAKEN when it goes to sleep.
 */
enum helper_slot_state {
	HELPER_SLOT_FREE,
	HELPER_SLOT_CLAIMED,
	HELPER_SLOT_PENDING,
	HELPER_SLOT_TAKEN,
	HELPER_SLOT_WAITED,
	HELPER_SLOT_DONE,
};

enum helper_request_op { HELPER_REQUEST_IOCTL = 1, HELPER_REQUEST_READ, HELPER_REQUEST_WRITE };

struct helper_request {
	uint32_t op;
	uint32_t command; /* IOCTL */
	uint64_t token, secret;
	uint64_t address;   /* in the program: what `data` is a copy of */
	uint64_t position;  /* READ, WRITE: of the file */
	uint32_t data_size; /* READ, WRITE: how much is to be moved */
	uint32_t reserved;
};

struct helper_slot {
	_Alignas(64) _Atomic uint32_t state;
	uint32_t out_first, out_end; /* bytes of `data` to be copied back */
	/* DONE: -1 or smaller: to be repeated as a system call. */
	int32_t refused;
	int64_t result;
	struct helper_request request;
	uint8_t data[HELPER_DATA_MAX];
};

struct helper_ring {
	_Alignas(64) _Atomic uint32_t polling; /* the supervisor looks at the slots now */
	_Alignas(64) struct helper_slot slots[HELPER_SLOTS];
};

/*
 * Ioctls that the ring serves, with an argument of `size` bytes as it says itself: one struct that points to nothing but
 * memory to be mapped; no descriptor is given or taken.
 */
static inline bool helper_ring_serves(uint32_t command, uint32_t size)
{
	if (size > HELPER_DATA_MAX)
		return false;
	switch (command) {
	case 0x3b80: /* IOMMU_DESTROY */
	case 0x3b81: /* IOMMU_IOAS_ALLOC */
	case 0x3b83: /* IOMMU_IOAS_COPY */
	case 0x3b85: /* IOMMU_IOAS_MAP */
	case 0x3b86: /* IOMMU_IOAS_UNMAP */
	case 0x3b87: /* IOMMU_OPTION */
	case 0x3b71: /* VFIO_IOMMU_MAP_DMA */
		return true;
	case 0x3b72: /* VFIO_IOMMU_UNMAP_DMA, which may be followed by a pointer to a bitmap */
		return size <= 24;
	default:
		return false;
	}
}

#endif
