// SPDX-License-Identifier: MIT
/*
 * Readers from the map's side: who is registered, and how a writer waits for those inside. The
 * argument why waiting is enough is at the top of reader.h.
 *
 * A wait needs no memory and holds no lock while it lasts, since a section can be as long as a page
 * fault of the client. It notes who is inside, in portions of a fixed size, and watches
 * their states until each has changed; a later section of the same reader has another state, so
 * that busy readers cannot starve it. A noted registration is held by a count; detach waits for
 * that to be zero before the reader's memory goes out of use.
 */
#include "iova/internal.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <time.h>
#include "base/alloc.h"

#define TAG_MAX 4095u
#define PORTION 32u

/* ---- waiting --------------------------------------------------------------------------------- */

struct patience {
	unsigned rounds;
};

/* A little spinning (a DMA takes well under a microsecond), then the processor, then longer and
 * longer naps. */
static void patience_pause(struct patience *p)
{
	unsigned n = p->rounds++;

	if (n < 64) {
#if defined(__x86_64__)
		__builtin_ia32_pause();
#endif
	} else if (n < 80) {
		sched_yield();
	} else {
		unsigned doublings = SWI_MIN((n - 80) / 8, 5u);
		struct timespec nap = {0, 30000l << doublings};

		nanosleep(&nap, NULL);
	}
}

static bool is_inside(uint64_t state)
{
	return state & 1;
}

struct watch {
	struct registration *reg;
	uint64_t state;
};

/*
 * Notes the readers that are inside among those numbered *from and up, as many as fit; *from
 * becomes the number to go on with, 0 at the end.
 */
static unsigned note_inside(struct iova_map *map, uint64_t *from, struct watch *watch)
{
	struct registration *reg;
	struct list *pos;
	unsigned n = 0;
	uint64_t state;

	pthread_mutex_lock(&map->readers_lock);
	list_for_each (pos, &map->readers) {
		reg = list_entry(pos, struct registration, node);
		if (reg->number < *from)
			continue;
		state = atomic_load_explicit(&reg->reader->state, memory_order_seq_cst);
		if (!is_inside(state))
			continue;
		if (n == PORTION) {
			*from = reg->number;
			goto out;
		}
		atomic_fetch_add_explicit(&reg->watched, 1, memory_order_relaxed);
		watch[n++] = (struct watch){reg, state};
	}
	*from = 0;
out:
	pthread_mutex_unlock(&map->readers_lock);
	return n;
}

/* After map_count_up(): waits for the sections that are open now. Without the map's lock. */
static void map_wait_for_readers(struct iova_map *map)
{
	struct watch watch[PORTION];
	uint64_t from = 1;

	if (!atomic_load_explicit(&map->nreaders, memory_order_seq_cst))
		return;
	while (from) {
		struct patience patience = {0};
		unsigned n = note_inside(map, &from, watch);

		while (n) {
			for (unsigned i = 0; i < n;) {
				uint64_t now = atomic_load_explicit(&watch[i].reg->reader->state,
								    memory_order_acquire);

				if (now == watch[i].state) {
					i++;
					continue;
				}
				/* From here the registration may vanish. */
				atomic_fetch_sub_explicit(&watch[i].reg->watched, 1,
							  memory_order_release);
				watch[i] = watch[--n];
			}
			if (n)
				patience_pause(&patience);
		}
	}
}

uint64_t map_count_up(struct iova_map *map)
{
	return atomic_fetch_add_explicit(&map->view.generation, 1, memory_order_seq_cst) + 1;
}

bool map_readers_outside(struct iova_map *map)
{
	struct list *pos;
	bool outside = true;

	if (!atomic_load_explicit(&map->nreaders, memory_order_seq_cst))
		return true;
	pthread_mutex_lock(&map->readers_lock);
	list_for_each (pos, &map->readers) {
		struct registration *reg = list_entry(pos, struct registration, node);

		if (is_inside(atomic_load_explicit(&reg->reader->state, memory_order_seq_cst))) {
			outside = false;
			break;
		}
	}
	pthread_mutex_unlock(&map->readers_lock);
	return outside;
}

