// SPDX-License-Identifier: MIT
/*
 * Decoding instructions for the preload helper: Zydis knows x86-64, this reduces what it says to what carrying the instruction
 * out needs. Done here and not in the program, which so needs no decoder; the helper asks once per instruction.
 *
 * The list is what compilers and C libraries use on memory (spec vfio.md 5.5). Whatever is not on it, or has a form that we do
 * not carry out exactly (masked vectors, segments other than FS and GS), is -EINVAL.
 */
#include "run/helper.h"

#include <Zydis/Zydis.h>
#include <errno.h>
#include <string.h>

#include "base/base.h"

typedef ZydisDecodedInstruction insn_t;
typedef ZydisDecodedOperand operand_t;

struct kind {
	ZydisMnemonic mnemonic;
	uint8_t op, alu;
};

static const struct kind kinds[] = {
	{ZYDIS_MNEMONIC_MOV, HELPER_OP_LOAD, 0},
	{ZYDIS_MNEMONIC_MOVZX, HELPER_OP_LOAD, 0},
	{ZYDIS_MNEMONIC_MOVNTI, HELPER_OP_STORE, 0},
	{ZYDIS_MNEMONIC_MOVDIRI, HELPER_OP_STORE, 0},
	{ZYDIS_MNEMONIC_MOVSX, HELPER_OP_LOAD_SIGNED, 0},
	{ZYDIS_MNEMONIC_MOVSXD, HELPER_OP_LOAD_SIGNED, 0},
	{ZYDIS_MNEMONIC_ADD, HELPER_OP_ALU, HELPER_ALU_ADD},
	{ZYDIS_MNEMONIC_OR, HELPER_OP_ALU, HELPER_ALU_OR},
	{ZYDIS_MNEMONIC_ADC, HELPER_OP_ALU, HELPER_ALU_ADC},
	{ZYDIS_MNEMONIC_SBB, HELPER_OP_ALU, HELPER_ALU_SBB},
	{ZYDIS_MNEMONIC_AND, HELPER_OP_ALU, HELPER_ALU_AND},
	{ZYDIS_MNEMONIC_SUB, HELPER_OP_ALU, HELPER_ALU_SUB},
	{ZYDIS_MNEMONIC_XOR, HELPER_OP_ALU, HELPER_ALU_XOR},
	{ZYDIS_MNEMONIC_CMP, HELPER_OP_ALU, HELPER_ALU_CMP},
	{ZYDIS_MNEMONIC_TEST, HELPER_OP_ALU, HELPER_ALU_TEST},
	{ZYDIS_MNEMONIC_NOT, HELPER_OP_UNARY, HELPER_ALU_NOT},
	{ZYDIS_MNEMONIC_NEG, HELPER_OP_UNARY, HELPER_ALU_NEG},
	{ZYDIS_MNEMONIC_INC, HELPER_OP_UNARY, HELPER_ALU_INC},
	{ZYDIS_MNEMONIC_DEC, HELPER_OP_UNARY, HELPER_ALU_DEC},
	{ZYDIS_MNEMONIC_XCHG, HELPER_OP_EXCHANGE, 0},
	{ZYDIS_MNEMONIC_XADD, HELPER_OP_EXCHANGE_ADD, 0},
	{ZYDIS_MNEMONIC_CMPXCHG, HELPER_OP_COMPARE_EXCHANGE, 0},
	{ZYDIS_MNEMONIC_MOVDIR64B, HELPER_OP_MOVE_64, 0},
};

static const struct kind strings[] = {
	{ZYDIS_MNEMONIC_MOVSB, HELPER_OP_MOVE_STRING, 0},
	{ZYDIS_MNEMONIC_MOVSW, HELPER_OP_MOVE_STRING, 0},
	{ZYDIS_MNEMONIC_MOVSD, HELPER_OP_MOVE_STRING, 0},
	{ZYDIS_MNEMONIC_MOVSQ, HELPER_OP_MOVE_STRING, 0},
	{ZYDIS_MNEMONIC_STOSB, HELPER_OP_STORE_STRING, 0},
	{ZYDIS_MNEMONIC_STOSW, HELPER_OP_STORE_STRING, 0},
	{ZYDIS_MNEMONIC_STOSD, HELPER_OP_STORE_STRING, 0},
	{ZYDIS_MNEMONIC_STOSQ, HELPER_OP_STORE_STRING, 0},
	{ZYDIS_MNEMONIC_LODSB, HELPER_OP_LOAD_STRING, 0},
	{ZYDIS_MNEMONIC_LODSW, HELPER_OP_LOAD_STRING, 0},
	{ZYDIS_MNEMONIC_LODSD, HELPER_OP_LOAD_STRING, 0},
	{ZYDIS_MNEMONIC_LODSQ, HELPER_OP_LOAD_STRING, 0},
};

