package nbd_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"vmreplica/internal/disk"
	"vmreplica/internal/disk/imagelock"
	"vmreplica/internal/disk/raw"
	"vmreplica/internal/durable"
	"vmreplica/internal/nbd"
)

// image is a raw file as an export.
type image struct {
	disk.Image
	readOnly bool
}

func (i *image) ReadOnly() bool { return i.readOnly }

func (i *image) Zero(off, n int64, o nbd.ZeroOptions) error {
	switch {
	case o.Fast && o.KeepSpace:
		return errors.ErrUnsupported
	case o.KeepSpace:
		return i.Image.Zero(off, n)
	default:
		return i.Image.Unmap(off, n)
	}
}

func (i *image) Trim(off, n int64) error { return i.Image.Unmap(off, n) }

// openImage makes a sparse raw file of size bytes where path says and opens it.
func openImage(t testing.TB, path string, size int64) *image {
	t.Helper()
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	must(t, err)
	must(t, file.Truncate(size))
	d, err := raw.Open(durable.NewFile(file), raw.Options{Path: path, Access: imagelock.Write})
	must(t, err)
	t.Cleanup(func() { must(t, d.Close()) })
	return &image{Image: d}
}

// run is a tool's output; a missing tool or a failure fails the test.
func run(t testing.TB, name string, arguments ...string) string {
	t.Helper()
	output, err := attempt(name, arguments...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(arguments, " "), err, output)
	}
	return output
}

func attempt(name string, arguments ...string) (string, error) {
	command := exec.Command(name, arguments...)
	var output bytes.Buffer
	command.Stdout, command.Stderr = &output, &output
	err := command.Run()
	return output.String(), err
}

// uri is how libnbd's and QEMU's tools name an export.
func (r *running) uri(export string) string { return "nbd+unix:///" + export + "?socket=" + r.socket }

const imageSize = 64 << 20

// patterned writes known bytes over every second MiB of the disk and returns a file that holds the same.
func patterned(t *testing.T, d *image) string {
	t.Helper()
	path := temporary(t, "want.raw")
	want, err := os.Create(path)
	must(t, err)
	must(t, want.Truncate(d.Size()))
	piece := make([]byte, 1<<20)
	for off := int64(0); off < d.Size(); off += 2 << 20 {
		for i := range piece {
			piece[i] = byte(i>>8) ^ byte(off>>20) | 1
		}
		for _, file := range []io.WriterAt{d, want} {
			_, err := file.WriteAt(piece, off)
			must(t, err)
		}
	}
	must(t, want.Close())
	return path
}

func TestNbdinfo(t *testing.T) {
	readOnly := openImage(t, temporary(t, "point.raw"), imageSize)
	readOnly.readOnly = true
	d := openImage(t, temporary(t, "disk.raw"), imageSize)
	r := serve(t, nbd.Options{List: func() []string { return []string{"disk", "point"} }},
		map[string]nbd.Export{"disk": d, "point": readOnly})
	list := run(t, "nbdinfo", "--list", r.uri(""))
	for _, want := range []string{
		"protocol: newstyle-fixed without TLS, using structured packets", `export="disk":`, `export="point":`,
		"base:allocation", "block_size_preferred: 4096", "block_size_maximum: 33554432",
	} {
		if !strings.Contains(list, want) {
			t.Errorf("the list lacks %q:\n%s", want, list)
		}
	}
	if got := strings.TrimSpace(run(t, "nbdinfo", "--size", r.uri("disk"))); got != "67108864" {
		t.Errorf("size %s", got)
	}
	for _, can := range []string{"df", "fast-zero", "flush", "fua", "multi-conn", "trim", "zero", "write"} {
		run(t, "nbdinfo", "--can", can, r.uri("disk"))
	}
	run(t, "nbdinfo", "--is", "read-only", r.uri("point"))
	for _, cannot := range []string{"write", "trim", "zero", "cache"} {
		if _, err := attempt("nbdinfo", "--can", cannot, r.uri("point")); err == nil {
			t.Errorf("a read-only export can %s", cannot)
		}
	}
	_, err := d.WriteAt(bytes.Repeat([]byte{1}, 64<<10), 1<<20)
	must(t, err)
	table := strings.Fields(run(t, "nbdinfo", "--map", r.uri("disk")))
	want := strings.Fields("0 1048576 3 hole,zero 1048576 65536 0 data 1114112 65994752 3 hole,zero")
	if strings.Join(table, " ") != strings.Join(want, " ") {
		t.Errorf("map %q, want %q", table, want)
	}
}

