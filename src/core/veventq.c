// SPDX-License-Identifier: MIT
/*
 * Event queues of a vIOMMU (spec devices.md 5.5).
 *
 * Every report takes the next sequence number, also one that finds the queue full. Then a marker stands at the end
 * of the queue, with the number of the last event that was lost; an event that is stored later removes it, as the gap
 * in the numbers tells the same. So there is at most one marker, and only at the end.
 *
 * A reader takes an event out, copies it without the lock, and puts it back if that failed; readers come one at a
 * time, so the order is kept.
 *
 * A queue takes its place among those of its vIOMMU before it has a descriptor, and events only after that.
 */
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "core/call.h"
#include "core/viommu.h"

#define DEPTH_MAX (1u << 19)
#define SEQUENCE_MAX 0x7fffffffu

struct vevent {
	struct list entry;
	size_t len;			     /* of data */
	struct iommufd_vevent_header header; /* followed by the data, as the user reads it */
	uint8_t data[];
};

struct veventq {
	struct obj obj;
	struct swiommu_file file;
	struct viommu *viommu; /* counted */
	struct list entry;     /* in viommu->veventqs */
	uint32_t type, depth;
	pthread_mutex_t reading; /* one reader at a time; before the vIOMMU's events_lock */
	/* The rest under the vIOMMU's events_lock. */
	bool open;	    /* its descriptor is there: nobody would be told of an event that came before */
	struct list events; /* struct vevent.entry, oldest first */
	uint32_t count;	    /* of events, without the marker */
	uint32_t sequence;  /* the next one */
	bool lost;	    /* the marker stands at the end */
	uint32_t lost_sequence;
};

static struct veventq *veventq_of(struct obj *obj)
{
	return container_of(obj, struct veventq, obj);
}

static bool has_input(const struct veventq *q)
{
	return q->count || q->lost;
}

/* ---- reports ---------------------------------------------------------------------------------------- */

static struct veventq *find_locked(struct viommu *viommu, uint32_t type)
{
	struct list *pos;

	list_for_each (pos, &viommu->veventqs)
		if (list_entry(pos, struct veventq, entry)->type == type)
			return list_entry(pos, struct veventq, entry);
	return NULL;
}

static int report_locked(struct veventq *q, const void *data, size_t len)
{
	uint32_t sequence = q->sequence;
	bool had = has_input(q);
	struct vevent *ev = NULL;
	int rc = 0;

	q->sequence = sequence == SEQUENCE_MAX ? 0 : sequence + 1;
	if (q->count < q->depth) {
		ev = swi_alloc(sizeof(*ev) + len);
		rc = ev ? 0 : -ENOMEM;
	}
	if (ev) {
		ev->len = len;
		ev->header = (struct iommufd_vevent_header){.sequence = sequence};
		memcpy(ev->data, data, len);
		list_add_tail(&q->events, &ev->entry);
		q->count++;
	} else {
		q->lost_sequence = sequence;
	}
	q->lost = !ev;
	if (!had)
		swiommu_file_signal(&q->file, true);
	return rc;
}

int iommufd_viommu_report_event(struct iommufd_viommu *pub, uint32_t type, const void *data,
				size_t len)
{
	struct viommu *viommu = viommu_of_pub(pub);
	struct veventq *q;
	int rc;

	if (!data || !len)
		return -EINVAL;
	pthread_mutex_lock(&viommu->events_lock);
	q = find_locked(viommu, type);
	rc = q && q->open ? report_locked(q, data, len) : -EOPNOTSUPP;
	pthread_mutex_unlock(&viommu->events_lock);
	return rc;
}

/* ---- reading ---------------------------------------------------------------------------------------- */

/*
 * Takes the next event out: *ev, or the marker, whose header is in *marker then. False: there is none, or *rc says
 * that it does not fit into `room`.
 */
static bool take_next(struct veventq *q, size_t room, struct vevent **ev,
		      struct iommufd_vevent_header *marker)
{
	bool took = false;

	*ev = NULL;
	pthread_mutex_lock(&q->viommu->events_lock);
	if (q->count) {
		struct vevent *first = list_entry(q->events.next, struct vevent, entry);

		*ev = first;
		if (sizeof(first->header) + first->len <= room) {
			list_del(&first->entry);
			q->count--;
			took = true;
		}
	} else if (q->lost && room >= sizeof(*marker)) {
		*marker = (struct iommufd_vevent_header){.flags = IOMMU_VEVENTQ_FLAG_LOST_EVENTS,
							 .sequence = q->lost_sequence};
		q->lost = false;
		took = true;
	}
	if (took && !has_input(q))
		swiommu_file_signal(&q->file, false);
	pthread_mutex_unlock(&q->viommu->events_lock);
	return took;
}

static void put_back(struct veventq *q, struct vevent *ev, uint32_t marker)
{
	bool had;

	pthread_mutex_lock(&q->viommu->events_lock);
	had = has_input(q);
	if (ev) {
		list_add(&q->events, &ev->entry);
		q->count++;
	} else if (!had) {
		q->lost = true;
		q->lost_sequence = marker;
	}
	if (!had)
		swiommu_file_signal(&q->file, true);
	pthread_mutex_unlock(&q->viommu->events_lock);
}

static struct veventq *veventq_of_file(struct swiommu_file *file)
{
	return container_of(file, struct veventq, file);
}

