// Package points keeps the recovery points of every VM: it seals one an hour, and gives up those that are too many.
//
// Vocabulary. A point is due when an hour, or what the configuration says, has passed since the newest one was sealed, by
// this host's clock, and something was committed since. In excess are the oldest points beyond the number that the record
// keeps.
//
// Invariants. When a point is due and what is in excess are functions of the record and the time. What they say is done by
// transitions of the chain, which look again. Nothing is sealed or given up while a transfer is open, and nothing given up
// while it is read: then no new point takes its place either, and the reader's end is what goes on.
//
// Nothing is kept here: after a crash the record says what is due. A host that was away seals one point of what it holds,
// not one for each hour.
package points
