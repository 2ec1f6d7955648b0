package disk

// Info is what an image says of itself, in words for an operator.
type Info struct {
	// Format is raw, vhd, vhdx or qcow2; Kind is fixed, dynamic or differencing where the format distinguishes.
	Format, Kind string
	// SizeBytes is the disk's, FileBytes the image file's length.
	SizeBytes, FileBytes int64
	// LogicalSectorSize is 512 or 4096.
	LogicalSectorSize int
	// UnitBytes is what the format allocates at a time: a VHD or VHDX block, a qcow2 cluster; 0 for raw.
	UnitBytes int64
	// Identity is None where the format has none.
	Identity Identity
	// Parent is what a differencing image says of its parent, nothing of which was opened; nil for others.
	Parent *Parent
	// Dirty says that its last user did not close it: a log to replay, a footer to mend, refcounts to count.
	Dirty bool
	// Properties are the rest, in the order to be shown, by the names that the format's specification has.
	Properties []Property
}

// Property is one fact more about an image.
type Property struct{ Name, Value string }

// Severity says what a Finding means.
type Severity uint8

// The severities, from harmless to grave.
const (
	// Leaked space belongs to nothing; the disk's content is whole.
	Leaked Severity = iota + 1
	// Damaged means that content is or may become wrong.
	Damaged
)

// Finding is one inconsistency of an image.
type Finding struct {
	Severity Severity
	// Message says what is wrong and where in the file, in bytes.
	Message string
}
