// Package fault lets a test make the real agents misbehave at named places: to be killed there, or to leave a step out
// so that the test which must notice does.
//
// Vocabulary. A fault is a name. A crash point is a place in the code with a name, where an agent for which that fault
// is enabled ends at once, as by kill -9.
//
// Invariants. Only a build with the tag faults knows any; in every other one both functions are empty and constant, and
// nothing of them is left in the program. Names are enabled by the environment variable VMREPLICA_FAULTS, separated by
// commas. Nothing is on disk.
package fault
