// SPDX-License-Identifier: MIT
/*
 * Instructions on trapped memory do what they do on plain memory: each form is executed by the processor on an ordinary
 * buffer and by the helper on pages that fault, from the same registers, flags and bytes; everything must be the same
 * afterwards. The device is a buffer that only fast_access() reaches; decoding is the supervisor's code.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <cpuid.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "preload/preload.h"
#include "run/helper.h"

struct cpu {
	uint64_t rax, rcx, rdx, rbx, rsi, rdi, r8, r9, flags;
	uint32_t level; /* 0 SSE, 1 AVX, 2 AVX-512 */
	uint32_t pad[13];
	uint8_t v0[64], v1[64], v17[64];
};
_Static_assert(offsetof(struct cpu, v0) == 128, "run_form.S");

void run_form(struct cpu *cpu, void (*code)(void));

/* ---- the device -------------------------------------------------------------------------------- */

#define REGION 8192u

static uint8_t registers[REGION];
static uint8_t *trapped; /* where the program sees them */
static int mapped_prot = PROT_READ | PROT_WRITE;
static volatile unsigned int accesses, largest;
static int access_result;

bool mapping_find(uintptr_t addr, struct mapping *out)
{
	if (addr < (uintptr_t)trapped || addr >= (uintptr_t)trapped + REGION)
		return false;
	*out = (struct mapping){.start = (uintptr_t)trapped,
				.end = (uintptr_t)trapped + REGION,
				.token = 1,
				.secret = 2,
				.position = 1ull << 40,
				.prot = mapped_prot,
				.trapped = true};
	return true;
}

int fast_access(uint64_t token, uint64_t secret, uint64_t position, void *data, unsigned int size,
		bool write)
{
	uint64_t at = position - (1ull << 40);

	if (token != 1 || secret != 2 || at > REGION || size > REGION - at ||
	    size > HELPER_ACCESS_MAX)
		return -EINVAL;
	accesses++;
	largest = size > largest ? size : largest;
	if (access_result)
		return access_result;
	if (write)
		memcpy(registers + at, data, size);
	else
		memcpy(data, registers + at, size);
	return 0;
}

int fast_decode(struct helper_insn *insn)
{
	return helper_decode(insn);
}

/* ---- the forms --------------------------------------------------------------------------------- */

/* What is needed of the processor. */
enum need { ANY, AVX, AVX512, MOVDIR };

