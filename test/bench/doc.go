// Command bench measures a resync against what the machine can do at best and against rsync, in one run, with the
// built binaries as processes, and prints the table of what is to be reached.
//
// Vocabulary. A case is one row of the table. A round measures every competitor of a case once, one after the other,
// so that a disturbance of the machine meets all of them; figures are medians over the rounds and limits are ratios.
// The floor is two concurrent single-threaded passes, one process for each image, that read it in pieces of 1 MiB and
// take xxh64 and BLAKE3 of every 64 KiB. A resync's time is from its start to its commit, as the primary reports it.
//
// After every round the replica is compared with the primary's image by a program that shares no code with the
// product. Only a difference, or a step that fails, fails the run; a ratio over its limit is printed and does not,
// because it may be the machine's. Everything lies below one directory, which is left empty.
package main
