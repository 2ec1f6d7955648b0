package tracking

import (
	"errors"

	"vmreplica/internal/replication"
)

// Kill lets the log and the image go as a killed agent does: nothing is written.
func (d *Disk) Kill() error { return errors.Join(d.log.Load().Abandon(), d.image.Close()) }

// CutWithoutWaiting is the mutant of Cut that does not wait for the writes admitted before.
func (g *Group) CutWithoutWaiting() (*Epoch, error) { return g.flip(replication.NewID(), true) }

// ForgetEarly is the mutant that clears marks before their commit is acknowledged.
func (d *Disk) ForgetEarly() error { return d.log.Load().Forget() }
