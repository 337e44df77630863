// SPDX-License-Identifier: MIT
/*
 * Calls that outlive their callers.
 *
 * A thread that is killed in the middle of a call leaves at once, while the call goes on here. On a
 * kernel it is the other way round: the thread is not gone before its call has ended, and whoever
 * has waited for it finds all that the call did done: the address free again, the device unbound.
 * So a call that begins here first waits for older ones that were left. Only for those on the same
 * file, or on a device (which may concern any context): the others cannot be told apart from calls
 * that ended.
 */
#include "run/calls.h"

#include "run/files.h"

void calls_init(struct calls *calls)
{
	pthread_mutex_init(&calls->lock, NULL);
	pthread_cond_init(&calls->ended, NULL);
	list_init(&calls->active);
	calls->next_number = 0;
}

void calls_fini(struct calls *calls)
{
	pthread_cond_destroy(&calls->ended);
	pthread_mutex_destroy(&calls->lock);
}

static bool concerns(const struct call *older, const struct call *call)
{
	/* While its file is not known, a copy of a descriptor may keep any file open. */
	return !older->file || older->device || older->file == call->file;
}

/* Marks the older calls that were left by now. Whether there are any that concern `call`. */
static bool mark_left_locked(struct calls *calls, const struct call *call)
{
	bool found = false;
	struct list *pos;

	list_for_each (pos, &calls->active) {
		struct call *older = list_entry(pos, struct call, entry);

		if (older->number >= call->number)
			break;
		if (!concerns(older, call))
			continue;
		older->left = older->left || !task_valid(older->task);
		found = found || older->left;
	}
	return found;
}

static bool left_remain_locked(struct calls *calls, const struct call *call)
{
	struct list *pos;

	list_for_each (pos, &calls->active) {
		struct call *older = list_entry(pos, struct call, entry);

		if (older->number >= call->number)
			break;
		if (older->left && concerns(older, call))
			return true;
	}
	return false;
}

void call_begin(struct calls *calls, struct call *call, struct task *t)
{
	pthread_mutex_lock(&calls->lock);
	*call = (struct call){.number = calls->next_number++, .task = t};
	list_add_tail(&calls->active, &call->entry);
	pthread_mutex_unlock(&calls->lock);
}

bool call_proceed(struct calls *calls, struct call *call, const struct open_file *file)
{
	pthread_mutex_lock(&calls->lock);
	call->file = file;
	call->device = open_file_node(file)->kind != NODE_IOMMU;
	if (mark_left_locked(calls, call))
		while (left_remain_locked(calls, call))
			pthread_cond_wait(&calls->ended, &calls->lock);
	pthread_mutex_unlock(&calls->lock);
	/* Younger calls wait for this one if its caller is gone; an older one may not have seen it. */
	return call->task->ring || task_valid(call->task); /* rings.c has looked */
}

void call_end(struct calls *calls, struct call *call)
{
	pthread_mutex_lock(&calls->lock);
	list_del(&call->entry);
	if (call->left)
		pthread_cond_broadcast(&calls->ended);
	pthread_mutex_unlock(&calls->lock);
}
