// SPDX-License-Identifier: MIT
/*
 * Carrying out one x86-64 instruction on the registers of a signal frame. The supervisor decodes it (run/decode_x86.c) into
 * a struct helper_insn; decoded ones are kept here by address and used as long as the bytes are the same.
 *
 * Vector registers lie in the frame as XSAVE has put them: the low 16 bytes of the first sixteen in the legacy area, the rest in components
 * whose places CPUID tells (Intel SDM volume 1, 13.4 and 13.5). A component that is marked absent counts as zero.
 *
 * Flags of arithmetic are those of the same instruction, executed on registers. A locked instruction is not atomic here:
 * no other agent reads and writes device registers in one step either.
 */
#include "preload/preload.h"

#include <cpuid.h>
#include <string.h>

/* ---- general registers ------------------------------------------------------------------------- */

static greg_t *greg(ucontext_t *uc, unsigned int number)
{
	static const uint8_t place[] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
					REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
					REG_R12, REG_R13, REG_R14, REG_R15, REG_RIP};

	return &uc->uc_mcontext.gregs[place[number % sizeof(place)]];
}

static uint64_t mask_of(unsigned int size)
{
	return size >= 8 ? UINT64_MAX : (1ull << 8 * size) - 1;
}

static uint64_t get_reg(ucontext_t *uc, unsigned int number, unsigned int size, bool high)
{
	return (uint64_t)*greg(uc, number) >> (high ? 8 : 0) & mask_of(size);
}

static void set_reg(ucontext_t *uc, unsigned int number, unsigned int size, bool high,
		    uint64_t value)
{
	greg_t *g = greg(uc, number);
	uint64_t mask = mask_of(size) << (high ? 8 : 0);

	if (size == 4) /* the only size that clears what is above */
		*g = (greg_t)(value & UINT32_MAX);
	else
		*g = (greg_t)(((uint64_t)*g & ~mask) | (value << (high ? 8 : 0) & mask));
}

static uint64_t segment_base(unsigned int segment)
{
	uint64_t base = 0;

	/* ARCH_GET_GS 0x1004, ARCH_GET_FS 0x1003 */
	SYS3(SYS_arch_prctl, segment == 1 ? 0x1003 : 0x1004, &base, 0);
	return base;
}

static uintptr_t address_of(ucontext_t *uc, const struct helper_insn *in)
{
	uint64_t addr = (uint64_t)in->displacement;

	if (in->base == HELPER_REG_RIP)
		addr += (uint64_t)uc->uc_mcontext.gregs[REG_RIP] + in->length;
	else if (in->base != HELPER_NO_REG)
		addr += (uint64_t)*greg(uc, in->base);
	if (in->index != HELPER_NO_REG)
		addr += (uint64_t)*greg(uc, in->index) * in->scale;
	if (in->address_size == 4)
		addr &= UINT32_MAX;
	return addr + (in->segment ? segment_base(in->segment) : 0);
}

/* The operand that is not memory. */
static uint64_t other(ucontext_t *uc, const struct helper_insn *in)
{
	if (in->reg == HELPER_NO_REG)
		return in->imm & mask_of(in->size);
	return get_reg(uc, in->reg, in->reg_size, in->reg_high);
}

/* ---- arithmetic -------------------------------------------------------------------------------- */

#define FLAGS 0x8d5u /* carry, parity, adjust, zero, sign, overflow */

#define TWO(name, text)                                               \
	case HELPER_ALU_##name:                                       \
		__asm__ volatile("pushq %[f]\n\tpopfq\n\t" text       \
				 " %[s], %[d]\n\tpushfq\n\tpopq %[f]" \
				 : [d] "+q"(d), [f] "+r"(f)           \
				 : [s] "q"(s)                         \
				 : "cc", "memory");                   \
		break;
#define ONE(name, text)                                                                        \
	case HELPER_ALU_##name:                                                                \
		__asm__ volatile("pushq %[f]\n\tpopfq\n\t" text " %[d]\n\tpushfq\n\tpopq %[f]" \
				 : [d] "+q"(d), [f] "+r"(f)                                    \
				 :                                                             \
				 : "cc", "memory");                                            \
		break;

