// Package command is vmreplica's verbs, a file each, and what they share: how an agent is reached, how arguments are
// read, how a resync is awaited and with which code the program ends.
//
// Vocabulary. A verb is a subcommand. The asked agent is the one at --server: a primary or a replica, both speak the
// same services and each says which of them are the other's. A request id is minted once per invocation and sent
// with each of its attempts, so that an agent does a thing once.
//
// Invariants. Results go to standard output, progress and errors to standard error. What fails says what happened,
// to which VM and disk, what to do next and which agent said so, and ends with a code that means its class. Work
// that an agent has begun goes on when the program is interrupted, and the program says so.
//
// On disk. pki writes files through internal/pki, export through internal/durable: an image is written as
// NAME.XXXXXXXX.part beside its name and gets the name when it is whole and synced. A crash leaves the part, which
// nothing reads and which may be deleted.
package command
