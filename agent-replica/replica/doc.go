// Package replica is the front of the replica agent: it puts the rooms together, serves the API and derives what
// is shown of a VM from its record.
//
// Vocabulary. The caller is the identity in the certificate of a call. To admit a call is to find that the caller
// has an authorization entry, owns the VM's record, and speaks with its uid and a term that is not behind.
//
// Invariants. Every call of a primary that names a VM is admitted before anything else is done for it. What is
// shown is derived from records and from what is going on at that moment; nothing of it is stored. Everything
// that Run starts has ended when it returns.
//
// Nothing is kept here but the agent's settings; a restart shows the same and continues what records say.
package replica