/* Moves between memory and a vector register: which bytes of it, and what of it a load leaves alone. */
static const struct vector_move {
	ZydisMnemonic mnemonic;
	uint8_t at, keep;
} vector_moves[] = {
	{ZYDIS_MNEMONIC_MOVUPS, 0, 0},	  {ZYDIS_MNEMONIC_VMOVUPS, 0, 0},
	{ZYDIS_MNEMONIC_MOVAPS, 0, 0},	  {ZYDIS_MNEMONIC_VMOVAPS, 0, 0},
	{ZYDIS_MNEMONIC_MOVUPD, 0, 0},	  {ZYDIS_MNEMONIC_VMOVUPD, 0, 0},
	{ZYDIS_MNEMONIC_MOVAPD, 0, 0},	  {ZYDIS_MNEMONIC_VMOVAPD, 0, 0},
	{ZYDIS_MNEMONIC_MOVDQU, 0, 0},	  {ZYDIS_MNEMONIC_VMOVDQU, 0, 0},
	{ZYDIS_MNEMONIC_MOVDQA, 0, 0},	  {ZYDIS_MNEMONIC_VMOVDQA, 0, 0},
	{ZYDIS_MNEMONIC_VMOVDQU8, 0, 0},  {ZYDIS_MNEMONIC_VMOVDQU16, 0, 0},
	{ZYDIS_MNEMONIC_VMOVDQU32, 0, 0}, {ZYDIS_MNEMONIC_VMOVDQU64, 0, 0},
	{ZYDIS_MNEMONIC_VMOVDQA32, 0, 0}, {ZYDIS_MNEMONIC_VMOVDQA64, 0, 0},
	{ZYDIS_MNEMONIC_MOVNTDQ, 0, 0},	  {ZYDIS_MNEMONIC_VMOVNTDQ, 0, 0},
	{ZYDIS_MNEMONIC_MOVNTDQA, 0, 0},  {ZYDIS_MNEMONIC_VMOVNTDQA, 0, 0},
	{ZYDIS_MNEMONIC_MOVNTPS, 0, 0},	  {ZYDIS_MNEMONIC_VMOVNTPS, 0, 0},
	{ZYDIS_MNEMONIC_MOVNTPD, 0, 0},	  {ZYDIS_MNEMONIC_VMOVNTPD, 0, 0},
	{ZYDIS_MNEMONIC_LDDQU, 0, 0},	  {ZYDIS_MNEMONIC_VLDDQU, 0, 0},
	{ZYDIS_MNEMONIC_MOVD, 0, 0},	  {ZYDIS_MNEMONIC_VMOVD, 0, 0},
	{ZYDIS_MNEMONIC_MOVQ, 0, 0},	  {ZYDIS_MNEMONIC_VMOVQ, 0, 0},
	{ZYDIS_MNEMONIC_MOVSS, 0, 0},	  {ZYDIS_MNEMONIC_VMOVSS, 0, 0},
	{ZYDIS_MNEMONIC_MOVSD, 0, 0},	  {ZYDIS_MNEMONIC_VMOVSD, 0, 0},
	{ZYDIS_MNEMONIC_MOVLPS, 0, 16},	  {ZYDIS_MNEMONIC_VMOVLPS, 0, 16},
	{ZYDIS_MNEMONIC_MOVLPD, 0, 16},	  {ZYDIS_MNEMONIC_VMOVLPD, 0, 16},
	{ZYDIS_MNEMONIC_MOVHPS, 8, 16},	  {ZYDIS_MNEMONIC_VMOVHPS, 8, 16},
	{ZYDIS_MNEMONIC_MOVHPD, 8, 16},	  {ZYDIS_MNEMONIC_VMOVHPD, 8, 16},
};

