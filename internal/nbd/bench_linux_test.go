package nbd_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmreplica/internal/nbd"
)

// BenchmarkServer runs fio's NBD engine against this server and against qemu-nbd on the same file in memory, in
// turns, and reports both and their ratio.
//
//	go test -run - -bench Server -benchtime 5x ./internal/nbd
func BenchmarkServer(b *testing.B) {
	cases := []struct {
		name string
		args []string
	}{
		{"4k randwrite qd16", []string{"--rw=randwrite", "--bs=4k", "--iodepth=16"}},
		{"4k randread qd16", []string{"--rw=randread", "--bs=4k", "--iodepth=16"}},
		{"4k randwrite qd1", []string{"--rw=randwrite", "--bs=4k", "--iodepth=1"}},
		{"1M write qd4", []string{"--rw=write", "--bs=1M", "--iodepth=4"}},
		{"1M read qd4", []string{"--rw=read", "--bs=1M", "--iodepth=4"}},
	}
	for _, c := range cases {
		b.Run(c.name, func(b *testing.B) { compare(b, c.args) })
	}
}

const (
	benchSize    = 256 << 20
	benchSeconds = 2
)

func compare(b *testing.B, args []string) {
	dir, err := os.MkdirTemp("/dev/shm", "nbd-bench")
	must(b, err)
	b.Cleanup(func() { must(b, os.RemoveAll(dir)) })
	path := filepath.Join(dir, "disk.raw")
	d := openImage(b, path, benchSize)
	zeros := make([]byte, 1<<20)
	for off := int64(0); off < benchSize; off += int64(len(zeros)) {
		_, err := d.WriteAt(zeros, off)
		must(b, err)
	}
	own := one(b, nbd.Options{}, d)
	other := startQEMU(b, dir, path)
	var mine, theirs float64
	var used time.Duration
	for b.Loop() {
		before := processorTime(b)
		mine += fio(b, own.uri(""), args)
		used += processorTime(b) - before
		theirs += fio(b, other, args)
	}
	b.ReportMetric(float64(used.Microseconds())/(mine*benchSeconds), "cpu-us/op")
	b.ReportMetric(mine/float64(b.N), "iops")
	b.ReportMetric(theirs/float64(b.N), "qemu-nbd-iops")
	b.ReportMetric(mine/theirs, "ratio")
	b.ReportMetric(0, "ns/op")
}

// startQEMU serves the file by qemu-nbd, without its locks: only one of the servers is used at a time.
func startQEMU(b *testing.B, dir, path string) string {
	socket := filepath.Join(dir, "qemu.sock")
	command := exec.Command("qemu-nbd", "--persistent", "--shared=8", "--socket="+socket, "--cache=writeback",
		"--image-opts", "driver=raw,file.driver=file,file.locking=off,file.filename="+path)
	command.Stderr = os.Stderr
	must(b, command.Start())
	b.Cleanup(func() {
		must(b, command.Process.Kill())
		_ = command.Wait() // killed
	})
	deadline := time.Now().Add(patience)
	for {
		if _, err := os.Stat(socket); err == nil {
			return "nbd+unix:///?socket=" + socket
		}
		if time.Now().After(deadline) {
			b.Fatal("qemu-nbd does not listen")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// processorTime is what this process, the server in it, has used.
func processorTime(b *testing.B) time.Duration {
	var usage unix.Rusage
	must(b, unix.Getrusage(unix.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// fio is the operations a second of benchSeconds.
func fio(b *testing.B, uri string, args []string) float64 {
	args = append([]string{"--name=bench", "--ioengine=nbd", "--uri=" + uri, "--size=" + fmt.Sprint(benchSize),
		"--time_based", fmt.Sprintf("--runtime=%d", benchSeconds), "--output-format=json", "--randrepeat=0"}, args...)
	output, err := exec.Command("fio", args...).Output()
	must(b, err)
	output = output[bytes.IndexByte(output, '{'):] // notices precede the report
	var report struct {
		Jobs []struct{ Read, Write struct{ IOPS float64 } }
	}
	must(b, json.Unmarshal(output, &report))
	return report.Jobs[0].Read.IOPS + report.Jobs[0].Write.IOPS
}
