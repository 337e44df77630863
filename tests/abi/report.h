/* SPDX-License-Identifier: MIT */
/*
 * What the programs written by program.awk are made of: one line of output per name, led by the
 * name, so that two outputs can be compared line by line.
 */
#ifndef SWIOMMU_TESTS_ABI_REPORT_H
#define SWIOMMU_TESTS_ABI_REPORT_H

#include <stdio.h>

#define REPORT_TYPE(label, type) \
	printf("%s: size %zu, alignment %zu\n", label, sizeof(type), _Alignof(type))

#define REPORT_MEMBER(label, type, field, element)                         \
	printf("%s: offset %zu, size %zu\n", label, offsetof(type, field), \
	       sizeof(((type *)0)->element))

/* The type counts too: it decides signedness in the expressions of programs. */
#define REPORT_VALUE(label, value) \
	printf("%s: %s %#llx \"%s\"\n", label,                                                     \
	       _Generic((value),                                                                   \
		       char *: "text",                                                             \
		       int: "int",                                                                 \
		       unsigned int: "unsigned int",                                               \
		       long: "long",                                                               \
		       unsigned long: "unsigned long",                                             \
		       long long: "long long",                                                     \
		       unsigned long long: "unsigned long long"),                                  \
	       (unsigned long long)_Generic((value), char *: 0, default: (value)),                 \
	       _Generic((value), char *: (value), default: ""))

#endif /* SWIOMMU_TESTS_ABI_REPORT_H */
