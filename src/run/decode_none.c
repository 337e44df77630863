// SPDX-License-Identifier: MIT
/* Where instructions cannot be decoded: no Zydis, or another architecture. The preload helper is not used there. */
#include "run/helper.h"

#include <errno.h>

int helper_decode(struct helper_insn *insn)
{
	(void)insn;
	return -EINVAL;
}
