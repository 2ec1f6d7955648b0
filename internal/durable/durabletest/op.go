package durabletest

import (
	"fmt"
	"path"
	"strings"
)

// Kind is what an operation does.
type Kind uint8

// The operations that are recorded.
const (
	Write Kind = iota + 1
	Truncate
	Punch
	Zero
	Allocate
	Sync
	Create
	Rename
	Remove
	Mkdir
	SyncDir
	Step
)

var kindNames = [...]string{
	"unknown", "write", "truncate", "punch", "zero", "allocate", "sync", "create", "rename", "remove", "mkdir",
	"syncdir", "step",
}

func (k Kind) String() string { return kindNames[k] }

// Op is one operation. Name is the file's name at that moment, relative to the recorder's root, or the
// directory's, or what a step says of itself; To is a rename's new name.
type Op struct {
	Kind        Kind
	Name, To    string
	Offset, Len int64
	// Err is what the operation answered; nil when it was done.
	Err error

	at   int64  // the recorder's clock; what a file's modification time is made of
	file int    // the file that is changed or named
	data []byte // what is written; never changed
	key  string // of a step
	// value is what the step's key holds from then on.
	value any
}

// String is the operation in a line: "write a.tmp 0+512".
func (op Op) String() string {
	var text strings.Builder
	text.WriteString(op.Kind.String() + " " + op.Name)
	switch op.Kind {
	case Write, Punch, Zero, Allocate:
		fmt.Fprintf(&text, " %d+%d", op.Offset, op.Len)
	case Truncate:
		fmt.Fprintf(&text, " %d", op.Len)
	case Rename:
		text.WriteString(" -> " + op.To)
	}
	if op.Err != nil {
		text.WriteString(": " + op.Err.Error())
	}
	return text.String()
}

// ofContent says whether the operation is an effect on a file's content.
func (op *Op) ofContent() bool { return op.Kind >= Write && op.Kind <= Allocate }

// ofNames says whether the operation is an effect on the names in a directory.
func (op *Op) ofNames() bool { return op.Kind == Create || op.Kind == Rename || op.Kind == Remove }

// covers says whether a sync of the directory makes op durable, or the one half of a rename.
func (op *Op) covers(directory string) (oldName, newName bool) {
	return path.Dir(op.Name) == directory, op.Kind != Rename || path.Dir(op.To) == directory
}

// part is what survives of a write: its bytes [from, to), and when sizeOnly is set none of them, only the size
// that it gave the file. The zero part is the whole.
type part struct {
	from, to int64
	sizeOnly bool
}

func (p part) String() string {
	switch {
	case p.sizeOnly:
		return "(size only)"
	case p.to > 0:
		return fmt.Sprintf("[%d:%d]", p.from, p.to)
	default:
		return ""
	}
}
