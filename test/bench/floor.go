package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/zeebo/blake3"
)

// passCommand makes this program one pass over one file.
const passCommand = "pass"

// The kinds of a pass.
const (
	passHash     = "hash"      // every byte: read, xxh64, BLAKE3
	passHashData = "hash-data" // the same, holes left out
	passRead     = "read"      // every byte: read
)

// floorTime is what two concurrent passes took.
type floorTime struct{ wall, cpu time.Duration }

// floor runs one pass over each file, at the same time, each in a process of its own with one thread for Go code.
func floor(ctx context.Context, b *bench, kind string, files ...string) (floorTime, error) {
	var passes []*onePass
	defer func() {
		for _, p := range passes {
			_ = p.kill()
		}
	}()
	for _, file := range files {
		p, err := startPass(ctx, b.self, kind, file)
		if err != nil {
			return floorTime{}, err
		}
		passes = append(passes, p)
	}
	began := time.Now()
	for _, p := range passes {
		if _, err := io.WriteString(p.begin, "\n"); err != nil {
			return floorTime{}, err
		}
	}
	for _, p := range passes {
		if _, err := p.said.ReadString('\n'); err != nil {
			return floorTime{}, fmt.Errorf("a pass of the floor: %w", err)
		}
	}
	took := floorTime{wall: time.Since(began)}
	for _, p := range passes {
		if err := p.command.Wait(); err != nil {
			return floorTime{}, fmt.Errorf("a pass of the floor: %w", err)
		}
		took.cpu += p.command.ProcessState.UserTime() + p.command.ProcessState.SystemTime()
	}
	return took, nil
}

// onePass is a pass that waits for its begin.
type onePass struct {
	command *exec.Cmd
	begin   io.Writer
	said    *bufio.Reader
}

func startPass(ctx context.Context, self, kind, file string) (*onePass, error) {
	command := exec.CommandContext(ctx, self, passCommand, kind, file)
	command.Env = append(os.Environ(), "GOMAXPROCS=1")
	command.Stderr = os.Stderr
	begin, err := command.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p := &onePass{command: command, begin: begin, said: bufio.NewReader(out)}
	if err := command.Start(); err != nil {
		return nil, err
	}
	if _, err := p.said.ReadString('\n'); err != nil {
		return nil, errors.Join(err, p.kill())
	}
	return p, nil
}

// kill ends a pass that was not waited for.
func (p *onePass) kill() error {
	if p.command.ProcessState != nil {
		return nil
	}
	return errors.Join(p.command.Process.Kill(), p.command.Wait())
}

// pass is the process of one pass: it says when it can begin, waits for a line, and says when it has ended.
func pass(kind, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	extents := []extent{{0, info.Size()}}
	buffer := make([]byte, mib)
	fmt.Println("ready")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	if kind == passHashData {
		if extents, err = dataExtents(file); err != nil {
			return err
		}
	}
	sum := uint64(0)
	for _, e := range extents {
		for off := e.start; off < e.end; off += mib {
			piece := buffer[:min(mib, e.end-off)]
			if _, err := file.ReadAt(piece, off); err != nil {
				return err
			}
			if kind != passRead {
				sum ^= digest(piece)
			}
		}
	}
	fmt.Println("done", sum)
	return nil
}

// digest takes both hashes of every 64 KiB.
func digest(piece []byte) uint64 {
	sum := uint64(0)
	for len(piece) > 0 {
		block := piece[:min(64*kib, int64(len(piece)))]
		proof := blake3.Sum256(block)
		sum ^= xxhash.Sum64(block) ^ uint64(proof[0])
		piece = piece[len(block):]
	}
	return sum
}
