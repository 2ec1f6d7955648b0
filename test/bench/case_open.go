package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"vmreplica/internal/disk/format"
	"vmreplica/internal/durable"
	"vmreplica/internal/replication"
)

// What opening a VHDX file of 64 TiB may take.
const (
	openLimit       = 100 * time.Millisecond
	openMemoryLimit = 32 * mib
	openSize        = 64 * tib
)

// openCommand makes this program one opening of one VHDX file.
const openCommand = "open"

// runOpen measures opening a VHDX file of 64 TiB that holds data all over, in a process of its own.
func runOpen(ctx context.Context, b *bench) error {
	path := filepath.Join(b.dir, "huge.vhdx")
	defer os.Remove(path)
	data := min(gib, b.formatData())
	if err := makeHuge(path, data); err != nil {
		return err
	}
	var times []time.Duration
	memory := int64(0)
	for range b.rounds {
		took, resident, err := openOnce(ctx, b.self, path)
		if err != nil {
			return err
		}
		times, memory = append(times, took), max(memory, resident)
	}
	b.table.add("opening a VHDX of 64 TiB, ms", median(times).Seconds()*1000, openLimit.Seconds()*1000, "%.1f")
	b.table.add("the same, MiB resident", float64(memory)/float64(mib), float64(openMemoryLimit)/float64(mib), "%.1f")
	b.table.note("9: %s of data in pieces of 1 MiB all over 64 TiB; opened, and one piece in the middle read. Resident is VmHWM.", bytesText(data))
	return nil
}

func makeHuge(path string, data int64) error {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	image, err := format.Create(durable.NewFile(file), replication.FormatVHDX, format.New{Path: path, SizeBytes: openSize})
	if err != nil {
		return err
	}
	defer image.Close()
	piece := make([]byte, mib)
	if err := noise(3)(nil, piece); err != nil {
		return err
	}
	for i := range data / mib {
		if _, err := image.WriteAt(piece, i*(openSize/(data/mib))); err != nil {
			return err
		}
	}
	return image.Flush()
}

// openOnce runs the opening and answers its time and the most memory that the process had.
func openOnce(ctx context.Context, self, path string) (time.Duration, int64, error) {
	command := exec.CommandContext(ctx, self, openCommand, path)
	command.Stderr = os.Stderr
	hold, err := command.StdinPipe()
	if err != nil {
		return 0, 0, err
	}
	out, err := command.StdoutPipe()
	if err != nil {
		return 0, 0, err
	}
	if err := command.Start(); err != nil {
		return 0, 0, err
	}
	said, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		_ = command.Wait()
		return 0, 0, fmt.Errorf("an opening: %w", err)
	}
	resident, err := residentPeak(command.Process.Pid)
	if err != nil {
		return 0, 0, err
	}
	hold.Close()
	if err := command.Wait(); err != nil {
		return 0, 0, err
	}
	took, err := time.ParseDuration(strings.TrimSpace(said))
	return took, resident, err
}

// open is the process of one opening: it says how long it took and waits for the end of its input.
func open(path string) error {
	began := time.Now()
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	part, err := format.OpenPart(durable.NewFile(file), replication.FormatVHDX, format.Options{Path: path})
	if err != nil {
		return err
	}
	defer part.Close()
	if _, err := part.ReadAt(make([]byte, mib), part.Size()/2); err != nil {
		return err
	}
	fmt.Println(time.Since(began))
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}
