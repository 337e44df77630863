// SPDX-License-Identifier: MIT
/*
 * DMA logging: the DEVICE_FEATUREs by which a device tells which memory it has written (spec vfio.md 4.6).
 *
 * A device of ours makes all of its DMA through vfio_dma_write(), so the log is kept there: a bit for each page of the ranges
 * that the client has named, in chunks that are made when the first bit in them is set. Marking takes the log's
 * lock shared, and costs a load while nothing is logged.
 *
 * A page is marked after the bytes have moved: who reports between the two finds it the next time. Should there
 * be no memory for a chunk, everything counts as written from then on.
 */
#include "vfio/internal.h"

#include "base/alloc.h"

#include <errno.h>

#define RANGES_MAX 85u /* as the kernel */
#define CHUNK_PAGES 32768u
#define CHUNK_WORDS (CHUNK_PAGES / 64)
#define CHUNKS_MAX (1u << 23) /* of all ranges: 2^38 pages */

typedef _Atomic uint64_t word;

struct range {
	uint64_t first, last;
	uint64_t nr_chunks;
	_Atomic(word *) *chunks;
};

struct vfio_dma_log {
	unsigned int page_lg2;
	_Atomic bool lost; /* a mark could not be kept */
	unsigned int nr_ranges;
	struct range ranges[];
};

static void free_log(struct vfio_dma_log *log)
{
	if (!log)
		return;
	for (unsigned int i = 0; i < log->nr_ranges; i++) {
		for (uint64_t k = 0; log->ranges[i].chunks && k < log->ranges[i].nr_chunks; k++)
			swi_free(log->ranges[i].chunks[k]);
		swi_free(log->ranges[i].chunks);
	}
	swi_free(log);
}

/* ---- marking ----------------------------------------------------------------------------- */

static word *get_chunk(struct range *r, uint64_t k)
{
	word *have = NULL, *chunk = atomic_load(&r->chunks[k]);

	if (chunk)
		return chunk;
	chunk = swi_zalloc(CHUNK_WORDS * sizeof(word));
	if (!chunk || atomic_compare_exchange_strong(&r->chunks[k], &have, chunk))
		return chunk;
	swi_free(chunk);
	return have;
}

static void mark_range(struct vfio_dma_log *log, struct range *r, uint64_t first, uint64_t last)
{
	uint64_t page = (SWI_MAX(first, r->first) - r->first) >> log->page_lg2;
	uint64_t end = (SWI_MIN(last, r->last) - r->first) >> log->page_lg2;

	for (; page <= end; page++) {
		word *chunk = get_chunk(r, page / CHUNK_PAGES);

		if (!chunk) {
			log->lost = true;
			return;
		}
		atomic_fetch_or(&chunk[page % CHUNK_PAGES / 64], 1ull << page % 64);
	}
}

void vfio_dma_log_mark(struct vfio_device *dev, uint64_t iova, size_t len)
{
	struct vfio_dma_log *log;
	uint64_t last;

	if (!range_last(iova, len, &last))
		return;
	pthread_rwlock_rdlock(&dev->dma_log_lock);
	log = dev->dma_log;
	for (unsigned int i = 0; log && i < log->nr_ranges; i++)
		if (iova <= log->ranges[i].last && last >= log->ranges[i].first)
			mark_range(log, &log->ranges[i], iova, last);
	pthread_rwlock_unlock(&dev->dma_log_lock);
}

/* ---- start and stop ---------------------------------------------------------------------- */

static long add_range(struct vfio_dma_log *log, struct swiommu_caller *caller, uint64_t page_size,
		      const struct vfio_device_feature_dma_logging_range *in, uint64_t *chunks)
{
	struct range *r = &log->ranges[log->nr_ranges];

	if ((in->iova | in->length) & (page_size - 1) || !in->length)
		return vfio_fail(caller, -EINVAL,
				 "DMA_LOGGING_START: range %u, iova %#llx, length %#llx: must be "
				 "multiples of %#llx, and length not 0",
				 log->nr_ranges, (ull)in->iova, (ull)in->length, (ull)page_size);
	if (!range_last(in->iova, in->length, &r->last))
		return vfio_fail(caller, -EOVERFLOW, "DMA_LOGGING_START: range %u passes 2^64",
				 log->nr_ranges);
	r->first = in->iova;
	for (unsigned int i = 0; i < log->nr_ranges; i++)
		if (r->first <= log->ranges[i].last && r->last >= log->ranges[i].first)
			return vfio_fail(caller, -EINVAL,
					 "DMA_LOGGING_START: ranges %u and %u overlap", i,
					 log->nr_ranges);
	r->nr_chunks = ((r->last - r->first) >> log->page_lg2) / CHUNK_PAGES + 1;
	*chunks += r->nr_chunks;
	if (*chunks <= CHUNKS_MAX)
		r->chunks = swi_zalloc(r->nr_chunks * sizeof(*r->chunks));
	if (!r->chunks)
		return vfio_fail(caller, -ENOMEM, "DMA_LOGGING_START: no memory for so many pages");
	log->nr_ranges++;
	return 0;
}

