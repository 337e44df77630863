// SPDX-License-Identifier: MIT
/*
 * Fault queues (spec devices.md 4.1, 4.3 to 4.5).
 *
 * A group of page requests is in one of two places: a list of what is unread, a tree of what is read and unanswered. Whoever
 * takes it out of there, under the lock, answers it: the user's write, a detach, or the end of the queue. So each is answered
 * exactly once. Answers are given under the lock too: the device of a group stays bound as long as the group is in one
 * of them, and a detach, after which it may be unbound, passes by the lock. Copies to and from the user are done without the
 * lock; meanwhile a group is kept among what is unanswered with its cookie taken: a detach that comes then
 * answers it, and the user's answer then finds no such cookie.
 *
 * The object is busy while the file is open. The file is part of the object and holds the context.
 */
#include "core/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/alloc.h"
#include "core/call.h"

struct fault {
	struct obj obj;
	struct swiommu_file file;
	pthread_mutex_t lock;
	pthread_mutex_t reading; /* one reader at a time, so that order is kept; before `lock` */
	struct list unread;	 /* struct fault_group.entry, oldest first; lock */
	struct rb_tree unanswered; /* struct fault_group.node, by cookie; lock */
	uint32_t lowest_free;	 /* no cookie below is free, but for 0, which is none; lock */
};

struct fault *fault_of(struct obj *obj)
{
	return container_of(obj, struct fault, obj);
}

struct obj *fault_obj(struct fault *fault)
{
	return &fault->obj;
}

static struct fault_group *group_of(struct list *pos)
{
	return list_entry(pos, struct fault_group, entry);
}

static struct fault_group *group_of_node(struct rb_node *node)
{
	return container_of(node, struct fault_group, node);
}

/* From now on it has no cookie. */
static void remove_unanswered_locked(struct fault *fault, struct fault_group *group)
{
	rb_erase(&fault->unanswered, &group->node);
	if (!fault->lowest_free || group->cookie < fault->lowest_free)
		fault->lowest_free = group->cookie;
	group->cookie = 0;
}

/* Tells the driver, or who waits, and frees the group. The lock of its queue is held, or it is in none and cannot get in. */
static void fault_respond(struct fault_group *group, enum iommu_page_response_code code)
{
	iopf_param_respond(group->idev->iopf, group, code);
	swi_free(group);
}

static void respond_all(struct list *groups)
{
	while (!list_empty(groups)) {
		struct fault_group *group = group_of(groups->next);

		list_del(&group->entry);
		fault_respond(group, IOMMU_PAGE_RESP_INVALID);
	}
}

/* ---- the queue ------------------------------------------------------------------------------------- */

void fault_enqueue(struct fault *fault, struct fault_group *group)
{
	bool first;

	pthread_mutex_lock(&fault->lock);
	first = list_empty(&fault->unread);
	list_add_tail(&fault->unread, &group->entry);
	if (first)
		swiommu_file_signal(&fault->file, true);
	pthread_mutex_unlock(&fault->lock);
}

static bool matches(const struct fault_group *group, const struct attach_handle *handle,
		    const struct iommufd_device *idev)
{
	return group->handle == handle && (!idev || group->idev == idev);
}

static void take_matching_locked(struct fault *fault, const struct attach_handle *handle,
				 const struct iommufd_device *idev, struct list *to)
{
	struct rb_node *node, *next;
	struct list *pos, *tmp;

	list_for_each_safe (pos, tmp, &fault->unread) {
		if (!matches(group_of(pos), handle, idev))
			continue;
		list_del(pos);
		list_add_tail(to, pos);
	}
	for (node = rb_first(&fault->unanswered); node; node = next) {
		struct fault_group *group = group_of_node(node);

		next = rb_next(node);
		if (!matches(group, handle, idev))
			continue;
		remove_unanswered_locked(fault, group);
		list_add_tail(to, &group->entry);
	}
}

void fault_purge(struct fault *fault, const struct attach_handle *handle,
		 const struct iommufd_device *idev)
{
	struct list gone;
	bool had;

	list_init(&gone);
	pthread_mutex_lock(&fault->lock);
	had = !list_empty(&fault->unread);
	take_matching_locked(fault, handle, idev, &gone);
	if (had && list_empty(&fault->unread))
		swiommu_file_signal(&fault->file, false);
	respond_all(&gone);
	pthread_mutex_unlock(&fault->lock);
}

