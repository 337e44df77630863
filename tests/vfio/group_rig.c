// SPDX-License-Identifier: MIT
/* The rig of the tests of groups and containers; see group_rig.h. */
#include "group_rig.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <string.h>

static struct group_rig *group_rig_of(struct swiommu_caller *c)
{
	return (struct group_rig *)c;
}

static int not_one(struct swiommu_caller *c, int fd)
{
	return (fd >= CONTAINER_FD && fd < GROUP_FD + 2) || fd == RIG_CTX_FD || fd == RIG_CTX_FD + 1
		       ? -EBADFD
		       : ((struct rig *)c)->local->get_ctx(c, fd, NULL);
}

static int host_container(struct swiommu_caller *c, int fd, struct vfio_container **out)
{
	if (fd != CONTAINER_FD && fd != CONTAINER_FD + 1)
		return not_one(c, fd);
	*out = vfio_container_get(group_rig_of(c)->containers[fd - CONTAINER_FD]);
	return 0;
}

static int host_group(struct swiommu_caller *c, int fd, struct vfio_group_file **out)
{
	if ((fd != GROUP_FD && fd != GROUP_FD + 1) || !group_rig_of(c)->groups[fd - GROUP_FD])
		return not_one(c, fd);
	*out = vfio_group_file_get(group_rig_of(c)->groups[fd - GROUP_FD]);
	return 0;
}

/* None of its own numbers is a context, but they are open. */
static int get_ctx(struct swiommu_caller *c, int fd, struct iommufd_ctx **out)
{
	struct group_rig *g = group_rig_of(c);

	return fd >= CONTAINER_FD && fd < GROUP_FD + 2 ? -EBADFD : g->rig_get_ctx(c, fd, out);
}

static int host_mapping(struct swiommu_caller *c, uint64_t uptr, uint64_t length,
			struct vfio_device **dev, uint64_t *pos)
{
	if (uptr < BAR_ADDRESS || uptr + length > BAR_ADDRESS + BAR_MAPPED)
		return -ENOENT;
	*dev = group_rig_of(c)->devices[OTHER];
	*pos = BAR_FROM + uptr - BAR_ADDRESS;
	return 0;
}

static const struct vfio_host_ops host = {
	.get_container = host_container,
	.get_group = host_group,
	.find_mapping = host_mapping,
};

/* The probe with a page that is shared with clients. */
static int paged_create(struct vfio_device *dev, const char *options, struct swi_reason *why,
			void **out_priv)
{
	int rc = probe_model.create(dev, options, why, out_priv);

	vfio_pci_add_pages(dev, 0, BAR_FROM + 0x1000, 0x1000);
	return rc;
}

/* What is special about some of the devices. */
enum kind { NOTHING, EMULATED, NOIOMMU };

static void add(struct group_rig *g, unsigned int which, const char *bdf, unsigned int index,
		struct iommu_group *group, enum kind kind)
{
	struct vfio_device_place place = {.index = index,
					  .group = group,
					  .emulated = kind == EMULATED,
					  .noiommu = kind == NOIOMMU};
	struct vfio_model *model = &g->models[which];
	struct swi_reason why = {""};

	*model = probe_model;
	model->create = paged_create;
	strcpy(place.bdf, bdf);
	if (vfio_device_create(model, &place, "", &g->devices[which], &why))
		fail_msg("%s", why.text);
}

static void open_rig(struct group_rig *g, unsigned int max_mappings, enum kind kind)
{
	enum kind mates = kind == NOIOMMU ? NOTHING : kind;
	struct vfio_system_options opt = {.host = &host, .max_mappings = max_mappings};

	memset(g, 0, sizeof(*g));
	rig_open(&g->r, &probe_model, "");
	g->rig_get_ctx = g->r.ops.get_ctx;
	g->r.ops.get_ctx = get_ctx;
	assert_int_equal(iommu_group_init(&g->other_group, 6), 0);
	g->devices[MINE] = g->r.dev;
	add(g, MATE, MATE_BDF, 4, &g->r.group, mates);
	add(g, OTHER, OTHER_BDF, 5, &g->other_group, kind);
	add(g, EXTRA, EXTRA_BDF, 6, &g->r.group, mates);
	assert_int_equal(vfio_system_create(&opt, &g->sys), 0);
	for (unsigned int i = 0; i < NR_DEVICES; i++)
		assert_int_equal(vfio_system_add(g->sys, g->devices[i]), 0);
	for (unsigned int i = 0; i < 2; i++)
		assert_int_equal(vfio_container_open(g->sys, &g->containers[i]), 0);
}

