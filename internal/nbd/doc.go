// Package nbd is a server of the Network Block Device protocol on a unix socket: QEMU attaches a guest's disk
// through it, and tools read recovery points. It knows the protocol and nothing of what an export is made of.
//
// Vocabulary. The words are those of the protocol's document (doc/proto.md of NetworkBlockDevice/nbd): an export is
// a disk by its name; the handshake negotiates one by options; in the transmission a client sends requests, each
// with a cookie, and gets a reply, simple or of structured chunks, in any order. A request is admitted once it was
// read whole, its payload included. In flight it is until its reply was handed to the kernel.
//
// Spoken: fixed newstyle with NO_ZEROES; the options EXPORT_NAME, ABORT, LIST, INFO, GO, STRUCTURED_REPLY,
// LIST_META_CONTEXT and SET_META_CONTEXT with base:allocation; the commands READ, WRITE, DISC, FLUSH, TRIM,
// WRITE_ZEROES and BLOCK_STATUS, FUA on all of them. Not spoken: TLS (a unix socket asks the kernel who the peer
// is), oldstyle, CACHE, RESIZE and extended headers.
//
// Invariants.
//   - A request is answered exactly once or its connection ends. A read that failed is answered as an error, never
//     with bytes. Nothing that leaves the export's range reaches the export.
//   - FLUSH, and FUA on whatever writes, are answered after an Export.Flush that began when the writes it covers
//     had returned. A failed Flush is answered EIO, is never tried again and stays for that Export, whatever
//     connection asks: what it should have made durable may be lost.
//   - Payload memory is granted before a payload is read or a read begins. The server's grants are bounded by
//     MaxInFlightBytes, one connection's by a quarter of that or one request. One request of up to 256 KiB of each
//     connection is beside the bound, so that clients that stand still cannot stop the others; while others wait,
//     a connection that stands still with granted memory is cut off.
//   - No goroutine outlives Serve. A connection has one that reads and one for each request in flight.
//
// Nothing is kept back in the server: what was answered has been handed to the Export, and after a crash the disk
// holds what the Export promises for its own.
package nbd
