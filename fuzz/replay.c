// SPDX-License-Identifier: MIT
/*
 * A main() for the fuzzers where there is no libFuzzer: plays files, then pseudo-random inputs.
 *
 *   fuzz-NAME [-n COUNT] [-s SEED] [-o DIR] [FILE...]
 *
 * COUNT random inputs (default 0) from SEED (default: printed, from the clock). With -o they are written to DIR, as
 * a first corpus, instead of being played. When an input fails, it is left in ./fuzz-failed-input.
 */
#include "fuzz.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define INPUT_MAX 4096u

static const uint8_t *current;
static size_t current_size;

static void on_abort(int sig)
{
	static const char text[] = "the input is in ./fuzz-failed-input\n";
	int fd = open("fuzz-failed-input", O_WRONLY | O_CREAT | O_TRUNC, 0644);

	signal(sig, SIG_DFL);
	if (fd >= 0 && write(fd, current, current_size) == (ssize_t)current_size &&
	    write(STDERR_FILENO, text, sizeof(text) - 1) < 0)
		_exit(1);
	raise(sig);
}

static void play(const uint8_t *data, size_t size)
{
	current = data;
	current_size = size;
	LLVMFuzzerTestOneInput(data, size);
}

static uint64_t next_random(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

/* Input `index` of a seed: any length, the short ones more often. */
static size_t make_input(uint64_t seed, unsigned int index, uint8_t *buf)
{
	uint64_t state = seed ^ (uint64_t)index << 32;
	size_t size = 16u << next_random(&state) % 7;

	size += next_random(&state) % size;
	for (size_t i = 0; i < size; i++)
		buf[i] = (uint8_t)next_random(&state);
	return size;
}

static int play_file(const char *name)
{
	static uint8_t buf[1 << 20];
	FILE *f = fopen(name, "rb");
	size_t size;

	if (!f) {
		fprintf(stderr, "%s: %s\n", name, strerror(errno));
		return 1;
	}
	size = fread(buf, 1, sizeof(buf), f);
	fclose(f);
	fprintf(stderr, "%s: %zu bytes\n", name, size);
	play(buf, size);
	return 0;
}

static int write_file(const char *dir, unsigned int index, const uint8_t *buf, size_t size)
{
	char name[4096];
	FILE *f;
	bool ok;

	snprintf(name, sizeof(name), "%s/random-%u", dir, index);
	f = fopen(name, "wb");
	ok = f && fwrite(buf, 1, size, f) == size;
	if (f && fclose(f))
		ok = false;
	if (!ok)
		fprintf(stderr, "%s: %s\n", name, strerror(errno));
	return !ok;
}

int main(int argc, char **argv)
{
	static uint8_t buf[INPUT_MAX];
	uint64_t seed = (uint64_t)time(NULL) ^ (uint64_t)getpid() << 32;
	unsigned int count = 0, i;
	const char *dir = NULL;
	int opt, rc = 0;

	while ((opt = getopt(argc, argv, "n:s:o:")) != -1) {
		if (opt == 'n')
			count = (unsigned int)strtoul(optarg, NULL, 0);
		else if (opt == 's')
			seed = strtoull(optarg, NULL, 0);
		else if (opt == 'o')
			dir = optarg;
		else
			return 2;
	}
	signal(SIGABRT, on_abort);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
	signal(SIGSEGV, on_abort);
#endif
	for (i = (unsigned int)optind; i < (unsigned int)argc; i++)
		rc |= play_file(argv[i]);
	if (count)
		fprintf(stderr, "%u random inputs, seed %#llx\n", count, (ull)seed);
	for (i = 0; i < count; i++) {
		size_t size = make_input(seed, i, buf);

		if (dir)
			rc |= write_file(dir, i, buf, size);
		else
			play(buf, size);
	}
	return rc;
}
