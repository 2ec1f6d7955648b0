// Package transport is how the agents and the command line reach each other: mutual TLS over gRPC, who may call
// what, limits, pace and progress. It knows no disks.
//
// Vocabulary. An Identity is who a certificate says its holder is, by its one URI name
// spiffe://<trust-domain>/vmreplica/<role>/<name>. Credentials are a directory with tls.crt, tls.key and ca.crt:
// one's own certificate, its key, and the authorities that are believed, and no others. A role is allowed a method
// by the option beside it in the .proto.
//
// Invariants.
//   - TLS 1.3 only, both sides verified against ca.crt, never against the system's authorities; no session is
//     resumed, so every connection is checked whole.
//   - A peer of another trust domain, with no URI name, with two, or of an unknown role gets no connection.
//   - A method without the option, or not registered, may be called by nobody.
//   - A connection lives no longer than the certificates that vouch for its peer, and ends when CloseIdentity
//     says so.
//   - New credentials that do not hold together, or are somebody else's, are not used; the old ones stay.
//   - What a peer can make this side hold is bounded: message, header, streams and windows of a connection,
//     connections of an identity, handshakes of a host.
//
// Nothing here is kept on disk, and a crash leaves nothing behind.
package transport