#define FORMS                                                                         \
	FORM(mov_store8, ANY, "movb %al, (%rbx)")                                     \
	FORM(mov_store8_high, ANY, "movb %ch, 3(%rbx)")                               \
	FORM(mov_store16, ANY, "movw %cx, 2(%rbx)")                                   \
	FORM(mov_store32, ANY, "movl %edx, 4(%rbx)")                                  \
	FORM(mov_store64, ANY, "movq %r8, 8(%rbx)")                                   \
	FORM(mov_store_imm8, ANY, "movb $0x5a, (%rbx)")                               \
	FORM(mov_store_imm16, ANY, "movw $0x5aa5, (%rbx)")                            \
	FORM(mov_store_imm32, ANY, "movl $0x89abcdef, (%rbx)")                        \
	FORM(mov_store_imm64, ANY, "movq $-2, (%rbx)")                                \
	FORM(mov_load8, ANY, "movb 1(%rbx), %cl")                                     \
	FORM(mov_load8_high, ANY, "movb 1(%rbx), %ah")                                \
	FORM(mov_load8_sil, ANY, "movb 1(%rbx), %r9b")                                \
	FORM(mov_load16, ANY, "movw 2(%rbx), %dx")                                    \
	FORM(mov_load32, ANY, "movl 4(%rbx), %eax")                                   \
	FORM(mov_load64, ANY, "movq 8(%rbx), %r9")                                    \
	FORM(mov_unaligned, ANY, "movq 3(%rbx), %rax")                                \
	FORM(mov_indexed, ANY, "movl 16(%rbx,%rcx,4), %eax")                          \
	FORM(mov_negative, ANY, "movl -4(%rdi), %eax")                                \
	FORM(movzx8_16, ANY, "movzbw (%rbx), %ax")                                    \
	FORM(movzx8, ANY, "movzbl 1(%rbx), %eax")                                     \
	FORM(movzx16, ANY, "movzwl (%rbx), %edx")                                     \
	FORM(movzx16_64, ANY, "movzwq (%rbx), %rdx")                                  \
	FORM(movsx8, ANY, "movsbl 1(%rbx), %eax")                                     \
	FORM(movsx8_64, ANY, "movsbq 7(%rbx), %rax")                                  \
	FORM(movsx16, ANY, "movswq 6(%rbx), %rax")                                    \
	FORM(movsxd, ANY, "movslq 4(%rbx), %rax")                                     \
	FORM(movnti, ANY, "movntiq %rax, 8(%rbx)")                                    \
	FORM(add_m_r, ANY, "addl %eax, (%rbx)")                                       \
	FORM(add_m_imm, ANY, "addb $0x7f, (%rbx)")                                    \
	FORM(add_r_m, ANY, "addq (%rbx), %rax")                                       \
	FORM(or_m_imm, ANY, "orw $0x8000, (%rbx)")                                    \
	FORM(or_locked, ANY, "lock orl %edx, (%rbx)")                                 \
	FORM(adc_m_r, ANY, "adcq %rax, (%rbx)")                                       \
	FORM(adc_r_m, ANY, "adcl (%rbx), %eax")                                       \
	FORM(sbb_m_r, ANY, "sbbl %eax, (%rbx)")                                       \
	FORM(and_m_imm, ANY, "andl $0xff00ff00, (%rbx)")                              \
	FORM(and_r_m, ANY, "andw (%rbx), %ax")                                        \
	FORM(sub_m_r, ANY, "subq %rdx, (%rbx)")                                       \
	FORM(sub_r_m, ANY, "subb 2(%rbx), %dl")                                       \
	FORM(xor_m_r, ANY, "xorq %rcx, (%rbx)")                                       \
	FORM(cmp_m_imm, ANY, "cmpb $0x80, (%rbx)")                                    \
	FORM(cmp_m_imm_sign, ANY, "cmpq $-1, (%rbx)")                                 \
	FORM(cmp_r_m, ANY, "cmpq (%rbx), %rax")                                       \
	FORM(cmp_m_r, ANY, "cmpl %eax, (%rbx)")                                       \
	FORM(test_m_r, ANY, "testl %eax, (%rbx)")                                     \
	FORM(test_m_imm, ANY, "testb $1, 4(%rbx)")                                    \
	FORM(not_m, ANY, "notl (%rbx)")                                               \
	FORM(neg_m, ANY, "negq (%rbx)")                                               \
	FORM(inc_m, ANY, "incw (%rbx)")                                               \
	FORM(dec_m, ANY, "lock decl (%rbx)")                                          \
	FORM(xchg, ANY, "xchgl %eax, (%rbx)")                                         \
	FORM(xchg8, ANY, "xchgb %ah, (%rbx)")                                         \
	FORM(xadd, ANY, "lock xaddq %rdx, (%rbx)")                                    \
	FORM(cmpxchg_differs, ANY, "lock cmpxchgl %edx, (%rbx)")                      \
	FORM(cmpxchg_equal, ANY, "movl %r8d, %eax\n\tlock cmpxchgl %edx, 0x40(%rbx)") \
	FORM(movs_to, ANY, "movq %r9, %rsi\n\tmovsq")                                 \
	FORM(rep_movsb_to, ANY, "movq %r9, %rsi\n\trep movsb")                        \
	FORM(rep_movsb_from, ANY, "movq %r9, %rdi\n\trep movsb")                      \
	FORM(rep_movsl, ANY, "movq %r9, %rdi\n\trep movsl")                           \
	FORM(rep_movs_backwards, ANY,                                                 \
	     "std\n\tmovq %r9, %rdi\n\taddq $64, %rsi\n\trep movsl\n\tcld")           \
	FORM(rep_nothing, ANY, "xorl %ecx, %ecx\n\trep movsb\n\tmovb %al, (%rbx)")    \
	FORM(stosb, ANY, "stosb")                                                     \
	FORM(rep_stosl, ANY, "rep stosl")                                             \
	FORM(rep_stosq, ANY, "rep stosq")                                             \
	FORM(lodsw, ANY, "lodsw")                                                     \
	FORM(movups_load, ANY, "movups 1(%rbx), %xmm0")                               \
	FORM(movups_store, ANY, "movups %xmm1, 1(%rbx)")                              \
	FORM(movaps_load, ANY, "movaps 16(%rbx), %xmm1")                              \
	FORM(movdqa_store, ANY, "movdqa %xmm0, (%rbx)")                               \
	FORM(movdqu_load, ANY, "movdqu 8(%rbx), %xmm0")                               \
	FORM(movntdq, ANY, "movntdq %xmm1, 32(%rbx)")                                 \
	FORM(movntps, ANY, "movntps %xmm1, 32(%rbx)")                                 \
	FORM(movd_load, ANY, "movd 4(%rbx), %xmm0")                                   \
	FORM(movd_store, ANY, "movd %xmm0, 4(%rbx)")                                  \
	FORM(movq_load, ANY, "movq 8(%rbx), %xmm1")                                   \
	FORM(movq_store, ANY, "movq %xmm1, 8(%rbx)")                                  \
	FORM(movss_load, ANY, "movss 4(%rbx), %xmm0")                                 \
	FORM(movsd_load, ANY, "movsd 8(%rbx), %xmm0")                                 \
	FORM(movsd_store, ANY, "movsd %xmm0, 8(%rbx)")                                \
	FORM(movlps_load, ANY, "movlps 8(%rbx), %xmm0")                               \
	FORM(movhps_load, ANY, "movhps 8(%rbx), %xmm0")                               \
	FORM(movhps_store, ANY, "movhps %xmm0, 8(%rbx)")                              \
	FORM(vmovdqu_load_x, AVX, "vmovdqu 8(%rbx), %xmm0")                           \
	FORM(vmovdqu_load_y, AVX, "vmovdqu 8(%rbx), %ymm0")                           \
	FORM(vmovdqu_store_y, AVX, "vmovdqu %ymm1, 8(%rbx)")                          \
	FORM(vmovaps_store_y, AVX, "vmovaps %ymm0, 32(%rbx)")                         \
	FORM(vmovntdq_y, AVX, "vmovntdq %ymm0, 32(%rbx)")                             \
	FORM(vmovq_load, AVX, "vmovq 8(%rbx), %xmm1")                                 \
	FORM(vmovss_load, AVX, "vmovss 8(%rbx), %xmm1")                               \
	FORM(vmovdqu64_load_z, AVX512, "vmovdqu64 (%rbx), %zmm0")                     \
	FORM(vmovdqu64_store_z, AVX512, "vmovdqu64 %zmm1, 64(%rbx)")                  \
	FORM(vmovdqu64_load_y17, AVX512, "vmovdqu64 8(%rbx), %ymm17")                 \
	FORM(vmovdqu64_store_y17, AVX512, "vmovdqu64 %ymm17, 8(%rbx)")                \
	FORM(vmovdqa32_load_z, AVX512, "vmovdqa32 64(%rbx), %zmm17")                  \
	FORM(movdiri, MOVDIR, "movdiri %rax, 8(%rbx)")                                \
	FORM(movdir64b, MOVDIR, "movdir64b (%rsi), %rdi")