func TestNbdcopy(t *testing.T) {
	for _, connections := range []string{"1", "4"} {
		t.Run(connections+" connections", func(t *testing.T) {
			d := openImage(t, temporary(t, "disk.raw"), imageSize)
			want := patterned(t, d)
			got := temporary(t, "got.raw")
			r := one(t, nbd.Options{}, d)
			run(t, "nbdcopy", "--connections="+connections, r.uri(""), got)
			run(t, "cmp", want, got)

			backPath := temporary(t, "back.raw")
			back := one(t, nbd.Options{}, openImage(t, backPath, imageSize))
			run(t, "nbdcopy", "--flush", "--connections="+connections, want, back.uri(""))
			run(t, "cmp", want, backPath)

			secondPath := temporary(t, "second.raw")
			second := one(t, nbd.Options{}, openImage(t, secondPath, imageSize))
			run(t, "nbdcopy", "--connections="+connections, r.uri(""), second.uri(""))
			run(t, "cmp", want, secondPath)
		})
	}
}

func TestQemuImg(t *testing.T) {
	path := temporary(t, "disk.raw")
	d := openImage(t, path, imageSize)
	want := patterned(t, d)
	r := one(t, nbd.Options{}, d)
	run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", r.uri(""), want)
	run(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", r.uri(""), temporary(t, "out.qcow2"))
	got := temporary(t, "got.raw")
	run(t, "qemu-img", "convert", "-f", "raw", "-O", "raw", r.uri(""), got)
	run(t, "cmp", want, got)
	entries := strings.Count(run(t, "qemu-img", "map", "--output=json", "-f", "raw", r.uri("")), `"data": true`)
	if entries != imageSize/(2<<20) {
		t.Errorf("%d ranges of data are mapped, want %d", entries, imageSize/(2<<20))
	}
	// Onto a disk that holds other bytes, zeros included.
	overPath := temporary(t, "over.raw")
	over := openImage(t, overPath, imageSize)
	_, err := over.WriteAt(bytes.Repeat([]byte{0xee}, imageSize), 0)
	must(t, err)
	target := one(t, nbd.Options{}, over)
	run(t, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", want, target.uri(""))
	run(t, "cmp", want, overPath)
}

// qemuIO runs commands on the export and returns what it says; it exits with 1 when a command failed.
func qemuIO(r *running, options []string, commands ...string) (string, error) {
	arguments := append([]string{"-f", "raw"}, options...)
	for _, command := range commands {
		arguments = append(arguments, "-c", command)
	}
	return attempt("qemu-io", append(arguments, r.uri(""))...)
}

func TestQemuIO(t *testing.T) {
	export := newMemory(imageSize)
	r := one(t, nbd.Options{}, export)
	output, err := qemuIO(r, []string{"-d", "unmap"},
		"write -P 0x5a 0 1M", "read -P 0x5a 0 1M", "write -P 0xa5 12345 70001", "read -P 0xa5 12345 70001",
		"write -z 4k 64k", "read -P 0 4k 64k", "write -z -u 128k 64k", "read -P 0 128k 64k",
		"discard 512k 256k", "write -P 7 8M 40M", "read -P 7 8M 40M", "write -z 0 64M", "read -P 0 0 64M", "flush")
	if err != nil || strings.Contains(output, "failed") {
		t.Fatalf("%v\n%s", err, output)
	}
	if export.called("flush") == 0 || export.called("trim") != 1 || export.called("zero") < 3 {
		t.Errorf("calls %v", export.calls)
	}
	flushes := export.called("flush")
	output, err = qemuIO(r, nil, "write -f -P 1 0 4k", "write -f -z 8k 4k")
	if err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	if n := export.called("flush") - flushes; n < 2 {
		t.Errorf("two writes with FUA were flushed %d times", n)
	}
}

func TestQemuIOIsToldOfErrors(t *testing.T) {
	cases := map[string]struct {
		call, command, want string
		err                 error
	}{
		"read":    {"read", "read 0 4k", "Input/output error", syscall.EIO},
		"write":   {"write", "write 0 4k", "No space left on device", syscall.ENOSPC},
		"flush":   {"flush", "flush", "", syscall.ENOSPC},
		"FUA":     {"flush", "write -f 0 4k", "Input/output error", syscall.EIO},
		"zeroes":  {"zero", "write -z 0 4k", "Input/output error", syscall.EIO},
		"refused": {"write", "write 0 4k", "Operation not permitted", syscall.EPERM},
	}
	for name, w := range cases {
		t.Run(name, func(t *testing.T) {
			export := newMemory(1 << 20)
			export.before = func(call string) error {
				if call == w.call {
					return w.err
				}
				return nil
			}
			output, err := qemuIO(one(t, nbd.Options{}, export), nil, w.command)
			if err == nil || !strings.Contains(output, w.want) {
				t.Errorf("%v: %s", err, output)
			}
		})
	}
}

func TestFioVerifies(t *testing.T) {
	d := openImage(t, temporary(t, "disk.raw"), imageSize)
	r := one(t, nbd.Options{}, d)
	for _, block := range []string{"512", "4k", "68k", "1M"} {
		output := run(t, "fio", "--name=verify", "--ioengine=nbd", "--uri="+r.uri(""), "--rw=randwrite", "--size=64M",
			"--number_ios=1500", "--bs="+block, "--iodepth=32", "--verify=crc32c", "--fsync=64", "--randseed=1", "--verify_state_save=0")
		if !strings.Contains(output, "err= 0") {
			t.Error(output)
		}
	}
}