static bool is_memory(const operand_t *o)
{
	return o->type == ZYDIS_OPERAND_TYPE_MEMORY && o->mem.type == ZYDIS_MEMOP_TYPE_MEM;
}

/* Number of a general register as instructions encode it. */
static uint8_t number_of(ZydisRegister reg)
{
	if (reg == ZYDIS_REGISTER_NONE)
		return HELPER_NO_REG;
	if (reg == ZYDIS_REGISTER_RIP || reg == ZYDIS_REGISTER_EIP)
		return HELPER_REG_RIP;
	return (uint8_t)ZydisRegisterGetId(
		ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg));
}

static bool is_general(ZydisRegister reg)
{
	switch (ZydisRegisterGetClass(reg)) {
	case ZYDIS_REGCLASS_GPR8:
	case ZYDIS_REGCLASS_GPR16:
	case ZYDIS_REGCLASS_GPR32:
	case ZYDIS_REGCLASS_GPR64:
		return true;
	default:
		return false;
	}
}

static bool is_vector(ZydisRegister reg)
{
	ZydisRegisterClass c = ZydisRegisterGetClass(reg);

	return c == ZYDIS_REGCLASS_XMM || c == ZYDIS_REGCLASS_YMM || c == ZYDIS_REGCLASS_ZMM;
}

static int put_memory(struct helper_insn *out, const insn_t *in, const operand_t *m)
{
	out->size = (uint8_t)(m->size / 8);
	out->base = number_of(m->mem.base);
	out->index = number_of(m->mem.index);
	out->scale = m->mem.scale;
	out->displacement = m->mem.disp.has_displacement ? m->mem.disp.value : 0;
	out->address_size = in->address_width / 8;
	out->segment = m->mem.segment == ZYDIS_REGISTER_FS   ? 1
		       : m->mem.segment == ZYDIS_REGISTER_GS ? 2
							     : 0;
	return out->address_size < 4 ? -EINVAL : 0;
}

/* The operand of a general instruction that is not memory. */
static int put_other(struct helper_insn *out, const operand_t *o)
{
	if (o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
		out->imm = o->imm.value.u;
		return 0;
	}
	if (o->type != ZYDIS_OPERAND_TYPE_REGISTER || !is_general(o->reg.value))
		return -EINVAL;
	out->reg = number_of(o->reg.value);
	out->reg_size = (uint8_t)(o->size / 8);
	out->reg_high = o->reg.value >= ZYDIS_REGISTER_AH && o->reg.value <= ZYDIS_REGISTER_BH;
	return 0;
}

static int decode_general(struct helper_insn *out, const insn_t *in, const operand_t *ops)
{
	const operand_t *m = &ops[0], *r = &ops[1];

	if (out->op == HELPER_OP_UNARY)
		return is_memory(m) && (out->size <= 8) ? put_memory(out, in, m) : -EINVAL;
	if (!is_memory(m)) {
		m = &ops[1];
		r = &ops[0];
		out->to_reg = 1;
	}
	if (!is_memory(m) || m->size > 64 || put_other(out, r))
		return -EINVAL;
	if (out->op == HELPER_OP_LOAD && !out->to_reg)
		out->op = HELPER_OP_STORE;
	/* What comes out of memory needs a register to go to. */
	if (out->reg == HELPER_NO_REG && out->op != HELPER_OP_STORE &&
	    (out->op != HELPER_OP_ALU || out->to_reg))
		return -EINVAL;
	return put_memory(out, in, m);
}

static int decode_move_64(struct helper_insn *out, const insn_t *in, const operand_t *ops)
{
	ZydisRegister to = ops[0].type == ZYDIS_OPERAND_TYPE_REGISTER ? ops[0].reg.value
			   : ops[0].type == ZYDIS_OPERAND_TYPE_MEMORY ? ops[0].mem.base
								      : ZYDIS_REGISTER_NONE;

	if (!is_general(to) || !is_memory(&ops[1]) || in->address_width != 64)
		return -EINVAL;
	out->reg = number_of(to);
	out->reg_size = 8;
	return put_memory(out, in, &ops[1]);
}

