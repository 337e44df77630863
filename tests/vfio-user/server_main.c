// SPDX-License-Identifier: MIT
/*
 * server PATH [twin] [maps=N]: the test server as a program. Says "ready", serves until its standard input ends, and
 * fails if a client has broken the protocol.
 */
#include "server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct server_options opt = {0};
	struct server_stats stats;
	struct server *s;
	char byte;

	if (argc < 2)
		return 2;
	for (int i = 2; i < argc; i++) {
		if (!strcmp(argv[i], "twin"))
			opt.twin = true;
		else if (!strncmp(argv[i], "maps=", 5))
			opt.max_maps = (unsigned int)atoi(argv[i] + 5);
	}
	s = server_start(argv[1], &opt);
	puts("ready");
	fflush(stdout);
	while (read(STDIN_FILENO, &byte, 1) > 0)
		;
	server_get_stats(s, &stats);
	server_stop(s);
	if (!stats.violations)
		return 0;
	fprintf(stderr, "%u breaches of protocol, the first: %s\n", stats.violations,
		stats.violation);
	return 1;
}
