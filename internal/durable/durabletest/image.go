package durabletest

import (
	"maps"
	"path"
)

// image is what a host holds at one moment.
type image struct {
	// entries are the names: a file's number, or directory.
	entries map[string]int
	files   map[int]*content
	// values are what the steps set; never changed once set.
	values map[string]any
}

// directory stands for a directory among the entries.
const directory = 0

func newImage() *image {
	return &image{entries: map[string]int{".": directory}, files: map[int]*content{}, values: map[string]any{}}
}

// clone is a copy; neither sees what becomes of the other.
func (i *image) clone() *image {
	copied := &image{
		entries: maps.Clone(i.entries), values: maps.Clone(i.values), files: make(map[int]*content, len(i.files)),
	}
	for number, file := range i.files {
		copied.files[number] = file.clone()
	}
	return copied
}

// apply does op, or what survived of it.
func (i *image) apply(op *Op, survived part) {
	switch {
	case op.ofContent():
		i.applyContent(op, survived)
	case op.ofNames():
		i.applyName(op)
	case op.Kind == Mkdir:
		i.entries[op.Name] = directory
	case op.Kind == Step:
		i.values[op.key] = op.value
	}
}

func (i *image) applyContent(op *Op, survived part) {
	file := i.files[op.file]
	if file == nil {
		return
	}
	file.modified = op.at
	switch op.Kind {
	case Write:
		applyWrite(file, op, survived)
	case Truncate:
		file.truncate(op.Len)
	case Punch:
		file.erase(op.Offset, op.Len, false)
	case Zero:
		file.erase(op.Offset, op.Len, true)
	case Allocate:
		file.allocate(op.Offset, op.Len)
	}
}

func applyWrite(file *content, op *Op, survived part) {
	switch {
	case survived.sizeOnly:
		file.size = max(file.size, op.Offset+op.Len)
	case survived.to > 0:
		file.write(op.Offset+survived.from, op.data[survived.from:survived.to])
	default:
		file.write(op.Offset, op.data)
	}
}

// applyName changes the names. An effect before it may be lost, so a name is taken away only from the file that
// the operation meant.
func (i *image) applyName(op *Op) {
	if op.Kind == Create {
		i.entries[op.Name] = op.file
		if i.files[op.file] == nil {
			i.files[op.file] = newContent()
		}
		return
	}
	if op.file == directory && i.hasEntries(op.Name) {
		return // the removal of what was in it was lost, so this one cannot have happened
	}
	if number, exists := i.entries[op.Name]; exists && number == op.file {
		delete(i.entries, op.Name)
	}
	if op.Kind == Rename {
		i.entries[op.To] = op.file
	}
}

func (i *image) hasEntries(name string) bool {
	for entry := range i.entries {
		if entry != name && path.Dir(entry) == name {
			return true
		}
	}
	return false
}

// forget drops the files that have no name, but for those that keep says are still to be named.
func (i *image) forget(keep func(file int) bool) {
	named := map[int]bool{}
	for _, number := range i.entries {
		named[number] = true
	}
	for number := range i.files {
		if !named[number] && !keep(number) {
			delete(i.files, number)
		}
	}
}

// space is the number of bytes that the files take.
func (i *image) space() int64 {
	var total int64
	for _, file := range i.files {
		total += file.pages.space() * pageSize
	}
	return total
}
