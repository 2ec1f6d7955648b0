package daemon

import (
	"flag"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// List binds a repeatable flag to values. The first use replaces what values held, so that a flag wins over the
// settings file as a whole.
func List(flags *flag.FlagSet, values *[]string, name, usage string) {
	flags.Var(&list{values: values}, name, usage)
}

type list struct {
	values *[]string
	given  bool
}

func (l *list) String() string {
	if l.values == nil {
		return ""
	}
	return strings.Join(*l.values, " ")
}

func (l *list) Set(value string) error {
	if !l.given {
		*l.values, l.given = nil, true
	}
	*l.values = append(*l.values, value)
	return nil
}

func printUsage(out io.Writer, program Program, flags *flag.FlagSet) {
	fmt.Fprintf(out, "%s: %s\n\nUsage: %s [flags]\n\n", program.Name, program.Purpose, program.Name)
	table := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	flags.VisitAll(func(f *flag.Flag) {
		argument, usage := flag.UnquoteUsage(f)
		if _, repeatable := f.Value.(*list); repeatable {
			usage += "; repeatable"
		}
		if f.DefValue != "" && f.DefValue != "false" {
			usage += fmt.Sprintf(" (default %s)", f.DefValue)
		}
		fmt.Fprintf(table, "  --%s %s\t%s\n", f.Name, argument, usage)
	})
	table.Flush()
}
