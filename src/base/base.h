/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_BASE_BASE_H
#define SWIOMMU_BASE_BASE_H

/*
 * Words and small arithmetic used everywhere.
 *
 * A range is always inclusive, [first, last]: it can reach the very end of the 64-bit space, where
 * an exclusive end would wrap. `length` counts bytes. Addresses that this process must not follow
 * have types of their own and never travel as `void *`.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

typedef uint64_t iova_t; /* an address on a device's side of the IOMMU */
typedef uint64_t uptr_t; /* an address in the client's address space */
typedef uint64_t phys_t; /* a physical address: synthetic (mem/phys.h), not to be followed */

#define IOVA_MAX UINT64_MAX

/* Permissions of a mapping, and the direction of one access (exactly one bit then). */
#define SWI_READ 1u  /* the device reads memory */
#define SWI_WRITE 2u /* the device writes memory */

/* The IOMMU's host page; mappings, pins and accounting count in it (spec core.md: PAGE). */
#define SWI_PAGE_SHIFT 12
#define SWI_PAGE_SIZE 4096ull

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))
#define SWI_MIN(a, b) ((a) < (b) ? (a) : (b))
#define SWI_MAX(a, b) ((a) > (b) ? (a) : (b))
#define SWI_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define SWI_LIKELY(x) __builtin_expect(!!(x), 1)
#define SWI_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define SWI_CACHELINE 64

static inline bool is_pow2_u64(uint64_t v)
{
	return v && !(v & (v - 1));
}

/* What %llu and %llx print, whatever uint64_t is. */
typedef unsigned long long ull;

/* First byte and length of a range to its last byte; false when length is 0 or the range wraps. */
static inline bool range_last(uint64_t first, uint64_t length, uint64_t *last)
{
	return length && !__builtin_add_overflow(first, length - 1, last);
}

#endif