void iova_map_sync(struct iova_map *map)
{
	uint64_t generation = map_generation(map);

	map_wait_for_readers(map);
	radix_readers_left(map, generation);
}

/* ---- registration ---------------------------------------------------------------------------- */

int iova_reader_init(struct iova_reader *reader)
{
	memset(reader, 0, sizeof(*reader));
	return 0;
}

void iova_reader_fini(struct iova_reader *reader)
{
	(void)reader; /* owns nothing */
}

int iova_reader_attach(struct iova_reader *reader, struct iova_map *map)
{
	struct registration *reg = swi_new(struct registration);

	if (!reg)
		return -ENOMEM;
	reg->reader = reader;
	pthread_mutex_lock(&map->readers_lock);
	reg->number = map->next_number++;
	list_add_tail(&map->readers, &reg->node);
	atomic_fetch_add_explicit(&map->nreaders, 1, memory_order_seq_cst);
	pthread_mutex_unlock(&map->readers_lock);
	return 0;
}

static struct registration *find_registration(struct iova_map *map,
					      const struct iova_reader *reader)
{
	struct registration *reg;
	struct list *pos;

	list_for_each (pos, &map->readers) {
		reg = list_entry(pos, struct registration, node);
		if (reg->reader == reader)
			return reg;
	}
	return NULL;
}

void iova_reader_detach(struct iova_reader *reader, struct iova_map *map)
{
	struct patience patience = {0};
	struct registration *reg;
	uint64_t state = atomic_load_explicit(&reader->state, memory_order_seq_cst);

	/* While the section lasts the reader stays registered: writers have to wait for it too. */
	if (is_inside(state)) {
		while (atomic_load_explicit(&reader->state, memory_order_acquire) == state)
			patience_pause(&patience);
	}
	pthread_mutex_lock(&map->readers_lock);
	reg = find_registration(map, reader);
	if (reg) {
		list_del(&reg->node);
		atomic_fetch_sub_explicit(&map->nreaders, 1, memory_order_seq_cst);
	}
	pthread_mutex_unlock(&map->readers_lock);
	if (!reg)
		return;
	patience.rounds = 0;
	while (atomic_load_explicit(&reg->watched, memory_order_acquire))
		patience_pause(&patience);
	swi_free(reg);
}

/* ---- translating ----------------------------------------------------------------------------- */

void iova_reader_forget(struct iova_reader *reader)
{
	if (reader->tag >= TAG_MAX) {
		memset(reader->tlb, 0, sizeof(reader->tlb));
		reader->tag = 0;
	}
	reader->tag++;
	reader->map = NULL;
}

struct iova_area *iova_translate_miss(struct iova_reader *reader, const struct iova_map *map,
				      iova_t iova, uint64_t generation)
{
	struct iova_area *area;
	iova_t first, last;
	bool page;

	area = radix_lookup(map, iova, &first, &last, &page);
	if (SWI_UNLIKELY(!area))
		return NULL; /* not remembered: it may be mapped next without the generation moving
			      */
	/* Looked up after the generation was loaded: at worst it is newer than what we tag it with.
	 */
	if (reader->map != map || reader->generation != generation) {
		iova_reader_forget(reader);
		reader->map = map;
		reader->generation = generation;
	}
	reader->first = first;
	reader->span = last - first;
	reader->area = area;
	if (page) {
		struct iova_tlb_entry *e =
			&reader->tlb[(iova >> SWI_PAGE_SHIFT) % IOVA_TLB_ENTRIES];

		e->key = (iova & ~(SWI_PAGE_SIZE - 1)) | reader->tag;
		e->area = area;
	}
	return area;
}