/* One function per width: the compiler picks the registers' names, the suffix the instruction. */
#define COMPUTE(width, suffix)                                                      \
	static uint64_t compute##width(unsigned int op, uint64_t to, uint64_t from, \
				       uint64_t *flags)                             \
	{                                                                           \
		uint##width##_t d = (uint##width##_t)to, s = (uint##width##_t)from; \
		uint64_t f = *flags & FLAGS;                                        \
                                                                                    \
		switch (op) {                                                       \
			TWO(ADD, "add" suffix)                                      \
			TWO(OR, "or" suffix)                                        \
			TWO(ADC, "adc" suffix)                                      \
			TWO(SBB, "sbb" suffix)                                      \
			TWO(AND, "and" suffix)                                      \
			TWO(SUB, "sub" suffix)                                      \
			TWO(XOR, "xor" suffix)                                      \
			TWO(CMP, "cmp" suffix)                                      \
			TWO(TEST, "test" suffix)                                    \
			ONE(NOT, "not" suffix)                                      \
			ONE(NEG, "neg" suffix)                                      \
			ONE(INC, "inc" suffix)                                      \
			ONE(DEC, "dec" suffix)                                      \
		default:                                                            \
			break;                                                      \
		}                                                                   \
		*flags = (*flags & ~(uint64_t)FLAGS) | (f & FLAGS);                 \
		return d;                                                           \
	}

/* clang-format off */
COMPUTE(8, "b")
COMPUTE(16, "w")
COMPUTE(32, "l")
COMPUTE(64, "q")
/* clang-format on */

static uint64_t compute(unsigned int op, unsigned int size, uint64_t to, uint64_t from,
			uint64_t *flags)
{
	switch (size) {
	case 1:
		return compute8(op, to, from, flags);
	case 2:
		return compute16(op, to, from, flags);
	case 4:
		return compute32(op, to, from, flags);
	default:
		return compute64(op, to, from, flags);
	}
}

static bool keeps_result(unsigned int op)
{
	return op != HELPER_ALU_CMP && op != HELPER_ALU_TEST;
}

/* ---- vector registers -------------------------------------------------------------------------- */

#define XSAVE_HEADER 512u
#define XSAVE_MAGIC 0x46505853u

enum component { SSE = 1, YMM_HIGH = 2, ZMM_HIGH = 6, ZMM_UPPER = 7 };

/* A component of the frame's extended state: its place, NULL if the machine or the frame has none. */
static uint8_t *component(ucontext_t *uc, enum component c, uint64_t **present)
{
	uint8_t *area = (uint8_t *)uc->uc_mcontext.fpregs;
	uint32_t magic, size, eax, ebx, ecx, edx;
	uint64_t features;

	if (!area)
		return NULL;
	memcpy(&magic, area + 464, 4);
	memcpy(&size, area + 468, 4);
	memcpy(&features, area + 472, 8);
	*present = NULL;
	if (magic == XSAVE_MAGIC)
		*present = (uint64_t *)(area + XSAVE_HEADER);
	if (c == SSE)
		return area + 160;
	if (!*present || !(features >> c & 1))
		return NULL;
	__cpuid_count(0xd, c, eax, ebx, ecx, edx);
	return eax && ebx + eax <= size ? area + ebx : NULL;
}

/* Where bytes [at, at+16) or so of a register are: a part lies in one component as a whole. */
struct vector_part {
	enum component c;
	unsigned int stride, first_reg, from, length;
};

static const struct vector_part low_parts[] = {
	{SSE, 16, 0, 0, 16}, {YMM_HIGH, 16, 0, 16, 16}, {ZMM_HIGH, 32, 0, 32, 32}};
static const struct vector_part upper_parts[] = {{ZMM_UPPER, 64, 16, 0, 64}};

static unsigned int parts_of(unsigned int reg, const struct vector_part **out)
{
	*out = reg < 16 ? low_parts : upper_parts;
	return reg < 16 ? 3 : 1;
}

