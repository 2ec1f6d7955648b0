// Package daemon is what both agents' programs have in common: settings from flags and one file, the log,
// signals, the notices to systemd, and the HTTP server for metrics and health.
//
// Vocabulary. A Program is an agent; its Run does the work under a context and ends when the context does. The
// Host is what Run sees of this package: log, metrics, readiness, checks. Draining is the time between the first
// signal and the return of Run.
//
// Invariants. A setting given as a flag wins over the file, and the file over the default. A key that the file
// may not hold is refused with its line. The first SIGTERM or SIGINT ends the context; Run then has a bounded
// time, after which the process exits all the same, which a power loss would do too: nothing that must survive
// depends on an orderly end. A second signal exits at once. systemd's watchdog is fed only while every check
// passes. No core is ever dumped, because memory holds guest data and a private key.
//
//	load settings → log → metrics → Run(ctx, host) … host.Ready() … signal → cancel → Run returns → exit
//
// There is nothing on disk.
package daemon
