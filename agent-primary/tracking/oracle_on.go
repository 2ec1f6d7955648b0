//go:build faults

package tracking

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"vmreplica/internal/fault"
)

// cutOracle says what every cut holds, for a test to compare with what its replica holds then: with the fault "oracle" no
// write is admitted from the flip of a cut until every disk is read, and the digests are in a file with the cut's name in
// the directory that the environment variable VMREPLICA_ORACLE names. One for the whole agent: its machines wait for each
// other.
type cutOracle struct{ admitting sync.RWMutex }

var oracle cutOracle

// enter and leave stand around the admission of a write.
func (o *cutOracle) enter() { o.admitting.RLock() }
func (o *cutOracle) leave() { o.admitting.RUnlock() }

func (o *cutOracle) hold(cut bool) {
	if cut && fault.Enabled("oracle") {
		o.admitting.Lock()
	}
}

func (o *cutOracle) release(cut bool) {
	if cut && fault.Enabled("oracle") {
		o.admitting.Unlock()
	}
}

// digest is called while held, once the writes of the cut are done.
func (o *cutOracle) digest(e *Epoch) error {
	if !e.frozen || !fault.Enabled("oracle") {
		return nil
	}
	var text strings.Builder
	for _, d := range e.group.disks {
		sum := sha256.New()
		if _, err := io.Copy(sum, io.NewSectionReader(d.image, 0, d.Size())); err != nil {
			return err
		}
		fmt.Fprintf(&text, "%s %x\n", d.id, sum.Sum(nil))
	}
	return os.WriteFile(filepath.Join(os.Getenv("VMREPLICA_ORACLE"), string(e.ID)), []byte(text.String()), 0o600)
}
