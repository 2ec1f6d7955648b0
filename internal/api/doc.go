// Package api stands between the domain's words and the wire: a failure becomes a gRPC status and comes back as
// the same failure, and each word of internal/replication and internal/event has exactly one counterpart in
// proto/vmreplica/v1. The rooms know nothing of protobuf; fronts, the peer connection and the receiver call here.
//
// Vocabulary. X ToProto never fails: a value outside the domain's words becomes the enum's UNSPECIFIED. X
// FromProto answers a failure of class Invalid for a number that this version does not know, and for
// UNSPECIFIED unless the word has a value that means none.
//
// Invariants. A failure that went through Status and FromStatus has its class, reason, VM, disk, message and
// remedy. Text from the other side is cut to a bounded length and freed of control characters before anything
// logs or prints it.
//
// Nothing is kept; there is nothing on disk.
package api