static long make_log(struct swiommu_caller *caller,
		     const struct vfio_device_feature_dma_logging_control *control,
		     struct vfio_dma_log **out)
{
	struct vfio_device_feature_dma_logging_range in;
	struct vfio_dma_log *log;
	uint64_t chunks = 0;
	long rc = 0;

	if (!control->num_ranges || !is_pow2_u64(control->page_size))
		return vfio_fail(caller, -EINVAL,
				 "DMA_LOGGING_START: page_size %#llx, %u ranges: must be a power "
				 "of two, and 1 or more",
				 (ull)control->page_size, control->num_ranges);
	if (control->num_ranges > RANGES_MAX)
		return vfio_fail(caller, -E2BIG, "DMA_LOGGING_START: %u ranges, more than %u",
				 control->num_ranges, RANGES_MAX);
	log = swi_zalloc(sizeof(*log) + control->num_ranges * sizeof(log->ranges[0]));
	if (!log)
		return vfio_fail(caller, -ENOMEM, "DMA_LOGGING_START: out of memory");
	log->page_lg2 = (unsigned int)__builtin_ctzll(SWI_MAX(control->page_size, SWI_PAGE_SIZE));
	for (uint32_t i = 0; !rc && i < control->num_ranges; i++) {
		rc = vfio_copy_in(caller, &in, control->ranges + i * sizeof(in), sizeof(in),
				  "ranges of DMA_LOGGING_START");
		if (!rc)
			rc = add_range(log, caller, control->page_size, &in, &chunks);
	}
	if (rc)
		free_log(log);
	else
		*out = log;
	return rc;
}

/* Makes `log` (NULL: none) the device's and returns the one before. */
static struct vfio_dma_log *swap_log(struct vfio_device *dev, struct vfio_dma_log *log)
{
	struct vfio_dma_log *old;

	pthread_rwlock_wrlock(&dev->dma_log_lock);
	old = dev->dma_log;
	dev->dma_log = log;
	pthread_rwlock_unlock(&dev->dma_log_lock);
	return old;
}

static long start(struct vfio_device *dev, struct swiommu_caller *caller, uint64_t data)
{
	struct vfio_device_feature_dma_logging_control control;
	struct vfio_dma_log *log = NULL;
	bool running;
	long rc;

	rc = vfio_copy_in(caller, &control, data, sizeof(control), "DMA_LOGGING_START");
	if (!rc)
		rc = make_log(caller, &control, &log);
	if (rc)
		return rc;
	pthread_rwlock_wrlock(&dev->dma_log_lock);
	running = dev->dma_log;
	if (!running)
		dev->dma_log = log;
	pthread_rwlock_unlock(&dev->dma_log_lock);
	if (!running)
		return 0;
	free_log(log);
	return vfio_fail(caller, -EINVAL, "DMA_LOGGING_START: %s is logging already",
			 dev->place.bdf);
}

static long stop(struct vfio_device *dev, struct swiommu_caller *caller, uint64_t data)
{
	(void)caller;
	(void)data;
	vfio_dma_log_stop(dev);
	return 0;
}

void vfio_dma_log_stop(struct vfio_device *dev)
{
	free_log(swap_log(dev, NULL));
}

/* ---- report ------------------------------------------------------------------------------ */

struct report {
	struct swiommu_caller *caller;
	struct vfio_dma_log *log;
	struct vfio_device_feature_dma_logging_report in;
	uint64_t last;
};

/* Tells pages [page, end] of a range, as far as they are asked for. */
static long tell(const struct report *rep, const struct range *r, uint64_t page, uint64_t end)
{
	uint64_t first = r->first + (page << rep->log->page_lg2);
	uint64_t last = r->first + (end << rep->log->page_lg2) + ((1ull << rep->log->page_lg2) - 1);

	first = SWI_MAX(first, rep->in.iova) - rep->in.iova;
	last = SWI_MIN(last, rep->last) - rep->in.iova;
	return vfio_set_bits(rep->caller, rep->in.bitmap, first / rep->in.page_size,
			     last / rep->in.page_size);
}

