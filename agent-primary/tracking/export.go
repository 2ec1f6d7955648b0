package tracking

import (
	"errors"
	"fmt"

	"vmreplica/internal/nbd"
)

// Export is the disk as an NBD server serves it to the machine.
func (d *Disk) Export() nbd.Export { return export{d} }

type export struct{ *Disk }

// Zero implements nbd.Export. Whether it will be fast is not known beforehand: a cut may have frozen the range, and a
// filesystem may have to write zeros.
func (e export) Zero(off, n int64, o nbd.ZeroOptions) error {
	if o.Fast {
		return fmt.Errorf("zero %d bytes at once: %w", n, errors.ErrUnsupported)
	}
	return e.Disk.Zero(off, n, o.KeepSpace)
}