/* The moffs forms have an address of 64 bits in the instruction: it is put there at run time. */
#define FORM(name, need, text)                                  \
	__asm__(".text\nform_" #name ":\n\t" text "\n\tret\n"); \
	void form_##name(void);
FORMS
#undef FORM

static const struct form {
	const char *name;
	enum need need;
	void (*code)(void);
} forms[] = {
#define FORM(name, need, text) {#name, need, form_##name},
	FORMS
#undef FORM
};

static unsigned int vector_level(void)
{
	if (__builtin_cpu_supports("avx512vl"))
		return 2;
	return __builtin_cpu_supports("avx") ? 1 : 0;
}

static bool has(enum need need)
{
	unsigned int a, b, c, d;

	switch (need) {
	case AVX:
		return vector_level() >= 1;
	case AVX512:
		return vector_level() >= 2;
	case MOVDIR:
		return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (c & 3u << 27) == 3u << 27;
	default:
		return true;
	}
}

/*
 * cmocka sets a handler of its own before each test: ours comes back, as the kernel has it.
 */
static struct {
	uint64_t words[4];
} our_action;

static void begin(void)
{
	SYS4(SYS_rt_sigaction, SIGSEGV, &our_action, 0, 8);
}

/* ---- comparing --------------------------------------------------------------------------------- */

#define FLAGS 0x8d5u

static _Alignas(64) uint8_t plain[REGION], beside[REGION];

static void fill(uint8_t *at, size_t n, unsigned int seed)
{
	for (size_t i = 0; i < n; i++) {
		seed = seed * 1103515245u + 12345u;
		at[i] = (uint8_t)(seed >> 16);
	}
}

/* Registers as they are before: rbx, rsi and rdi in the device, r9 in plain memory beside. */
static void prepare(struct cpu *c, uint8_t *device, unsigned int seed)
{
	memset(c, 0, sizeof(*c));
	fill((uint8_t *)&c->rax, 8, seed);
	fill((uint8_t *)&c->rdx, 8, seed + 1);
	fill((uint8_t *)&c->r8, 8, seed + 2);
	c->rcx = 12;
	c->rbx = (uintptr_t)device + 1024;
	c->rsi = (uintptr_t)device + 1024;
	c->rdi = (uintptr_t)device + 1152;
	c->r9 = (uintptr_t)beside + 64;
	c->flags = 0x202 | (seed * 0x9e3779b9u >> 16 & FLAGS);
	c->level = vector_level();
	fill(c->v0, 64, seed + 3);
	fill(c->v1, 64, seed + 4);
	fill(c->v17, 64, seed + 5);
}

static void prepare_memory(uint8_t *device, const struct cpu *c, unsigned int seed)
{
	fill(device, REGION, seed + 6);
	memcpy(device + 1024 + 0x40, &c->r8, 4); /* for a comparison that finds it equal */
	fill(beside, REGION, seed + 7);
}

static void check_form(const struct form *f, unsigned int seed)
{
	static uint8_t beside_plain[REGION];
	struct cpu real, emulated;

	prepare(&real, plain, seed);
	prepare_memory(plain, &real, seed);
	run_form(&real, f->code);
	memcpy(beside_plain, beside, REGION);

	prepare(&emulated, trapped, seed);
	prepare_memory(registers, &emulated, seed);
	accesses = 0;
	run_form(&emulated, f->code);
	assert_true(accesses > 0);
	/* Pointers into the device differ by where it is; everything else is the same. */
	for (uint64_t *e = &emulated.rax; e < &emulated.flags; e++)
		if (*e - (uintptr_t)trapped < REGION)
			*e = *e - (uintptr_t)trapped + (uintptr_t)plain;
	if (memcmp(&real, &emulated, sizeof(real)) || memcmp(plain, registers, REGION) ||
	    memcmp(beside, beside_plain, REGION)) {
		print_error("%s, seed %u: flags %#lx, should be %#lx; rax %#lx, should be %#lx\n",
			    f->name, seed, (long)emulated.flags, (long)real.flags,
			    (long)emulated.rax, (long)real.rax);
		fail();
	}
}

static void forms_do_as_the_processor(void **state)
{
	unsigned int skipped = 0;

	(void)state;
	begin();
	for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
		if (!has(forms[i].need)) {
			skipped++;
			continue;
		}
		for (unsigned int seed = 1; seed <= 20; seed++)
			check_form(&forms[i], seed);
	}
	print_message("%zu forms, %u of them not on this processor\n",
		      sizeof(forms) / sizeof(forms[0]), skipped);
}

