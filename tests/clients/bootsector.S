/* SPDX-License-Identifier: MIT */
/*
 * A boot sector for the modelled disk. It proves, from inside a virtual machine that was given the disk
 * by VFIO, that reads and writes go through: it reads the next sector, which holds a text, tells it on
 * the serial line, and writes it back to the one after, with its first byte changed. Then the machine
 * ends by QEMU's isa-debug-exit device.
 *
 * Registers at entry: DL the drive. Loaded at 0:0x7c00.
 */
	.code16
	.globl	_start

#define SERIAL 0x3f8
#define EXIT_PORT 0xf4
#define BUFFER 0x8000
#define INT13_READ 0x42
#define INT13_WRITE 0x43

_start:
	ljmp	$0, $1f
1:	xorw	%ax, %ax
	movw	%ax, %ds
	movw	%ax, %es
	movw	%ax, %ss
	movw	$0x7c00, %sp
	cld
	movb	%dl, drive
	movw	$hello, %si
	call	print

	movb	$INT13_READ, %ah
	movb	$1, packet_sector
	call	disk
	movw	$BUFFER, %si
	call	print

	movb	$'W', BUFFER
	movb	$INT13_WRITE, %ah
	movb	$2, packet_sector
	call	disk
	movw	$done, %si
	call	print
	xorb	%al, %al
	jmp	leave

failed:
	movw	$bad, %si
	call	print
	movb	$1, %al
leave:
	outb	%al, $EXIT_PORT
1:	hlt
	jmp	1b

/* One sector between the drive and BUFFER; AH says which way. */
disk:
	movb	drive, %dl
	movw	$packet, %si
	xorb	%al, %al
	int	$0x13
	jc	failed
	ret

/* The text at SI, up to its zero byte. */
print:
	lodsb
	testb	%al, %al
	jz	2f
	movb	%al, %bl
1:	movw	$SERIAL + 5, %dx
	inb	%dx, %al
	testb	$0x20, %al
	jz	1b
	movw	$SERIAL, %dx
	movb	%bl, %al
	outb	%al, %dx
	jmp	print
2:	ret

hello:	.asciz "boot sector: running\r\n"
done:	.asciz "boot sector: written\r\n"
bad:	.asciz "boot sector: disk error\r\n"
drive:	.byte 0
	.balign 4
packet:	.byte 16, 0
	.word 1
	.word BUFFER, 0
packet_sector:
	.quad 0

	.org 510
	.word 0xaa55
