// SPDX-License-Identifier: MIT
#include "preload/state.h"

void convert_range(uintptr_t addr, size_t length)
{
	(void)addr;
	(void)length;
}

bool convert_wait(uintptr_t addr)
{
	(void)addr;
	return false;
}