/* ---- moffs: the address is in the instruction -------------------------------------------------- */

static void absolute_addresses(void **state)
{
	/* movabs %rax, addr; movabs addr, %eax; ret, in memory of our own */
	uint8_t *code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t to = (uintptr_t)trapped + 16, from = (uintptr_t)trapped + 32;
	struct cpu c;

	(void)state;
	begin();
	assert_true(code != MAP_FAILED);
	memcpy(code, "\x48\xa3", 2);
	memcpy(code + 2, &to, 8);
	code[10] = 0xa1;
	memcpy(code + 11, &from, 8);
	code[19] = 0xc3;
	prepare(&c, trapped, 1);
	prepare_memory(registers, &c, 1);
	uint64_t stored = c.rax;
	uint32_t loaded;

	run_form(&c, (void (*)(void))(uintptr_t)code);
	assert_memory_equal(registers + 16, &stored, 8);
	memcpy(&loaded, registers + 32, 4);
	assert_int_equal(c.rax, loaded);

	/* The same address, other code: what was decoded there does not count any more. */
	code[10] = 0xa0; /* one byte only */
	c.rax = 0x1122334455667788;
	run_form(&c, (void (*)(void))(uintptr_t)code);
	assert_int_equal(c.rax, 0x1122334455667700 | registers[32]);
	munmap(code, 4096);
}

/* ---- sizes of accesses ------------------------------------------------------------------------- */

static void one_access_per_instruction(void **state)
{
	(void)state;
	begin();
	accesses = largest = 0;
	(void)*(volatile uint32_t *)(trapped + 8);
	assert_int_equal(accesses, 1);
	assert_int_equal(largest, 4);
	*(volatile uint64_t *)(trapped + 8) = 1;
	assert_int_equal(accesses, 2);
	assert_int_equal(largest, 8);
}

/* ---- what is not ours -------------------------------------------------------------------------- */

static sigjmp_buf back;
static siginfo_t seen;

static void on_signal(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	seen = *info;
	siglongjmp(back, 1);
}

