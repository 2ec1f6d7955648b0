package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

const (
	kib = int64(1) << 10
	mib = int64(1) << 20
	gib = int64(1) << 30
	tib = int64(1) << 40
)

// bench is what all cases share.
type bench struct {
	// dir is the work directory of this run, bin where the binaries are, self this program.
	dir, bin, self string
	// size is the image's, in bytes.
	size  int64
	quick bool
	// rounds is how often everything is measured.
	rounds int
	table  table
	// images are those of the cases that share them; nil until the first of these.
	images *sharedImages
}

// measure is one case.
type measure struct {
	number int
	name   string
	// onImages says that it runs on the images that cases share.
	onImages bool
	// needsRoot says that the case makes network namespaces or mounts.
	needsRoot bool
	// space is what it needs at most, in bytes, for an image of the bench's size.
	space func(b *bench) int64
	run   func(ctx context.Context, b *bench) error
}

// cases are in the order of the table.
func cases() []measure {
	return []measure{
		{1, "identical images", true, false, (*bench).pairSpace, runIdentical},
		{2, "1 % of the 4 KiB blocks rewritten", true, false, (*bench).pairSpace, runChanged},
		{3, "cold cache", true, false, (*bench).pairSpace, runCold},
		{4, "link of 1.5 Mbit/s", false, true, func(*bench) int64 { return gib }, runLink},
		{5, "sparse disk of 16 TiB", false, true, func(b *bench) int64 { return 5 * b.sparseData() }, runSparse},
		{6, "start to the first differing byte", false, true, func(b *bench) int64 { return 4 * b.firstSizes()[1] }, runFirst},
		{7, "reading through each format", false, false, func(b *bench) int64 { return 6 * b.formatData() }, runRead},
		{8, "writing into each differencing disk", false, false, func(b *bench) int64 { return 3 * b.formatData() }, runWrite},
		{9, "opening a VHDX of 64 TiB", false, false, func(b *bench) int64 { return 2 * gib }, runOpen},
		{10, "a machine's writes, tracked", false, false, func(*bench) int64 { return 2 * machineSize }, runMachine},
		{11, "cuts over disks of 1 TiB", false, false, func(*bench) int64 { return gib }, runCut},
		{12, "cycles", false, false, func(*bench) int64 { return 6 * deltaSize }, runCycle},
		{13, "resync of a running machine", false, false, (*bench).pairSpace, runOnline},
	}
}

// pairSpace is that of the primary's image, the replica's, rsync's and the files that they are made of.
func (b *bench) pairSpace() int64 { return b.size*4 + b.size/4 }

func main() {
	if len(os.Args) == 4 && os.Args[1] == passCommand {
		exit(pass(os.Args[2], os.Args[3]))
	}
	if len(os.Args) == 4 && os.Args[1] == serveCommand {
		exit(serve(os.Args[2], os.Args[3]))
	}
	if len(os.Args) == 3 && os.Args[1] == openCommand {
		exit(open(os.Args[2]))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	exit(run(ctx, os.Args[1:]))
}

func exit(err error) {
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
		os.Exit(0)
	default:
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	b, chosen, dir, err := parse(args)
	if err != nil {
		return err
	}
	if b.self, err = os.Executable(); err != nil {
		return err
	}
	if err := b.ready(chosen, dir); err != nil {
		return err
	}
	b.dir, err = os.MkdirTemp(dir, "vmreplica-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	b.table.facts = machineFacts(ctx, b)
	if b.size < 6*gib {
		b.table.note("The limits are meant for an image of 6 GiB; rsync's time for changes grows faster than the image.")
	}
	defer b.dropImages()
	for _, c := range chosen {
		if !c.onImages {
			b.dropImages()
		}
		progress("case %d: %s, at a load of %s", c.number, c.name, load())
		if err := c.run(ctx, b); err != nil {
			return errors.Join(fmt.Errorf("case %d, %s: %w", c.number, c.name, err), b.table.print(os.Stdout))
		}
	}
	return b.table.print(os.Stdout)
}

// parse answers the bench, the cases to run and the directory to work in.
func parse(args []string) (*bench, []measure, string, error) {
	b := &bench{}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	size := flags.Int64("size", 6144, "`MiB` of the image")
	list := flags.String("case", "1,2,3,4,5,6,7,8,9,10,11,12,13", "the `cases` to run")
	dir := flags.String("dir", "", "work below this `directory` (default the system's for temporary files)")
	flags.StringVar(&b.bin, "bin", "bin", "`directory` of the built binaries")
	flags.IntVar(&b.rounds, "rounds", 0, "`rounds` of each case (default 5, with -quick 3)")
	flags.BoolVar(&b.quick, "quick", false, "an image of 1 GiB and less of everything: a check that the bench works")
	if err := flags.Parse(args); err != nil {
		return nil, nil, "", err
	}
	b.size = *size * mib
	if b.quick && !given(flags, "size") {
		b.size = gib
	}
	if b.rounds == 0 {
		b.rounds = 5
		if b.quick {
			b.rounds = 3
		}
	}
	var chosen []measure
	for _, text := range strings.Split(*list, ",") {
		number, err := strconv.Atoi(strings.TrimSpace(text))
		at := slices.IndexFunc(cases(), func(c measure) bool { return c.number == number })
		if err != nil || at < 0 {
			return nil, nil, "", fmt.Errorf("-case %q: the cases are 1 to %d", text, len(cases()))
		}
		chosen = append(chosen, cases()[at])
	}
	slices.SortFunc(chosen, func(x, y measure) int { return x.number - y.number })
	if *dir == "" {
		*dir = os.TempDir()
	}
	return b, chosen, *dir, nil
}

func given(flags *flag.FlagSet, name string) bool {
	is := false
	flags.Visit(func(f *flag.Flag) { is = is || f.Name == name })
	return is
}

// ready says what is missing before anything is measured.
func (b *bench) ready(chosen []measure, dir string) error {
	var need int64
	for _, c := range chosen {
		if c.needsRoot && os.Geteuid() != 0 {
			return fmt.Errorf("case %d makes network namespaces or mounts: run as root, or choose with -case 1,2,3", c.number)
		}
		need = max(need, c.space(b))
	}
	free, err := freeSpace(dir)
	if err != nil {
		return err
	}
	if free < need {
		return fmt.Errorf("%s has %s free and the bench needs %s: choose another -dir, a smaller -size, or -quick",
			dir, bytesText(free), bytesText(need))
	}
	b.bin, err = filepath.Abs(b.bin)
	if err != nil {
		return err
	}
	for _, program := range []string{"agent-primary", "agent-replica", "vmreplica"} {
		if _, err := os.Stat(filepath.Join(b.bin, program)); err != nil {
			return fmt.Errorf("%w: make build", err)
		}
	}
	return nil
}

// progress says on stderr what is being done.
func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...) }
