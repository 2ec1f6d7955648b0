package render

import (
	"fmt"
	"strings"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// EventHeading begins a table of events. Its columns have fixed widths, because events come one by one.
func (p Printer) EventHeading() error {
	if p.ForMachines() {
		return nil
	}
	return p.write([]byte(p.eventRow("SEQUENCE", "TIME", "ID", "SEVERITY", "VM", "DISK", "TYPE", "MESSAGE")))
}

// Event writes one event: a row, a line of JSON or a YAML document.
func (p Printer) Event(e *vmreplicav1.Event) error {
	if p.ForMachines() {
		return p.Line(e)
	}
	row := p.eventRow(fmt.Sprint(e.GetSequence()), Moment(e.GetTime().AsTime(), p.Now()), fmt.Sprint(e.GetId()),
		Word(e.GetSeverity()), filled(e.GetVm()), filled(e.GetDisk()), e.GetType(), e.GetMessage())
	return p.write([]byte(row))
}

func (p Printer) eventRow(sequence, time, id, severity, vm, disk, kind, message string) string {
	row := fmt.Sprintf("%-8s  %-26s  %-5s  %-11s  %-16s  %-12s  ", sequence, time, id, severity, vm, disk)
	if p.Format == Wide {
		row += fmt.Sprintf("%-24s  ", kind)
	}
	return strings.TrimRight(Clean(row+message), " ") + "\n"
}

func filled(text string) string {
	if text == "" {
		return none
	}
	return text
}
