package images

import (
	"errors"
	"io/fs"
	"path/filepath"

	"vmreplica/internal/durable"
	"vmreplica/internal/failure"
)

// deviceDirectory is where the host keeps its device nodes: a link that a pattern names may lead there only.
const deviceDirectory = "/dev"

// place is where a path leads: a name in a tree, or a device's path when there is no tree.
type place struct {
	tree durable.Dir
	name string
}

// path is absolute, without links: what names the place in a record.
func (p place) path() string {
	if p.tree == nil {
		return p.name
	}
	return p.tree.Path(p.name)
}

// resolve finds the allowed place that path leads to. What lies outside is refused alike whether it exists or
// not.
func (i *Images) resolve(path string) (place, error) {
	if !filepath.IsAbs(path) {
		return place{}, failure.New(failure.Invalid, failure.ReasonInvalidArgument, "the path %q is not absolute", path).
			Try("Write the whole path, beginning at the root.")
	}
	path = filepath.Clean(path)
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return place{}, i.cannotResolve(path, err)
	}
	for _, d := range i.directories {
		if name, inside := below(d.real, real); inside {
			return place{tree: d.tree, name: filepath.ToSlash(name)}, nil
		}
	}
	if i.isDevice(path, real) {
		return place{name: real}, nil
	}
	return place{}, i.outside(path, real)
}

// isDevice says whether a pattern names the path or what it leads to.
func (i *Images) isDevice(path, real string) bool {
	if i.matches(real) {
		return true
	}
	_, inside := below(deviceDirectory, real)
	return inside && i.matches(path)
}

func (i *Images) matches(path string) bool {
	for _, pattern := range i.patterns {
		if matched, err := filepath.Match(pattern, path); matched && err == nil {
			return true
		}
	}
	return false
}

func (i *Images) cannotResolve(path string, err error) error {
	inside := i.matches(path)
	for _, d := range i.directories {
		_, asStated := below(d.stated, path)
		_, asReal := below(d.real, path)
		inside = inside || asStated || asReal
	}
	switch {
	case !inside:
		return i.outside(path, path)
	case errors.Is(err, fs.ErrNotExist):
		return missing(path)
	default:
		return cannotOpen(path, err)
	}
}

// below is path as seen from directory, when it lies inside.
func below(directory, path string) (string, bool) {
	name, err := filepath.Rel(directory, path)
	if err != nil || !filepath.IsLocal(name) {
		return "", false
	}
	return name, true
}

func (i *Images) outside(path, real string) error {
	what := path
	if real != path {
		what += ", which leads to " + real + ","
	}
	return failure.New(failure.Denied, failure.ReasonPathOutside, "%s lies outside what this agent may open: %s", what, i.allowed()).
		Try("Move the image there, or start the agent with another --image-dir or --device.")
}