static void get_vector(ucontext_t *uc, unsigned int reg, uint8_t value[64])
{
	const struct vector_part *p;
	unsigned int n = parts_of(reg, &p);

	memset(value, 0, 64);
	for (; n--; p++) {
		uint64_t *present;
		uint8_t *at = component(uc, p->c, &present);

		if (at && (!present || *present >> p->c & 1))
			memcpy(value + p->from, at + (reg - p->first_reg) * p->stride, p->length);
	}
}

static void set_vector(ucontext_t *uc, unsigned int reg, const uint8_t value[64])
{
	const struct vector_part *p;
	unsigned int n = parts_of(reg, &p);

	for (; n--; p++) {
		uint64_t *present;
		uint8_t *at = component(uc, p->c, &present);

		if (!at)
			continue;
		if (present && !(*present >> p->c & 1)) {
			memset(at, 0, 16 * (size_t)p->stride);
			*present |= 1ull << p->c;
		}
		memcpy(at + (reg - p->first_reg) * p->stride, value + p->from, p->length);
	}
}

/* ---- kinds of instructions --------------------------------------------------------------------- */

static int do_load(ucontext_t *uc, const struct helper_insn *in, uintptr_t addr,
		   struct trap_fault *fault)
{
	uint64_t value = 0;

	if (access_read(addr, &value, in->size, fault))
		return -1;
	if (in->op == HELPER_OP_LOAD_SIGNED && in->size < 8 && value >> (8 * in->size - 1))
		value |= ~mask_of(in->size);
	set_reg(uc, in->reg, in->reg_size, in->reg_high, value);
	return 0;
}

static int do_alu(ucontext_t *uc, const struct helper_insn *in, uintptr_t addr,
		  struct trap_fault *fault)
{
	uint64_t flags = (uint64_t)uc->uc_mcontext.gregs[REG_EFL];
	uint64_t m = 0, r = in->op == HELPER_OP_UNARY ? 0 : other(uc, in), result;

	if (access_read(addr, &m, in->size, fault))
		return -1;
	result = in->to_reg ? compute(in->alu, in->size, r, m, &flags)
			    : compute(in->alu, in->size, m, r, &flags);
	if (keeps_result(in->alu)) {
		if (in->to_reg)
			set_reg(uc, in->reg, in->reg_size, in->reg_high, result);
		else if (access_write(addr, &result, in->size, fault))
			return -1;
	}
	uc->uc_mcontext.gregs[REG_EFL] = (greg_t)flags;
	return 0;
}

static int do_exchange(ucontext_t *uc, const struct helper_insn *in, uintptr_t addr,
		       struct trap_fault *fault)
{
	uint64_t flags = (uint64_t)uc->uc_mcontext.gregs[REG_EFL];
	uint64_t m = 0, r = other(uc, in), value = r;

	if (access_read(addr, &m, in->size, fault))
		return -1;
	if (in->op == HELPER_OP_EXCHANGE_ADD)
		value = compute(HELPER_ALU_ADD, in->size, m, r, &flags);
	if (access_write(addr, &value, in->size, fault))
		return -1;
	set_reg(uc, in->reg, in->reg_size, in->reg_high, m);
	uc->uc_mcontext.gregs[REG_EFL] = (greg_t)flags;
	return 0;
}

static int do_compare_exchange(ucontext_t *uc, const struct helper_insn *in, uintptr_t addr,
			       struct trap_fault *fault)
{
	uint64_t flags = (uint64_t)uc->uc_mcontext.gregs[REG_EFL];
	uint64_t m = 0, value, expected = get_reg(uc, 0, in->size, false);

	if (access_read(addr, &m, in->size, fault))
		return -1;
	compute(HELPER_ALU_CMP, in->size, expected, m, &flags);
	value = m == expected ? other(uc, in) : m; /* the processor writes in both cases */
	if (access_write(addr, &value, in->size, fault))
		return -1;
	if (m != expected)
		set_reg(uc, 0, in->size, false, m);
	uc->uc_mcontext.gregs[REG_EFL] = (greg_t)flags;
	return 0;
}

