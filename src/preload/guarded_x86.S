/* SPDX-License-Identifier: MIT */
/*
 * Copies in which a missing page is an answer. When one of the marked instructions faults, the SIGSEGV handler sets the
 * instruction pointer to the end of its function (guarded_fixup()); rcx says there what was left.
 */
	.text
	.globl guarded_copy
	.hidden guarded_copy
	.type guarded_copy, @function
guarded_copy:
	movq %rdx, %rcx
	cmpq $8, %rdx
	jne 1f
	.globl guarded_copy8_load
	.hidden guarded_copy8_load
guarded_copy8_load:
	movq (%rsi), %rax
	.globl guarded_copy8_store
	.hidden guarded_copy8_store
guarded_copy8_store:
	movq %rax, (%rdi)
	xorl %ecx, %ecx
	jmp guarded_copy_end
1:
	.globl guarded_copy_at
	.hidden guarded_copy_at
guarded_copy_at:
	rep movsb
	.globl guarded_copy_end
	.hidden guarded_copy_end
guarded_copy_end:
	movq %rcx, %rax
	ret
	.size guarded_copy, .-guarded_copy

	.globl guarded_touch
	.hidden guarded_touch
	.type guarded_touch, @function
guarded_touch:
	movl $1, %ecx
	.globl guarded_touch_at
	.hidden guarded_touch_at
guarded_touch_at:
	lock orb $0, (%rdi)
	xorl %ecx, %ecx
	.globl guarded_touch_end
	.hidden guarded_touch_end
guarded_touch_end:
	movq %rcx, %rax
	ret
	.size guarded_touch, .-guarded_touch

	.globl guarded_restore
	.hidden guarded_restore
	.type guarded_restore, @function
/* What the kernel returns to from a signal handler that was set by a plain system call. */
guarded_restore:
	movl $15, %eax
	syscall
	.size guarded_restore, .-guarded_restore

	.section .note.GNU-stack, "", @progbits
