// SPDX-License-Identifier: MIT
/* Doorbells in page tables: see sw_msi.h. What a device writes there is given to the host (struct device.doorbell). */
#include "core/sw_msi.h"

#include <errno.h>

#include "core/attach.h"
#include "core/ctx.h"
#include "core/dma.h"
#include "core/fault.h"
#include "mem/phys.h"

/* The number of a doorbell page in a window, new if need be. -EOVERFLOW. */
static int find_page_locked(struct sw_msi *msi, uint64_t start, uint64_t pa, unsigned int *out)
{
	uint64_t offset = 0;
	unsigned int i;

	for (i = 0; i < msi->nr; i++) {
		const struct sw_msi_page *p = &msi->pages[i];

		if (p->start != start)
			continue;
		if (p->pa == pa) {
			*out = i;
			return 0;
		}
		offset = SWI_MAX(offset, p->offset + SWI_PAGE_SIZE);
	}
	if (msi->nr == SW_MSI_PAGES)
		return -EOVERFLOW;
	msi->pages[msi->nr] = (struct sw_msi_page){start, pa, offset};
	*out = msi->nr++;
	return 0;
}

static int install_one_locked(struct sw_msi *msi, unsigned int n, struct hwpt *paging,
			      struct swi_reason *why)
{
	const struct sw_msi_page *p = &msi->pages[n];
	int rc;

	if (paging->sw_msi >> n & 1)
		return 0;
	rc = domain_map_page(&paging->tables, paging->ioas, p->start + p->offset, p->pa, why);
	if (!rc)
		paging->sw_msi |= 1ull << n;
	return rc;
}

int sw_msi_install_locked(struct device_group *dg, struct hwpt *hwpt, struct swi_reason *why)
{
	struct sw_msi *msi = &dg->ctx->sw_msi;
	int rc = 0;

	if (!dg->sw_msi_required)
		return 0;
	pthread_mutex_lock(&msi->lock);
	for (unsigned int n = 0; !rc && n < msi->nr; n++)
		if (dg->sw_msi_required >> n & 1 && msi->pages[n].start == dg->sw_msi_start)
			rc = install_one_locked(msi, n, hwpt_paging(hwpt), why);
	pthread_mutex_unlock(&msi->lock);
	return rc;
}

/* The group's devices shall reach the page from now on; *out: where. dgroup->lock held. */
static int require_page_locked(struct device_group *dg, struct attachment *at, uint64_t pa,
			       uint64_t *out)
{
	struct sw_msi *msi = &dg->ctx->sw_msi;
	unsigned int n = 0;
	int rc;

	pthread_mutex_lock(&msi->lock);
	rc = find_page_locked(msi, dg->sw_msi_start, pa, &n);
	if (!rc)
		rc = install_one_locked(msi, n, hwpt_paging(at->hwpt), NULL);
	if (!rc) {
		dg->sw_msi_required |= 1ull << n;
		*out = msi->pages[n].start + msi->pages[n].offset;
	}
	pthread_mutex_unlock(&msi->lock);
	return rc;
}

int iommufd_sw_msi(struct iommu_domain *domain, struct msi_desc *desc, uint64_t msi_addr)
{
	struct iommufd_device *idev = device_of_bound(desc->dev);
	uint64_t in_page = msi_addr % SWI_PAGE_SIZE, iova = 0;
	struct device_group *dg;
	struct attachment *at;
	int rc = 0;

	desc->address = msi_addr;
	if (!idev)
		return 0;
	/* Above that memory has its addresses. */
	if (msi_addr >= PHYS_FIRST)
		return -ERANGE;
	dg = idev->dgroup;
	pthread_mutex_lock(&dg->lock);
	at = attachment_find(dg, 0);
	if (at && (!domain || at->hwpt->domain == domain) && dg->sw_msi_start != SW_MSI_NONE) {
		rc = require_page_locked(dg, at, msi_addr - in_page, &iova);
		if (!rc)
			desc->address = iova + in_page;
	}
	pthread_mutex_unlock(&dg->lock);
	return rc;
}

int dma_doorbell(struct swiommu_dma *dma, uint64_t addr, const void *buf, size_t len,
		 unsigned int dir)
{
	struct device *dev = dma->idev->dev;

	if (dir != SWI_WRITE || !dev->doorbell)
		return -EFAULT;
	dev->doorbell(dev, addr, buf, len);
	return 0;
}