/* Elements that one trap carries out; the rest of a repeated instruction faults again. */
#define STRING_STEPS 4096u

static int string_step(ucontext_t *uc, const struct helper_insn *in, struct trap_fault *fault)
{
	greg_t *gregs = uc->uc_mcontext.gregs;
	int64_t step = gregs[REG_EFL] & 0x400 ? -(int64_t)in->size : in->size;
	uint64_t value = get_reg(uc, 0, in->size, false);
	uint64_t from = (uint64_t)gregs[REG_RSI];

	if (in->segment)
		from += segment_base(in->segment);
	if (in->op != HELPER_OP_STORE_STRING) {
		value = 0;
		if (access_read(from, &value, in->size, fault))
			return -1;
	}
	if (in->op == HELPER_OP_LOAD_STRING)
		set_reg(uc, 0, in->size, false, value);
	else if (access_write((uintptr_t)gregs[REG_RDI], &value, in->size, fault))
		return -1;
	if (in->op != HELPER_OP_STORE_STRING)
		gregs[REG_RSI] += step;
	if (in->op != HELPER_OP_LOAD_STRING)
		gregs[REG_RDI] += step;
	return 0;
}

/* *finished: the instruction pointer may advance. */
static int do_string(ucontext_t *uc, const struct helper_insn *in, struct trap_fault *fault,
		     bool *finished)
{
	greg_t *count = &uc->uc_mcontext.gregs[REG_RCX];

	*finished = true;
	if (!in->repeat)
		return string_step(uc, in, fault);
	for (unsigned int i = 0; *count; i++) {
		/* What has been moved has been moved, as when the processor is interrupted in it. */
		if (i == STRING_STEPS) {
			*finished = false;
			return 0;
		}
		if (string_step(uc, in, fault))
			return -1;
		--*count;
	}
	return 0;
}

static int do_vector_load(ucontext_t *uc, const struct helper_insn *in, uintptr_t addr,
			  struct trap_fault *fault)
{
	uint8_t old[64], value[64] = {0};

	if (access_read(addr, value + in->vector_at, in->size, fault))
		return -1;
	get_vector(uc, in->reg, old);
	for (unsigned int i = 0; i < 64; i++) {
		bool loaded = i >= in->vector_at && i < (unsigned int)in->vector_at + in->size;

		if (!loaded && (i < in->vector_keep || (i >= 16 && !in->vector_zero_upper)))
			value[i] = old[i];
	}
	set_vector(uc, in->reg, value);
	return 0;
}

static int do_vector_store(ucontext_t *uc, const struct helper_insn *in, uintptr_t addr,
			   struct trap_fault *fault)
{
	uint8_t value[64];

	get_vector(uc, in->reg, value);
	return access_write(addr, value + in->vector_at, in->size, fault);
}

static int do_move_64(ucontext_t *uc, const struct helper_insn *in, uintptr_t addr,
		      struct trap_fault *fault)
{
	uint8_t value[64];

	if (access_read(addr, value, sizeof(value), fault))
		return -1;
	return access_write(get_reg(uc, in->reg, in->reg_size, false), value, sizeof(value), fault);
}

static int do_store(ucontext_t *uc, const struct helper_insn *in, uintptr_t addr,
		    struct trap_fault *fault)
{
	uint64_t value = other(uc, in);

	return access_write(addr, &value, in->size, fault);
}

static bool is_string(const struct helper_insn *in)
{
	return in->op >= HELPER_OP_MOVE_STRING && in->op <= HELPER_OP_LOAD_STRING;
}

