// SPDX-License-Identifier: MIT
/* The conformance suite's command line. */
#include <fnmatch.h>
#include <getopt.h>
#include <stdio.h>

#include "harness.h"

static const char usage[] =
	"usage: conformance [OPTION]... lib|dev [PATTERN]...\n"
	"Checks the answers to iommufd ioctls: of the library in this process (lib), or of "
	"/dev/iommu\n"
	"(dev), which is a kernel's or the one that `swiommu run` shows. PATTERNs select cases by "
	"id.\n"
	"  --no-thp            the kernel has no transparent huge pages\n"
	"  --kernel            what is under test is Linux: its oddities are right\n"
	"  --require FEATURES  comma separated, or all: cases that miss one of them fail\n"
	"  --list              print the ids and titles only\n";

struct selection {
	char **patterns; /* NULL-terminated; none: everything */
	const char *required;
	bool list;
};

static bool selected(const struct selection *sel, const struct row *row)
{
	if (!*sel->patterns)
		return true;
	for (char **p = sel->patterns; *p; p++)
		if (!fnmatch(*p, row->id, 0))
			return true;
	return false;
}

static size_t run_rows(const struct selection *sel, const struct rows *rows, size_t nr,
		       struct tally *tally)
{
	for (size_t i = 0; i < rows->n; i++) {
		const struct row *row = &rows->rows[i];

		if (!selected(sel, row))
			continue;
		nr++;
		if (sel->list)
			printf("%s %s\n", row->id, row->title);
		else
			harness_run(nr, row, sel->required, tally);
	}
	return nr;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"no-thp", no_argument, NULL, 't'},	   {"kernel", no_argument, NULL, 'k'},
		{"require", required_argument, NULL, 'r'}, {"list", no_argument, NULL, 'l'},
		{"help", no_argument, NULL, 'h'},	   {0},
	};
	const struct rows prevalidation = rows_prevalidation();
	const struct rows *all[] = {
		&rows_context, &prevalidation, &rows_map,    &rows_domain, &rows_access,
		&rows_account, &rows_dmabuf,   &rows_viommu, &rows_vfio,   &rows_races,
		&edges_attach, &edges_hwpt,    &edges_info,  &edges_dirty, &edges_fault,
		&edges_viommu, &edges_group,
	};
	struct selection sel = {0};
	struct tally tally = {0};
	size_t nr = 0;
	int opt;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		if (opt == 't')
			suite.huge = PAGE;
		else if (opt == 'k')
			suite.kernel = true;
		else if (opt == 'r')
			sel.required = optarg;
		else if (opt == 'l')
			sel.list = true;
		else
			return fputs(usage, opt == 'h' ? stdout : stderr), opt != 'h';
	}
	if (optind < argc && !strcmp(argv[optind], "lib"))
		suite.fe = &fe_lib;
	else if (optind < argc && !strcmp(argv[optind], "dev"))
		suite.fe = &fe_dev;
	else
		return fputs(usage, stderr), 2;
	sel.patterns = argv + optind + 1;
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		nr = run_rows(&sel, all[i], nr, &tally);
	if (sel.list)
		return 0;
	printf("1..%zu\n# %lu comparisons\n# %u passed, %u failed, %u skipped\n", nr,
	       harness_checks(), tally.passed, tally.failed, tally.skipped);
	return tally.failed || !nr;
}
