// SPDX-License-Identifier: MIT
const int dummy;
#include "client.h"
const struct scene process_scenes[] = {{NULL, NULL}}, hostile_scenes[] = {{NULL, NULL}};