static enum execute_result carry_out(ucontext_t *uc, const struct helper_insn *in,
				     struct trap_fault *fault)
{
	static int (*const handlers[])(ucontext_t *, const struct helper_insn *, uintptr_t,
				       struct trap_fault *) = {
		[HELPER_OP_LOAD] = do_load,
		[HELPER_OP_LOAD_SIGNED] = do_load,
		[HELPER_OP_STORE] = do_store,
		[HELPER_OP_ALU] = do_alu,
		[HELPER_OP_UNARY] = do_alu,
		[HELPER_OP_EXCHANGE] = do_exchange,
		[HELPER_OP_EXCHANGE_ADD] = do_exchange,
		[HELPER_OP_COMPARE_EXCHANGE] = do_compare_exchange,
		[HELPER_OP_VECTOR_LOAD] = do_vector_load,
		[HELPER_OP_VECTOR_STORE] = do_vector_store,
		[HELPER_OP_MOVE_64] = do_move_64,
	};
	bool finished = true;
	int rc;

	if (is_string(in))
		rc = do_string(uc, in, fault, &finished);
	else if (in->op < sizeof(handlers) / sizeof(handlers[0]) && handlers[in->op])
		rc = handlers[in->op](uc, in, address_of(uc, in), fault);
	else
		return EXECUTE_UNKNOWN;
	if (rc)
		return EXECUTE_FAULT;
	if (finished)
		uc->uc_mcontext.gregs[REG_RIP] += in->length;
	return EXECUTE_DONE;
}

/* ---- decoded instructions ---------------------------------------------------------------------- */

#define DECODED 128u

static struct decoded {
	_Atomic uint32_t sequence; /* odd: being written */
	uintptr_t pc;
	struct helper_insn insn;
} decoded[DECODED];

static struct decoded *place_of(uintptr_t pc)
{
	return &decoded[(pc ^ pc >> 7) % DECODED];
}

static bool recall(uintptr_t pc, const uint8_t *code, size_t known, struct helper_insn *out)
{
	struct decoded *d = place_of(pc);
	uint32_t before = atomic_load_explicit(&d->sequence, memory_order_acquire);

	if (before & 1 || d->pc != pc)
		return false;
	*out = d->insn;
	atomic_thread_fence(memory_order_acquire);
	return before == atomic_load_explicit(&d->sequence, memory_order_relaxed) && out->length &&
	       out->length <= known && !memcmp(out->code, code, out->length);
}

static void remember(uintptr_t pc, const struct helper_insn *insn)
{
	struct decoded *d = place_of(pc);
	uint32_t before = atomic_load_explicit(&d->sequence, memory_order_relaxed);

	if (before & 1 ||
	    !atomic_compare_exchange_strong_explicit(&d->sequence, &before, before + 1,
						     memory_order_acquire, memory_order_relaxed))
		return;
	d->pc = pc;
	d->insn = *insn;
	atomic_store_explicit(&d->sequence, before + 2, memory_order_release);
}

enum execute_result execute(ucontext_t *uc, struct trap_fault *fault)
{
	uintptr_t pc = (uintptr_t)uc->uc_mcontext.gregs[REG_RIP];
	struct helper_insn insn;
	uint8_t code[HELPER_CODE_MAX];
	size_t known = sizeof(code) - guarded_copy(code, (void *)pc, sizeof(code));

	if (!recall(pc, code, known, &insn)) {
		memset(&insn, 0, sizeof(insn));
		memcpy(insn.code, code, known);
		insn.length = (uint8_t)known;
		if (fast_decode(&insn))
			return EXECUTE_UNKNOWN;
		remember(pc, &insn);
	}
	return carry_out(uc, &insn, fault);
}

/* ---- guarded_x86.S ----------------------------------------------------------------------------- */

extern const char guarded_copy8_load[], guarded_copy8_store[], guarded_copy_at[],
	guarded_copy_end[], guarded_touch_at[], guarded_touch_end[];

bool guarded_fixup(ucontext_t *uc)
{
	greg_t *pc = &uc->uc_mcontext.gregs[REG_RIP];
	uintptr_t at = (uintptr_t)*pc;

	if (at == (uintptr_t)guarded_copy8_load || at == (uintptr_t)guarded_copy8_store ||
	    at == (uintptr_t)guarded_copy_at)
		*pc = (greg_t)(uintptr_t)guarded_copy_end;
	else if (at == (uintptr_t)guarded_touch_at)
		*pc = (greg_t)(uintptr_t)guarded_touch_end;
	else
		return false;
	return true;
}