static void fault_destroy(struct obj *obj)
{
	struct fault *fault = fault_of(obj);

	struct rb_node *node;

	/* Attachments hold the HWPTs that hold us: nothing is left but by a broken caller. */
	respond_all(&fault->unread);
	while ((node = rb_first(&fault->unanswered))) {
		remove_unanswered_locked(fault, group_of_node(node));
		fault_respond(group_of_node(node), IOMMU_PAGE_RESP_INVALID);
	}
	pthread_mutex_destroy(&fault->lock);
	pthread_mutex_destroy(&fault->reading);
}

static const struct obj_ops fault_ops = {
	.type = OBJ_FAULT,
	.name = "fault queue",
	.size = sizeof(struct fault),
	.destroy = fault_destroy,
};

/* ---- reading ---------------------------------------------------------------------------------------- */

static struct fault *fault_of_file(struct swiommu_file *file)
{
	return container_of(file, struct fault, file);
}

/* The group with a cookie, or NULL and where it would be: at *link below *parent. */
static struct fault_group *find_cookie_locked(struct fault *fault, uint32_t cookie,
					      struct rb_node **parent, struct rb_node ***link)
{
	*parent = NULL;
	*link = &fault->unanswered.root;
	while (**link) {
		struct fault_group *group = group_of_node(**link);

		if (group->cookie == cookie)
			return group;
		*parent = **link;
		*link = cookie < group->cookie ? &(*parent)->left : &(*parent)->right;
	}
	return NULL;
}

static struct fault_group *cookie_locked(struct fault *fault, uint32_t cookie)
{
	struct rb_node *parent, **link;

	return find_cookie_locked(fault, cookie, &parent, &link);
}

/* To what is unanswered, under the smallest cookie that is free. */
static int give_cookie_locked(struct fault *fault, struct fault_group *group)
{
	struct rb_node *parent, **link, *node;
	uint32_t cookie = fault->lowest_free;
	struct fault_group *taken;

	if (swi_fail_point() || !cookie)
		return -ENOMEM;
	taken = find_cookie_locked(fault, cookie, &parent, &link);
	for (node = taken ? &taken->node : NULL; node && group_of_node(node)->cookie == cookie;
	     node = rb_next(node))
		if (++cookie == 0)
			return -ENOMEM;
	if (taken)
		find_cookie_locked(fault, cookie, &parent, &link);
	group->cookie = cookie;
	rb_insert(&fault->unanswered, &group->node, parent, link);
	fault->lowest_free = cookie + 1;
	return 0;
}

static void fill_record(const struct fault_group *group, uint32_t i, struct iommu_hwpt_pgfault *out)
{
	const struct iommu_fault_page_request *prm = &group->faults[i].prm;

	*out = (struct iommu_hwpt_pgfault){
		.flags = prm->flags &
			 (IOMMU_PGFAULT_FLAGS_PASID_VALID | IOMMU_PGFAULT_FLAGS_LAST_PAGE),
		.dev_id = group->idev->obj.id,
		.pasid = prm->pasid,
		.grpid = prm->grpid,
		.perm = prm->perm,
		.addr = prm->addr,
		.cookie = group->cookie,
	};
}

/*
 * The next group as records, which the caller frees; it is unanswered from now on. *out NULL: the queue is empty, or
 * (-EINVAL) its first group has more than `room` bytes.
 */
static int take_next(struct fault *fault, size_t room, struct iommu_hwpt_pgfault **out,
		     uint32_t *nr)
{
	struct fault_group *group;
	int rc = 0;

	*out = NULL;
	pthread_mutex_lock(&fault->lock);
	if (list_empty(&fault->unread))
		goto unlock;
	group = group_of(fault->unread.next);
	*nr = group->nr;
	rc = -EINVAL;
	if (group->nr > room / sizeof(**out))
		goto unlock;
	rc = -ENOMEM;
	*out = swi_alloc(group->nr * sizeof(**out));
	if (!*out)
		goto unlock;
	list_del(&group->entry);
	rc = give_cookie_locked(fault, group);
	if (rc) {
		list_add(&fault->unread, &group->entry);
		swi_free(*out);
		*out = NULL;
		goto unlock;
	}
	for (uint32_t i = 0; i < group->nr; i++)
		fill_record(group, i, &(*out)[i]);
	if (list_empty(&fault->unread))
		swiommu_file_signal(&fault->file, false);
unlock:
	pthread_mutex_unlock(&fault->lock);
	return rc;
}

