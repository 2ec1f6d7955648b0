package vhd_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"vmreplica/internal/disk"
	"vmreplica/internal/disk/disktest"
	"vmreplica/internal/disk/vhd"
	"vmreplica/internal/durable"
)

// TestQEMUsImages reads what qemu-img made and qemu-io wrote, writes to it, and lets QEMU and 7zz read that.
func TestQEMUsImages(t *testing.T) {
	disktest.OneGoroutine(t)
	for _, subformat := range []string{"dynamic", "fixed"} {
		for _, force := range []string{"on", "off"} {
			t.Run(subformat+", force_size="+force, func(t *testing.T) { qemusImage(t, subformat, force) })
		}
	}
}

func qemusImage(t *testing.T, subformat, force string) {
	directory := memoryDir(t)
	path, raw := filepath.Join(directory, "disk.vhd"), filepath.Join(directory, "raw")
	run(t, "", "qemu-img", "create", "-q", "-f", "vpc",
		"-o", "subformat="+subformat+",force_size="+force, path, fmt.Sprint(7<<20+1536))
	file := hostFile(t, path, durable.ReadOnly)
	info, err := vhd.Describe(file)
	must(t, err)
	must(t, file.Close())
	if info.Kind != subformat || info.Dirty || (force == "on") != (info.SizeBytes == 7<<20+1536) {
		t.Errorf("%+v", info)
	}
	want := make([]byte, info.SizeBytes)
	for i, off := range []int64{512, 2<<20 - 1024, 6<<20 + 4096} {
		run(t, "", "qemu-io", "--image-opts", "-c", fmt.Sprintf("write -P %d %d 3072", i+1, off), qemuOptions(path))
		copy(want[off:], bytes.Repeat([]byte{byte(i + 1)}, 3072))
	}
	readsAs(t, path, want)
	base, err := vhd.Open(hostFile(t, path, durable.ReadWrite), durable.ReadWrite)
	must(t, err)
	for i, off := range []int64{1000, 3<<20 - 10, int64(len(want)) - 5000} {
		p := bytes.Repeat([]byte{byte(0xa0 + i)}, 5000)
		_, err := base.WriteAt(p, off)
		must(t, err)
		copy(want[off:], p)
	}
	must(t, base.Unmap(2<<20-100, 600))
	clear(want[2<<20-100:][:600])
	must(t, base.Close())
	readsAs(t, path, want)
	checkFindsNothing(t, path)
	must(t, os.WriteFile(raw, want, 0o600))
	compareWithQEMU(t, path, raw)
	run(t, directory, "7zz", "e", "-y", "-tvhd", "-oout", "disk.vhd")
	run(t, directory, "cmp", "raw", "out/disk.img")
}

func readsAs(t *testing.T, path string, want []byte) {
	t.Helper()
	base, err := vhd.Open(hostFile(t, path, durable.ReadOnly), durable.ReadOnly)
	must(t, err)
	defer base.Close()
	got := make([]byte, base.Size())
	_, err = base.ReadAt(got, 0)
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Errorf("%s reads otherwise", path)
	}
}

func checkFindsNothing(t *testing.T, path string) {
	t.Helper()
	file := hostFile(t, path, durable.ReadOnly)
	defer file.Close()
	for finding, err := range vhd.Check(file) {
		t.Errorf("%+v %v", finding, err)
	}
}

// TestTheEdgesOfTheBAT writes blocks around every multiple of 512 and 1024 in an order of its own, over the largest
// disk, and lets QEMU read them too.
func TestTheEdgesOfTheBAT(t *testing.T) {
	disktest.OneGoroutine(t)
	for _, block := range []int64{512 << 10, 2 << 20} {
		t.Run(fmt.Sprint(block), func(t *testing.T) {
			directory := memoryDir(t)
			path := filepath.Join(directory, "disk.vhd")
			base, err := vhd.Create(newFile(t, path), vhd.Options{SizeBytes: vhd.MaxSize, BlockBytes: block})
			must(t, err)
			last := vhd.MaxSize/block - 1
			blocks := []int64{513, 1023, 0, 511, 1025, 512, 1024, last, 1, last - 1, last - 1024}
			for i, b := range blocks {
				_, err := base.WriteAt(content(uint64(i+1)), b*block+int64(i)*grain)
				must(t, err)
			}
			must(t, base.Close())
			base, err = vhd.Open(hostFile(t, path, durable.ReadOnly), durable.ReadOnly)
			must(t, err)
			defer base.Close()
			data := int64(0)
			for e, err := range base.Extents(0, base.Size()) {
				must(t, err)
				if e.Kind == disk.Data {
					data += e.Length
				}
			}
			if data != int64(len(blocks))*grain {
				t.Errorf("%d bytes of data", data)
			}
			checkFindsNothing(t, path)
			for i, b := range blocks {
				got := make([]byte, grain)
				_, err := base.ReadAt(got, b*block+int64(i)*grain)
				must(t, err)
				raw := filepath.Join(directory, "piece")
				run(t, "", "qemu-img", "dd", "-f", "vpc", "-O", "raw", "bs=4096", fmt.Sprintf("skip=%d", b*block/grain+int64(i)),
					fmt.Sprintf("count=%d", b*block/grain+int64(i)+1), "if="+path, "of="+raw)
				qemu, err := os.ReadFile(raw)
				must(t, err)
				if !bytes.Equal(got, content(uint64(i+1))) || !bytes.HasPrefix(qemu, got) {
					t.Errorf("block %d reads %x, as QEMU reads it %x", b, got[:8], qemu[:min(8, len(qemu))])
				}
			}
		})
	}
}
