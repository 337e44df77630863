/* SPDX-License-Identifier: MIT */
#ifndef SWIOMMU_CLI_CLI_H
#define SWIOMMU_CLI_CLI_H

/* Subcommands: argv[0] is the subcommand's name; the result is the exit status. */
int cmd_run(int argc, char **argv);
int cmd_devices(int argc, char **argv);
int cmd_doctor(int argc, char **argv);

#endif
