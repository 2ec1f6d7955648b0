package chain

import (
	"errors"
	"slices"

	"vmreplica/internal/disk"
	"vmreplica/internal/failure"
)

// Open is one disk with its base locked and its layers open.
type Open struct {
	base *writtenBase
	view *View
	// files are those of the layers, in the view's order. VM.turn guards their change.
	files []string
}

// OpenDisk opens the base and every layer of a disk. A layer or base that is missing or has another size is a
// failure, and nothing stays open.
func OpenDisk(s Storage, d Disk) (*Open, error) {
	base, err := s.OpenBase(d.Base, d.LogicalSectorSize)
	if err != nil {
		return nil, err
	}
	if base.Size() != d.SizeBytes {
		mismatch := failure.New(failure.Precondition, failure.ReasonSizeMismatch,
			"the replica's base has %d bytes, its record says %d", base.Size(), d.SizeBytes)
		return nil, errors.Join(mismatch, base.Close())
	}
	written := &writtenBase{Disk: base}
	opened := &Open{base: written, view: newView(written, nil)}
	for _, layer := range d.Layers {
		if err := opened.openLayer(s, layer); err != nil {
			return nil, errors.Join(err, opened.Close())
		}
	}
	return opened, nil
}

func (o *Open) openLayer(s Storage, l Layer) error {
	layer, err := s.OpenLayer(l)
	if err != nil {
		return err
	}
	if layer.Size() != o.base.Size() {
		mismatch := failure.New(failure.Corrupt, failure.ReasonStorageFailed,
			"layer %s has %d bytes, its disk %d", s.Path(l.File), layer.Size(), o.base.Size())
		return errors.Join(mismatch, layer.Close())
	}
	o.Push(l.File, layer)
	return nil
}

// View reads the disk through all layers.
func (o *Open) View() *View { return o.view }

// Base is the lowest layer.
func (o *Open) Base() disk.Disk { return o.base }

// Below is what the layer at index i is merged into: the base, or another layer.
func (o *Open) Below(i int) disk.Disk {
	if i == 0 {
		return o.base
	}
	return (*o.view.layers.Load())[i-1].Layer
}

// TakeIdentity gives what lies below the layer at index i, which is about to be merged into it, the layer's identity,
// durably; nothing where one of their formats has none. What stands on the layer by its identity stands on what lies
// below from then on, and what stood there no longer does: the layer itself. It comes before the merge's first write,
// which would give the file an identity of its own, and is repeated with it.
func (o *Open) TakeIdentity(i int) error {
	identity := identityOf(o.Layers()[i])
	if identity == disk.None {
		return nil
	}
	if i == 0 {
		return o.base.setIdentity(identity)
	}
	if below, ok := o.Below(i).(disk.Identified); ok {
		return below.SetIdentity(identity)
	}
	return nil
}

// Layers are the layers on the base, lowest first.
func (o *Open) Layers() []disk.Layer {
	layers := *o.view.layers.Load()
	plain := make([]disk.Layer, len(layers))
	for i, l := range layers {
		plain[i] = l.Layer
	}
	return plain
}

// Top is what a transfer writes: the highest layer, or the base when there is none.
func (o *Open) Top() disk.Disk {
	layers := *o.view.layers.Load()
	if len(layers) == 0 {
		return o.base
	}
	return layers[len(layers)-1].Layer
}

// Push puts a layer on top of the view, which closes it when it is taken out.
func (o *Open) Push(file string, layer disk.Layer) {
	o.files = append(o.files, file)
	o.view.push(layer)
}

// keep takes every layer out of the view that the record no longer has.
func (o *Open) keep(layers []Layer) error {
	var errs []error
	for i := len(o.files) - 1; i >= 0; i-- {
		file := o.files[i]
		if slices.ContainsFunc(layers, func(l Layer) bool { return l.File == file }) {
			continue
		}
		o.files = slices.Delete(slices.Clone(o.files), i, i+1)
		errs = append(errs, o.view.remove(i))
	}
	return errors.Join(errs...)
}

// layer is the open layer of that file; nil when there is none.
func (o *Open) layer(file string) disk.Layer {
	if i := slices.Index(o.files, file); i >= 0 {
		return o.Layers()[i]
	}
	return nil
}

// Close closes the layers and the base. Nobody reads any more.
func (o *Open) Close() error { return errors.Join(o.keep(nil), o.base.Close()) }
