// Package relationship owns the replication of each virtual machine on its primary: one goroutine per VM, and a
// record that it persists before it acts on it.
package relationship