/* The group could not be delivered: to the head, without its cookie, unless a detach has answered it. */
static void take_back(struct fault *fault, uint32_t cookie)
{
	struct fault_group *group;

	pthread_mutex_lock(&fault->lock);
	group = cookie_locked(fault, cookie);
	if (group) {
		remove_unanswered_locked(fault, group);
		list_add(&fault->unread, &group->entry);
		swiommu_file_signal(&fault->file, true);
	}
	pthread_mutex_unlock(&fault->lock);
}

static ssize_t fault_read(struct swiommu_file *file, struct swiommu_caller *caller, uint64_t uptr,
			  size_t count)
{
	struct fault *fault = fault_of_file(file);
	struct iommu_hwpt_pgfault *records;
	size_t done = 0, len;
	uint32_t nr;
	int rc;

	if (count % sizeof(*records))
		return -ESPIPE;
	pthread_mutex_lock(&fault->reading);
	for (;;) {
		rc = take_next(fault, count - done, &records, &nr);
		if (rc || !records)
			break;
		len = nr * sizeof(*records);
		rc = swi_fail_point() || caller->ops->copy_out(caller, uptr + done, records, len)
			     ? -EFAULT
			     : 0;
		if (rc)
			take_back(fault, records->cookie);
		swi_free(records);
		if (rc)
			break;
		done += len;
	}
	pthread_mutex_unlock(&fault->reading);
	return done ? (ssize_t)done : rc;
}

/* ---- answering -------------------------------------------------------------------------------------- */

static int answer(struct fault *fault, const struct iommu_hwpt_page_response *response)
{
	struct fault_group *group;

	if (response->code != IOMMUFD_PAGE_RESP_SUCCESS &&
	    response->code != IOMMUFD_PAGE_RESP_INVALID)
		return -EINVAL;
	pthread_mutex_lock(&fault->lock);
	group = cookie_locked(fault, response->cookie);
	if (group) {
		remove_unanswered_locked(fault, group);
		fault_respond(group, response->code == IOMMUFD_PAGE_RESP_SUCCESS
					     ? IOMMU_PAGE_RESP_SUCCESS
					     : IOMMU_PAGE_RESP_INVALID);
	}
	pthread_mutex_unlock(&fault->lock);
	return group ? 0 : -EINVAL;
}

static ssize_t fault_write(struct swiommu_file *file, struct swiommu_caller *caller, uint64_t uptr,
			   size_t count)
{
	struct iommu_hwpt_page_response response;
	size_t done;
	int rc = 0;

	if (count % sizeof(response))
		return -ESPIPE;
	for (done = 0; done < count; done += sizeof(response)) {
		rc = caller->ops->copy_in(caller, &response, uptr + done, sizeof(response))
			     ? -EFAULT
			     : 0;
		if (!rc)
			rc = answer(fault_of_file(file), &response);
		if (rc)
			break;
	}
	return done ? (ssize_t)done : rc;
}

/* ---- life ------------------------------------------------------------------------------------------- */

static void fault_release(struct swiommu_file *file)
{
	struct fault *fault = fault_of_file(file);
	struct iommufd_ctx *ctx = fault->obj.ctx;

	pthread_mutex_lock(&fault->lock);
	swiommu_file_unsignal(file);
	pthread_mutex_unlock(&fault->lock);
	obj_unhold(&fault->obj);
	iommufd_ctx_put(ctx);
}

static const struct swiommu_file_ops fault_file_ops = {
	.name = "fault queue",
	.release = fault_release,
	.read = fault_read,
	.write = fault_write,
};

int fault_cmd_alloc(struct call *call)
{
	struct iommu_fault_alloc *cmd = (void *)call->cmd.bytes;
	struct fault *fault;
	struct obj *obj;
	int rc;

	if (cmd->flags)
		return swi_fail(call->why, -EOPNOTSUPP, "flags %#x: none is defined", cmd->flags);
	rc = obj_alloc(call->ctx, &fault_ops, &obj);
	if (rc)
		return rc;
	fault = fault_of(obj);
	pthread_mutex_init(&fault->lock, NULL);
	pthread_mutex_init(&fault->reading, NULL);
	list_init(&fault->unread);
	fault->lowest_free = 1;
	cmd->out_fault_id = obj->id;
	call->new_obj = obj;
	return call_install_event_file(call, &fault->file, &fault_file_ops, &cmd->out_fault_fd);
}