static int decode_string(struct helper_insn *out, const insn_t *in, const operand_t *ops)
{
	if (in->address_width != 64)
		return -EINVAL;
	for (unsigned int i = 0; i < in->operand_count; i++) {
		if (!is_memory(&ops[i]))
			continue;
		out->size = (uint8_t)(ops[i].size / 8);
		if (ops[i].mem.segment == ZYDIS_REGISTER_FS)
			out->segment = 1;
		if (ops[i].mem.segment == ZYDIS_REGISTER_GS)
			out->segment = 2;
	}
	out->address_size = 8;
	out->repeat = !!(in->attributes &
			 (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE));
	return out->size ? 0 : -EINVAL;
}

static int decode_vector(struct helper_insn *out, const insn_t *in, const operand_t *ops,
			 const struct vector_move *move)
{
	const operand_t *m = NULL, *r = NULL;

	if (in->avx.mask.reg != ZYDIS_REGISTER_NONE && in->avx.mask.reg != ZYDIS_REGISTER_K0)
		return -EINVAL;
	for (unsigned int i = 0; i < in->operand_count_visible; i++) {
		const operand_t *o = &ops[i];

		if (is_memory(o) && !m)
			m = o;
		else if (o->type != ZYDIS_OPERAND_TYPE_REGISTER)
			return -EINVAL;
		else if (ZydisRegisterGetClass(o->reg.value) == ZYDIS_REGCLASS_MASK)
			continue;
		else if (!is_vector(o->reg.value) || (r && r->reg.value != o->reg.value))
			return -EINVAL; /* the rest of the register comes from another one */
		else
			r = o;
	}
	if (!m || !r || m->size / 8 > 64)
		return -EINVAL;
	out->op = is_memory(&ops[0]) ? HELPER_OP_VECTOR_STORE : HELPER_OP_VECTOR_LOAD;
	out->reg = (uint8_t)ZydisRegisterGetId(r->reg.value);
	out->vector_at = move->at;
	out->vector_keep = move->keep;
	out->vector_zero_upper = in->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY;
	return put_memory(out, in, m);
}

static const struct kind *find_kind(const struct kind *table, size_t n, ZydisMnemonic mnemonic)
{
	for (size_t i = 0; i < n; i++)
		if (table[i].mnemonic == mnemonic)
			return &table[i];
	return NULL;
}

static int decode_one(struct helper_insn *out, const insn_t *in, const operand_t *ops)
{
	const struct kind *k;

	if (in->meta.category == ZYDIS_CATEGORY_STRINGOP) {
		k = find_kind(strings, ARRAY_SIZE(strings), in->mnemonic);
		if (!k)
			return -EINVAL;
		out->op = k->op;
		return decode_string(out, in, ops);
	}
	k = find_kind(kinds, ARRAY_SIZE(kinds), in->mnemonic);
	if (k) {
		out->op = k->op;
		out->alu = k->alu;
		return k->op == HELPER_OP_MOVE_64 ? decode_move_64(out, in, ops)
						  : decode_general(out, in, ops);
	}
	for (size_t i = 0; i < ARRAY_SIZE(vector_moves); i++)
		if (vector_moves[i].mnemonic == in->mnemonic)
			return decode_vector(out, in, ops, &vector_moves[i]);
	return -EINVAL;
}

int helper_decode(struct helper_insn *insn)
{
	operand_t ops[ZYDIS_MAX_OPERAND_COUNT];
	struct helper_insn out = {
		.reg = HELPER_NO_REG, .base = HELPER_NO_REG, .index = HELPER_NO_REG, .scale = 1};
	ZydisDecoder decoder;
	insn_t in;

	memcpy(out.code, insn->code, sizeof(out.code));
	if (insn->length > HELPER_CODE_MAX ||
	    !ZYAN_SUCCESS(
		    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64)) ||
	    !ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, insn->code, insn->length, &in, ops)))
		return -EINVAL;
	out.length = in.length;
	if (decode_one(&out, &in, ops))
		return -EINVAL;
	*insn = out;
	return 0;
}
