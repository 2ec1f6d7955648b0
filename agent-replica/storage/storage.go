// Package storage is where a replica's files lie: everything below one directory, and the devices that its
// operator mapped.
//
// Vocabulary. A VM's directory holds, for each disk, the base under the disk's id, its layers
// "<disk id>.<transfer>" with the extension that their format has, and beside a layer its balloon: a file of the same
// name that holds the space which the layer's merge will need. File names in this package are below the storage
// directory, slash-separated. Bases and layers may have any format that package format knows.
//
// Invariants. No file outside the directory is opened, no link is followed, no format is guessed from content. A
// base is locked for writing, as virtual machines lock their images, for as long as it is open. What is created
// is durable, with its name, when the call returns; what is removed is gone durably. Errors are failures that
// name the absolute path.
package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"vmreplica/agent-replica/chain"
	"vmreplica/internal/disk/images"
	"vmreplica/internal/durable"
	"vmreplica/internal/failure"
)

// Storage implements chain.Storage on a directory.
type Storage struct {
	root    durable.Dir
	devices *images.Images
	// claimed is the locked file that Claim made; nil before.
	claimed durable.File
}

var _ chain.Storage = (*Storage)(nil)

// Open uses an existing directory of the host. devices are patterns of the block devices that may be a base.
func Open(dir string, devices []string) (*Storage, error) {
	allowed, err := images.New(nil, devices)
	if err != nil {
		return nil, err
	}
	root, err := durable.OpenDir(dir)
	if err != nil {
		return nil, failure.New(failure.Precondition, failure.ReasonStorageFailed, "the storage directory cannot be used: %w", err).
			Try("Create %s and let the agent write to it.", dir)
	}
	return New(root, allowed), nil
}

// New uses a directory and devices that the Storage owns from here on.
func New(root durable.Dir, devices *images.Images) *Storage {
	return &Storage{root: root, devices: devices}
}

// Close lets the directory go; files opened from it stay open.
func (s *Storage) Close() error {
	var err error
	if s.claimed != nil {
		err = s.claimed.Close()
	}
	return errors.Join(err, s.root.Close(), s.devices.Close())
}

// claimFile is locked for as long as an agent uses the directory. No entry's subdirectory has such a name.
const claimFile = ".vmreplica.lock"

// Claim takes the directory for this Storage alone, until Close; STATE_IN_USE when another agent has it. The file stays.
func (s *Storage) Claim() error {
	file, err := s.root.Create(claimFile)
	if errors.Is(err, fs.ErrExist) {
		file, err = s.root.Open(claimFile, durable.ReadWrite)
	}
	if err != nil {
		return s.fault(err, claimFile)
	}
	if err := s.lock(file, claimFile); err != nil {
		return errors.Join(s.claimedBefore(err), file.Close())
	}
	s.claimed = file
	return nil
}

func (s *Storage) claimedBefore(err error) error {
	found := failure.Find(err)
	if found.Reason != failure.ReasonImageInUse {
		return s.fault(err, claimFile)
	}
	return failure.New(failure.Precondition, failure.ReasonStateInUse,
		"another agent uses the storage directory %s: %s", s.Path("."), found.Message).
		Try("Stop the other agent, or give this one a storage directory of its own.")
}

// Path is where an operator finds a file.
func (s *Storage) Path(file string) string { return s.root.Path(file) }

// Free is the number of bytes that may still be written.
func (s *Storage) Free() (int64, error) {
	free, err := s.root.Free()
	if err != nil {
		return 0, Failure(err)
	}
	return free, nil
}

// Exists answers BASE_MISSING when the file is not there.
func (s *Storage) Exists(file string) error {
	if _, err := s.root.Stat(file); err != nil {
		return s.fault(err, file)
	}
	return nil
}

// Allocated is the space that a file takes; 0 when it is not there.
func (s *Storage) Allocated(file string) (int64, error) {
	info, err := s.root.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, s.fault(err, file)
	}
	return allocated(info), nil
}

// CheckDevice refuses a device that the agent's start-up does not allow, or that is none.
func (s *Storage) CheckDevice(device string) error {
	_, err := s.devices.Stamp(device)
	return err
}

// Remove deletes files, durably when it returns; one that is not there is no error.
func (s *Storage) Remove(files ...string) error {
	directories := map[string]bool{}
	for _, file := range files {
		err := s.root.Remove(file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return s.fault(err, file)
		}
		directories[path.Dir(file)] = true
	}
	for directory := range directories {
		err := s.root.Sync(directory)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return s.fault(err, directory)
		}
	}
	return nil
}

// RemoveDirectory deletes a directory; one that is not empty, or not there, is no error.
func (s *Storage) RemoveDirectory(directory string) error {
	names, err := s.root.List(directory)
	if errors.Is(err, fs.ErrNotExist) || len(names) > 0 {
		return nil
	}
	if err == nil {
		err = s.root.Remove(directory)
	}
	if err == nil {
		err = s.root.Sync(path.Dir(directory))
	}
	return s.fault(err, directory)
}

// fault makes err a failure that names the file; nil stays nil.
func (s *Storage) fault(err error, file string) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return failure.New(failure.Precondition, failure.ReasonBaseMissing, "%s is not there", s.Path(file)).
			Try("Put the file back, or remove the replica and enable it again.")
	case errors.Is(err, durable.ErrNotRegular):
		return failure.New(failure.Precondition, failure.ReasonImageUnreadable, "%s is not a file of its own: %w",
			s.Path(file), err)
	}
	if place := s.Path(file); !strings.Contains(err.Error(), place) {
		err = fmt.Errorf("%s: %w", place, err)
	}
	return Failure(err)
}