static void faults_of_the_program_are_its_own(void **state)
{
	struct sigaction sa = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO}, old;
	uint8_t *hole = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	(void)state;
	begin();
	assert_true(trap_sigaction(&sa, &old));
	if (!sigsetjmp(back, 1)) {
		*(volatile char *)(hole + 5) = 1;
		fail();
	}
	assert_int_equal(seen.si_signo, SIGSEGV);
	assert_ptr_equal(seen.si_addr, hole + 5);
	/* Writing where the program itself has mapped for reading. */
	mapped_prot = PROT_READ;
	(void)*(volatile char *)trapped;
	if (!sigsetjmp(back, 1)) {
		*(volatile char *)(trapped + 9) = 1;
		fail();
	}
	assert_int_equal(seen.si_code, SEGV_ACCERR);
	assert_ptr_equal(seen.si_addr, trapped + 9);
	mapped_prot = PROT_READ | PROT_WRITE;
	/* The other side of a copy. */
	if (!sigsetjmp(back, 1)) {
		__asm__ volatile("rep movsb" : : "S"(trapped), "D"(hole + 7), "c"(4) : "memory");
		fail();
	}
	assert_ptr_equal(seen.si_addr, hole + 7);
	assert_true(trap_sigaction(&old, NULL));
	munmap(hole, 4096);
}

static void refused_accesses_are_bus_errors(void **state)
{
	struct sigaction sa = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO}, old;

	(void)state;
	begin();
	sigaction(SIGBUS, &sa, &old);
	access_result = -EIO;
	if (!sigsetjmp(back, 1)) {
		(void)*(volatile uint32_t *)(trapped + 0x44);
		fail();
	}
	access_result = 0;
	assert_int_equal(seen.si_signo, SIGBUS);
	assert_ptr_equal(seen.si_addr, trapped + 0x44);
	sigaction(SIGBUS, &old, NULL);
}

static void guarded_copies_fail_without_a_fault(void **state)
{
	uint8_t *page =
		mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint8_t buf[64];

	(void)state;
	begin();
	munmap(page + 4096, 4096);
	memset(page, 7, 4096);
	assert_int_equal(guarded_copy(buf, page + 4096 - 20, 64), 44);
	assert_int_equal(buf[19], 7);
	assert_int_equal(guarded_copy(page + 4096 - 20, buf, 64), 44);
	assert_int_equal(guarded_copy(buf, page + 4092, 8), 8);
	assert_int_equal(guarded_copy(buf, page + 4088, 8), 0);
	assert_int_equal(guarded_touch(page), 0);
	assert_int_equal(guarded_touch(page + 4096), 1);
	/* Trapped memory is no memory for system calls, and none for these. */
	assert_int_equal(guarded_copy(buf, trapped, 16), 16);
	munmap(page, 4096);
}

/* Ends a child by what it does; its wait status. */
static int status_of(void (*what)(void))
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		trap_sigaction(&(struct sigaction){.sa_handler = SIG_DFL}, NULL);
		close(STDERR_FILENO);
		what();
		_exit(0);
	}
	assert_true(waitpid(pid, &status, 0) == pid);
	return status;
}

static void unknown_instruction(void)
{
	__asm__ volatile("fldl (%0)" : : "r"(trapped));
}

static void plain_fault(void)
{
	__asm__ volatile("movb $1, 8" : : : "memory");
}

static void sent_signal(void)
{
	kill(getpid(), SIGSEGV);
	for (;;)
		pause();
}

static void ignored_signal(void)
{
	struct sigaction ign = {.sa_handler = SIG_IGN};

	trap_sigaction(&ign, NULL);
	kill(getpid(), SIGSEGV);
	_exit(3);
}

static void the_default_action_is_the_end(void **state)
{
	(void)state;
	begin();
	assert_int_equal(WTERMSIG(status_of(unknown_instruction)), SIGSEGV);
	assert_int_equal(WTERMSIG(status_of(plain_fault)), SIGSEGV);
	assert_int_equal(WTERMSIG(status_of(sent_signal)), SIGSEGV);
	assert_int_equal(WEXITSTATUS(status_of(ignored_signal)), 3);
}

static int set_up(void **state)
{
	(void)state;
	trapped = mmap(NULL, REGION, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	trap_install();
	SYS4(SYS_rt_sigaction, SIGSEGV, 0, &our_action, 8);
	return trapped == MAP_FAILED;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(forms_do_as_the_processor),
		cmocka_unit_test(absolute_addresses),
		cmocka_unit_test(one_access_per_instruction),
		cmocka_unit_test(faults_of_the_program_are_its_own),
		cmocka_unit_test(refused_accesses_are_bus_errors),
		cmocka_unit_test(guarded_copies_fail_without_a_fault),
		cmocka_unit_test(the_default_action_is_the_end),
	};

	return cmocka_run_group_tests(tests, set_up, NULL);
}