static ssize_t veventq_read(struct swiommu_file *file, struct swiommu_caller *caller, uint64_t uptr,
			    size_t count)
{
	struct veventq *q = veventq_of_file(file);
	struct iommufd_vevent_header marker;
	size_t done = 0, len;
	struct vevent *ev;
	int rc = 0;

	if (count < sizeof(marker))
		return -EINVAL;
	pthread_mutex_lock(&q->reading);
	while (take_next(q, count - done, &ev, &marker)) {
		len = sizeof(marker) + (ev ? ev->len : 0);
		/* Header and data lie one behind the other, for they are copied as one. */
		_Static_assert(offsetof(struct vevent, data) ==
				       offsetof(struct vevent, header) + sizeof(marker),
			       "event as the user reads it");
		rc = caller->ops->copy_out(caller, uptr + done, ev ? (void *)&ev->header : &marker,
					   len);
		if (rc) {
			put_back(q, ev, marker.sequence);
			ev = NULL;
			break;
		}
		swi_free(ev);
		ev = NULL;
		done += len;
	}
	/* An event that does not fit is told only to who gets nothing else. */
	if (!rc && ev && !done)
		rc = -EINVAL;
	pthread_mutex_unlock(&q->reading);
	return done ? (ssize_t)done : rc;
}

/* ---- life ------------------------------------------------------------------------------------------- */

static void veventq_release(struct swiommu_file *file)
{
	struct veventq *q = veventq_of_file(file);
	struct iommufd_ctx *ctx = q->obj.ctx;

	pthread_mutex_lock(&q->viommu->events_lock);
	swiommu_file_unsignal(file);
	pthread_mutex_unlock(&q->viommu->events_lock);
	obj_unhold(&q->obj);
	iommufd_ctx_put(ctx);
}

static const struct swiommu_file_ops veventq_file_ops = {
	.name = "event queue",
	.release = veventq_release,
	.read = veventq_read,
};

static void veventq_destroy(struct obj *obj)
{
	struct veventq *q = veventq_of(obj);

	pthread_mutex_lock(&q->viommu->events_lock);
	list_del(&q->entry);
	while (!list_empty(&q->events)) {
		struct vevent *ev = list_entry(q->events.next, struct vevent, entry);

		list_del(&ev->entry);
		swi_free(ev);
	}
	pthread_mutex_unlock(&q->viommu->events_lock);
	pthread_mutex_destroy(&q->reading);
	obj_unhold(&q->viommu->obj);
}

static const struct obj_ops veventq_ops = {
	.type = OBJ_VEVENTQ,
	.name = "event queue",
	.size = sizeof(struct veventq),
	.destroy = veventq_destroy,
};

/* The last step of VEVENTQ_ALLOC: the descriptor, and with it reports. */
static int open_queue(struct call *call, struct veventq *q)
{
	struct iommu_veventq_alloc *cmd = (void *)call->cmd.bytes;
	int rc;

	/* A descriptor whose number could not be written publishes the queue, which may then go at once. */
	obj_hold(&q->obj);
	rc = call_install_event_file(call, &q->file, &veventq_file_ops, &cmd->out_veventq_fd);
	pthread_mutex_lock(&q->viommu->events_lock);
	q->open = !rc || !call->new_obj;
	pthread_mutex_unlock(&q->viommu->events_lock);
	obj_unhold(&q->obj);
	return rc;
}

static int create(struct call *call, struct viommu *viommu)
{
	struct iommu_veventq_alloc *cmd = (void *)call->cmd.bytes;
	struct veventq *q;
	struct obj *obj;
	int rc = 0;

	rc = obj_alloc(call->ctx, &veventq_ops, &obj);
	if (rc)
		return rc;
	q = veventq_of(obj);
	q->viommu = viommu;
	q->type = cmd->type;
	q->depth = cmd->veventq_depth;
	q->file.signal_fd = -1;
	list_init(&q->events);
	list_init(&q->entry);
	pthread_mutex_init(&q->reading, NULL);
	obj_hold(&viommu->obj);
	call->new_obj = obj;
	cmd->out_veventq_id = obj->id;
	pthread_mutex_lock(&viommu->events_lock);
	if (find_locked(viommu, cmd->type))
		rc = swi_fail(call->why, -EEXIST, "vIOMMU %u has a queue for events of type %#x",
			      viommu->obj.id, cmd->type);
	else
		list_add_tail(&viommu->veventqs, &q->entry);
	pthread_mutex_unlock(&viommu->events_lock);
	return rc ? rc : open_queue(call, q);
}

int veventq_cmd_alloc(struct call *call)
{
	const struct iommu_veventq_alloc *cmd = (void *)call->cmd.bytes;
	struct obj *obj;
	int rc;

	if (cmd->flags || cmd->__reserved || cmd->type == IOMMU_VEVENTQ_TYPE_DEFAULT)
		return swi_fail(call->why, -EOPNOTSUPP,
				"no flag is defined, and type %u is no queue", cmd->type);
	if (!cmd->veventq_depth || cmd->veventq_depth > DEPTH_MAX)
		return swi_fail(call->why, -EINVAL, "depth %u is not from 1 to %u",
				cmd->veventq_depth, DEPTH_MAX);
	rc = obj_get(call->ctx, cmd->viommu_id, OBJ_VIOMMU, "viommu_id", call->why, &obj);
	if (rc)
		return rc;
	rc = create(call, viommu_of(obj));
	obj_put(obj);
	return rc;
}