/* Takes the marks of [page, end], in one word, and tells them. They stay if that fails. */
static long report_word(const struct report *rep, const struct range *r, word *w, uint64_t page,
			uint64_t end)
{
	uint64_t mask = (end % 64 == 63 ? ~0ull : (1ull << (end % 64 + 1)) - 1) &
			~((1ull << page % 64) - 1);
	uint64_t marks = atomic_fetch_and(w, ~mask) & mask, left = marks;
	uint64_t base = page - page % 64;
	long rc = 0;

	while (!rc && left) {
		unsigned int bit = (unsigned int)__builtin_ctzll(left);
		uint64_t run = ~(left >> bit);
		unsigned int n = run ? (unsigned int)__builtin_ctzll(run) : 64;

		n = SWI_MIN(n, 64 - bit);
		rc = tell(rep, r, base + bit, base + bit + n - 1);
		left &= n + bit == 64 ? 0 : ~0ull << (bit + n);
	}
	if (rc)
		atomic_fetch_or(w, marks);
	return rc;
}

static long report_range(const struct report *rep, struct range *r)
{
	uint64_t page = (SWI_MAX(rep->in.iova, r->first) - r->first) >> rep->log->page_lg2;
	uint64_t end = (SWI_MIN(rep->last, r->last) - r->first) >> rep->log->page_lg2;
	long rc = 0;

	if (rep->log->lost)
		return tell(rep, r, page, end);
	while (!rc && page <= end) {
		word *chunk = atomic_load(&r->chunks[page / CHUNK_PAGES]);
		uint64_t stop = SWI_MIN(end, page | (chunk ? 63 : CHUNK_PAGES - 1));

		if (chunk)
			rc = report_word(rep, r, &chunk[page % CHUNK_PAGES / 64], page, stop);
		page = stop + 1;
	}
	return rc;
}

static long report(struct vfio_device *dev, struct swiommu_caller *caller, uint64_t data)
{
	struct report rep = {.caller = caller};
	long rc;

	rc = vfio_copy_in(caller, &rep.in, data, sizeof(rep.in), "DMA_LOGGING_REPORT");
	if (rc)
		return rc;
	if (!is_pow2_u64(rep.in.page_size) || rep.in.page_size < SWI_PAGE_SIZE || !rep.in.length)
		return vfio_fail(caller, -EINVAL,
				 "DMA_LOGGING_REPORT: page_size %#llx, length %#llx: must be a "
				 "power of two from %llu on, and not 0",
				 (ull)rep.in.page_size, (ull)rep.in.length, (ull)SWI_PAGE_SIZE);
	if (!range_last(rep.in.iova, rep.in.length, &rep.last))
		return vfio_fail(caller, -EOVERFLOW,
				 "DMA_LOGGING_REPORT: iova %#llx + length %#llx passes 2^64",
				 (ull)rep.in.iova, (ull)rep.in.length);
	/* Shared, as by those who mark; but it keeps the log while the client's memory is written. */
	pthread_rwlock_rdlock(&dev->dma_log_lock);
	rep.log = dev->dma_log;
	if (!rep.log)
		rc = vfio_fail(caller, -EINVAL, "DMA_LOGGING_REPORT: %s is not logging",
			       dev->place.bdf);
	for (unsigned int i = 0; !rc && i < rep.log->nr_ranges; i++)
		if (rep.in.iova <= rep.log->ranges[i].last && rep.last >= rep.log->ranges[i].first)
			rc = report_range(&rep, &rep.log->ranges[i]);
	pthread_rwlock_unlock(&dev->dma_log_lock);
	return rc;
}

long vfio_dma_log_feature(struct vfio_device *dev, struct swiommu_caller *caller, uint64_t arg,
			  uint32_t argsz, uint32_t flags)
{
	static const struct {
		uint32_t feature, direction, size;
		long (*handler)(struct vfio_device *dev, struct swiommu_caller *caller,
				uint64_t data);
	} features[] = {
		{VFIO_DEVICE_FEATURE_DMA_LOGGING_START, VFIO_DEVICE_FEATURE_SET, 24, start},
		{VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP, VFIO_DEVICE_FEATURE_SET, 0, stop},
		{VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT, VFIO_DEVICE_FEATURE_GET, 32, report},
	};
	const uint32_t head = sizeof(struct vfio_device_feature);

	for (unsigned int i = 0; i < ARRAY_SIZE(features); i++) {
		long rc;

		if ((flags & VFIO_DEVICE_FEATURE_MASK) != features[i].feature)
			continue;
		rc = vfio_check_feature(caller, argsz, flags, features[i].direction,
					features[i].size);
		return rc <= 0 ? rc : features[i].handler(dev, caller, arg + head);
	}
	return -ENOTTY;
}