void group_rig_open(struct group_rig *g, unsigned int max_mappings)
{
	open_rig(g, max_mappings, NOTHING);
}

void group_rig_open_emulated(struct group_rig *g)
{
	open_rig(g, 0, EMULATED);
}

void group_rig_open_noiommu(struct group_rig *g)
{
	open_rig(g, 0, NOIOMMU);
}

void group_rig_close(struct group_rig *g)
{
	for (unsigned int i = 0; i < 2; i++)
		vfio_group_file_put(g->groups[i]);
	for (unsigned int i = 0; i < 2; i++)
		vfio_container_put(g->containers[i]);
	vfio_system_destroy(g->sys);
	for (unsigned int i = MATE; i < NR_DEVICES; i++)
		vfio_device_destroy(g->devices[i]);
	rig_close(&g->r);
	iommu_group_fini(&g->other_group);
}

int group_rig_setup(void **state)
{
	static struct group_rig rig;

	group_rig_open(&rig, 0);
	*state = &rig;
	return 0;
}

int group_rig_teardown(void **state)
{
	group_rig_close(*state);
	return 0;
}

int group_open(struct group_rig *g, unsigned int which)
{
	struct iommu_group *group = which ? &g->other_group : &g->r.group;
	struct vfio_group_file *gf = NULL;
	struct swi_reason why = {""};
	int rc = vfio_group_file_open(vfio_system_group(g->sys, group), &gf, &why);

	assert_int_equal(rc != 0, why.text[0] != '\0');
	if (!rc)
		g->groups[which] = gf;
	return rc;
}

void group_close(struct group_rig *g, unsigned int which)
{
	struct vfio_group_file *gf = g->groups[which];

	g->groups[which] = NULL;
	vfio_group_file_put(gf);
}

/* A failure must come with a reason. */
static long told(struct group_rig *g, long rc)
{
	assert_int_equal(g->r.caller.reason[0] != '\0', rc < 0);
	return rc;
}

long group_ioctl(struct group_rig *g, unsigned int which, unsigned int cmd, void *arg)
{
	return told(g, vfio_group_file_ioctl(g->groups[which], &g->r.caller, cmd, (uintptr_t)arg));
}

long container_ioctl(struct group_rig *g, unsigned int which, unsigned int cmd, void *arg)
{
	return told(g,
		    vfio_container_ioctl(g->containers[which], &g->r.caller, cmd, (uintptr_t)arg));
}

long set_container(struct group_rig *g, unsigned int which, int fd)
{
	return group_ioctl(g, which, VFIO_GROUP_SET_CONTAINER, &fd);
}

int get_device(struct group_rig *g, unsigned int which, const char *name, struct vfio_file **out)
{
	return (int)told(
		g, vfio_group_get_device(g->groups[which], &g->r.caller, (uintptr_t)name, out));
}

void group_ready(struct group_rig *g, unsigned long type)
{
	assert_int_equal(group_open(g, 0), 0);
	assert_int_equal(set_container(g, 0, CONTAINER_FD), 0);
	assert_int_equal(container_ioctl(g, 0, VFIO_SET_IOMMU, (void *)type), 0);
}

long map_dma(struct group_rig *g, void *p, uint64_t size, uint64_t iova, uint32_t flags)
{
	struct vfio_iommu_type1_dma_map map = {.argsz = sizeof(map),
					       .flags = flags,
					       .vaddr = (uintptr_t)p,
					       .iova = iova,
					       .size = size};

	return container_ioctl(g, 0, VFIO_IOMMU_MAP_DMA, &map);
}

long unmap_dma(struct group_rig *g, uint64_t iova, uint64_t *size, uint32_t flags)
{
	struct vfio_iommu_type1_dma_unmap unmap = {
		.argsz = sizeof(unmap), .flags = flags, .iova = iova, .size = *size};
	long rc = container_ioctl(g, 0, VFIO_IOMMU_UNMAP_DMA, &unmap);

	*size = unmap.size;
	return rc;
}

long probe_dma(struct vfio_device *dev, uint64_t iova, uint8_t *byte)
{
	struct probe *p = dev->priv;

	return vfio_dma_read(&p->dma, iova, byte, 1);
}
