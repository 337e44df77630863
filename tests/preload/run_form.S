/* SPDX-License-Identifier: MIT */
/*
 * void run_form(struct cpu *cpu, void (*code)(void)): loads registers and flags, calls the code, stores them again.
 * rbx and rsi, rdi point where the test wants; r14, r15, rsp and rbp are ours.
 */
	.text
	.globl run_form
	.type run_form, @function
run_form:
	pushq %rbx
	pushq %rbp
	pushq %r12
	pushq %r13
	pushq %r14
	pushq %r15
	subq $8, %rsp
	movq %rdi, %r15
	movq %rsi, %r14
	cmpl $1, 72(%r15)
	je 1f
	ja 2f
	movdqu 128(%r15), %xmm0
	movdqu 192(%r15), %xmm1
	jmp 3f
1:	vmovdqu 128(%r15), %ymm0
	vmovdqu 192(%r15), %ymm1
	jmp 3f
2:	vmovdqu64 128(%r15), %zmm0
	vmovdqu64 192(%r15), %zmm1
	vmovdqu64 256(%r15), %zmm17
3:	movq 0(%r15), %rax
	movq 8(%r15), %rcx
	movq 16(%r15), %rdx
	movq 24(%r15), %rbx
	movq 32(%r15), %rsi
	movq 40(%r15), %rdi
	movq 48(%r15), %r8
	movq 56(%r15), %r9
	pushq 64(%r15)
	popfq
	call *%r14
	pushfq
	popq 64(%r15)
	cld
	movq %rax, 0(%r15)
	movq %rcx, 8(%r15)
	movq %rdx, 16(%r15)
	movq %rbx, 24(%r15)
	movq %rsi, 32(%r15)
	movq %rdi, 40(%r15)
	movq %r8, 48(%r15)
	movq %r9, 56(%r15)
	cmpl $1, 72(%r15)
	je 1f
	ja 2f
	movdqu %xmm0, 128(%r15)
	movdqu %xmm1, 192(%r15)
	jmp 3f
1:	vmovdqu %ymm0, 128(%r15)
	vmovdqu %ymm1, 192(%r15)
	vzeroupper
	jmp 3f
2:	vmovdqu64 %zmm0, 128(%r15)
	vmovdqu64 %zmm1, 192(%r15)
	vmovdqu64 %zmm17, 256(%r15)
	vzeroupper
3:	addq $8, %rsp
	popq %r15
	popq %r14
	popq %r13
	popq %r12
	popq %rbp
	popq %rbx
	ret
	.size run_form, .-run_form
	.section .note.GNU-stack, "", @progbits
