// Package durabletest is the crash recorder: files, directories and atomic steps in memory, a log of every
// operation that matters to what survives, and the states that a power loss may leave after any of them.
//
// Vocabulary. An Op is one recorded operation. An effect is an Op whose result may be lost until a sync covers
// it: writing, truncating, punching, zeroing or allocating until the file's Sync; creating, renaming or removing
// until the directory's. A step is atomic and durable at once: a transaction of the state store, or Mkdir. A
// mark is what the code under test had promised by then; it is no operation.
//
// The model is harsher than any one filesystem. Effects are lost or kept independently and in any combination,
// within one file too. A write may survive in part, cut at a sector of 512 bytes, or only as the size it gave the
// file. Syncing a file does not make its name durable. A rename is one effect, lost or kept whole, durable when
// both directories are synced. Effects before a failed sync stay losable for good, whatever is synced later.
//
// Use. Run the code under test on a Recorder's Dir, and its records on the same Recorder through statetest; say
// with Mark what it promised. Then, for every Crash of Crashes, open what Crash.Dir holds as after a restart, and
// check the promises of Crash.Marks. A Crash is a Recorder of its own, so that a crash during recovery is one
// more loop. Drop seeds a mutant: a sync that is answered and not done.
package durabletest
