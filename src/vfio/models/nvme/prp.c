// SPDX-License-Identifier: MIT
/*
 * A command's data: Physical Region Pages (NVMe 1.4, 4.3).
 *
 * The first entry may begin inside a page, all others are whole pages. The second entry of the command is the second page, or,
 * when there are more, the address of a list; a list that reaches the end of its page goes on in the page that
 * its last entry names. Neighbouring pages are put together, so that a buffer that is contiguous for the device is one DMA.
 *
 * The client can write anything into a list while it is read. Each part is read once, and how many entries are needed is
 * known from the command: a list that loops only delivers the same pages again.
 */
#include "vfio/models/nvme/nvme.h"

#include <endian.h>

#define ENTRIES_PER_PAGE (SWI_PAGE_SIZE / 8)

/* Pages of the client that follow each other, not yet moved. */
struct run {
	struct nvme *n;
	uint8_t *host;
	uint64_t iova;
	size_t length;
	bool to_client;
};

static uint16_t run_move(struct run *run)
{
	int rc;

	if (!run->length)
		return NVME_SUCCESS;
	/* Nobody sees what this command comes to. */
	if (atomic_load_explicit(&run->n->abort, memory_order_relaxed))
		return NVME_ABORTED_BY_REQUEST;
	rc = run->to_client ? vfio_dma_write(&run->n->dma, run->iova, run->host, run->length)
			    : vfio_dma_read(&run->n->dma, run->iova, run->host, run->length);
	run->host += run->length;
	run->length = 0;
	return rc ? NVME_DATA_TRANSFER_ERROR : NVME_SUCCESS;
}

static uint16_t run_add(struct run *run, uint64_t iova, size_t length)
{
	uint16_t status;

	if (run->length && run->iova + run->length == iova) {
		run->length += length;
		return NVME_SUCCESS;
	}
	status = run_move(run);
	run->iova = iova;
	run->length = length;
	return status;
}

/* Adds the pages of one part of a list; `*length` is what is left of the data. */
static uint16_t add_pages(struct run *run, const uint64_t *entries, size_t nr, size_t *length)
{
	uint16_t status = NVME_SUCCESS;

	for (size_t i = 0; i < nr && !status; i++) {
		uint64_t page = le64toh(entries[i]);
		size_t n = SWI_MIN(*length, SWI_PAGE_SIZE);

		if (page % SWI_PAGE_SIZE)
			return NVME_INVALID_PRP_OFFSET | NVME_DNR;
		status = run_add(run, page, n);
		*length -= n;
	}
	return status;
}

static uint16_t add_list(struct run *run, uint64_t list, size_t length)
{
	uint64_t entries[ENTRIES_PER_PAGE];
	uint16_t status = NVME_SUCCESS;

	if (list % 8)
		return NVME_INVALID_PRP_OFFSET | NVME_DNR;
	while (length && !status) {
		size_t in_page = (SWI_PAGE_SIZE - list % SWI_PAGE_SIZE) / 8;
		size_t needed = (length + SWI_PAGE_SIZE - 1) / SWI_PAGE_SIZE;
		size_t nr = SWI_MIN(in_page, needed);
		bool goes_on = needed > in_page;

		if (vfio_dma_read(&run->n->dma, list, entries, nr * 8))
			return NVME_DATA_TRANSFER_ERROR;
		status = add_pages(run, entries, goes_on ? nr - 1 : nr, &length);
		if (!goes_on)
			continue;
		list = le64toh(entries[nr - 1]);
		if (!status && list % SWI_PAGE_SIZE)
			return NVME_INVALID_PRP_OFFSET | NVME_DNR;
	}
	return status;
}

uint16_t nvme_transfer(struct nvme *n, const struct nvme_command *cmd, void *host, size_t length,
		       bool to_client)
{
	struct run run = {.n = n, .host = host, .to_client = to_client};
	size_t first = SWI_MIN(length, SWI_PAGE_SIZE - cmd->prp1 % SWI_PAGE_SIZE);
	size_t rest = length - first;
	uint16_t status;

	if (cmd->prp1 % 4)
		return NVME_INVALID_PRP_OFFSET | NVME_DNR;
	status = run_add(&run, cmd->prp1, first);
	if (!status && rest > SWI_PAGE_SIZE)
		status = add_list(&run, cmd->prp2, rest);
	else if (!status && rest)
		status = cmd->prp2 % SWI_PAGE_SIZE ? NVME_INVALID_PRP_OFFSET | NVME_DNR
						   : run_add(&run, cmd->prp2, rest);
	return status ? status : run_move(&run);
}
