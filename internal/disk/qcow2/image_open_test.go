package qcow2_test

import (
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vmreplica/internal/disk"
	"vmreplica/internal/disk/qcow2"
	"vmreplica/internal/durable"
	"vmreplica/internal/failure"
)

// TestImageRefused changes one field of a good image at a time.
func TestImageRefused(t *testing.T) {
	u32 := func(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }
	u64 := func(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }
	cases := map[string]struct {
		at      int64
		field   []byte
		class   failure.Class
		message string
		mode    durable.Mode
	}{
		"magic":                   {0, u32(1), failure.Unsupported, "no qcow2 header", durable.ReadOnly},
		"version 4":               {4, u32(4), failure.Unsupported, "version is 4", durable.ReadOnly},
		"cluster of 256 bytes":    {20, u32(8), failure.Unsupported, "2^8", durable.ReadOnly},
		"cluster of 4 MiB":        {20, u32(22), failure.Unsupported, "2^22", durable.ReadOnly},
		"encrypted":               {32, u32(2), failure.Unsupported, "encrypted", durable.ReadOnly},
		"no size":                 {24, u64(0), failure.Unsupported, "size", durable.ReadOnly},
		"above 64 TiB":            {24, u64(65 << 40), failure.Unsupported, "size", durable.ReadOnly},
		"negative size":           {24, u64(math.MaxUint64), failure.Unsupported, "size", durable.ReadOnly},
		"L1 too short":            {24, u64(1 << 40), failure.Corrupt, "L1 table of", durable.ReadOnly},
		"L1 too long":             {36, u32(math.MaxUint32), failure.Unsupported, "L1 table", durable.ReadOnly},
		"L1 outside":              {40, u64(1 << 40), failure.Corrupt, "outside", durable.ReadOnly},
		"L1 at a huge offset":     {40, u64(math.MaxUint64 - 4095), failure.Corrupt, "outside", durable.ReadOnly},
		"L1 unaligned":            {40, u64(12289), failure.Corrupt, "outside", durable.ReadOnly},
		"L1 over the refcounts":   {40, u64(4096), failure.Corrupt, "overlap", durable.ReadOnly},
		"refcount table outside":  {48, u64(1 << 40), failure.Corrupt, "outside", durable.ReadOnly},
		"no refcount table":       {56, u32(0), failure.Corrupt, "refcount table", durable.ReadOnly},
		"huge refcount table":     {56, u32(math.MaxUint32), failure.Corrupt, "refcount table", durable.ReadOnly},
		"corrupt":                 {72, u64(2), failure.Corrupt, "marked corrupt", durable.ReadOnly},
		"external data file":      {72, u64(4), failure.Unsupported, "another file", durable.ReadOnly},
		"compression without":     {72, u64(8), failure.Corrupt, "compression", durable.ReadOnly},
		"extended, small cluster": {72, u64(16), failure.Corrupt, "extended L2", durable.ReadOnly},
		"unknown feature":         {72, u64(32), failure.Unsupported, "0x20", durable.ReadOnly},
		"dirty, for writing":      {72, u64(1), failure.Unsupported, "qemu-img check -r all", durable.ReadWrite},
		"refcount order":          {96, u32(7), failure.Corrupt, "refcount order", durable.ReadOnly},
		"header length":           {100, u32(80), failure.Corrupt, "header of", durable.ReadOnly},
		"extension":               {112, append(u32(5), u32(1<<31)...), failure.Corrupt, "extension", durable.ReadOnly},
		"backing file's name":     {8, u64(1 << 40), failure.Corrupt, "backing file", durable.ReadOnly},
		"a block that is L1":      {4096, u64(12288), failure.Corrupt, "refcount table", durable.ReadWrite},
		"a block outside":         {4096, u64(1 << 50), failure.Corrupt, "refcount table", durable.ReadWrite},
		"an L2 table outside":     {12288, u64(1 << 50), failure.Corrupt, "L1 table", durable.ReadWrite},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			file := smallImage(t)
			file.put(c.at, c.field)
			_, err := qcow2.OpenImage(file, c.mode)
			if found := failure.Find(err); err == nil || found.Class != c.class || !strings.Contains(found.Error(), c.message) {
				t.Errorf("%v, want class %d and %q", err, c.class, c.message)
			}
		})
	}
}

// smallImage is an image of 1 MiB in clusters of 4 KiB: header, refcount table, block, L1 table, then an L2 table and
// one cluster of data.
func smallImage(t testing.TB) *memory {
	t.Helper()
	file := newMemory()
	i, err := qcow2.CreateImage(file, qcow2.ImageOptions{SizeBytes: 1 << 20, ClusterBytes: 4096})
	must(t, err)
	_, err = i.WriteAt(make([]byte, 4096), 0)
	must(t, err)
	must(t, i.Flush())
	return file
}

// TestCheckFinds damages a good image, and holds Check against `qemu-img check`.
func TestCheckFinds(t *testing.T) {
	const copied = 1 << 63
	u64 := func(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }
	cases := map[string]struct {
		at    int64
		field []byte
		want  disk.Severity
	}{
		"nothing":                       {4000, []byte{0}, 0},
		"a leak":                        {8192 + 2*9, []byte{0, 1}, disk.Leaked},
		"a refcount that is too high":   {8192 + 2*5, []byte{0, 2}, disk.Damaged},
		"a refcount that is too low":    {8192 + 2*5, []byte{0, 0}, disk.Damaged},
		"an unaligned cluster":          {16384, u64(copied | 20480 + 512), disk.Damaged},
		"two entries for a cluster":     {16384 + 8, u64(copied | 20480), disk.Damaged},
		"an entry without a place":      {16384 + 8, u64(copied), 0},
		"content in the refcount table": {16384 + 8, u64(copied | 4096), disk.Damaged},
		"an L2 table used as content":   {16384 + 8, u64(copied | 16384), disk.Damaged},
		"a missing COPIED":              {16384, u64(20480), disk.Damaged},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			file := smallImage(t)
			file.put(c.at, c.field)
			path := filepath.Join(memoryDir(t), "image")
			size, err := file.Size()
			must(t, err)
			content := make([]byte, size)
			_, err = file.ReadAt(content, 0)
			must(t, err)
			must(t, os.WriteFile(path, content, 0o600))
			worst := disk.Severity(0)
			for _, finding := range findings(t, path) {
				worst = max(worst, finding.Severity)
			}
			if worst != c.want {
				t.Errorf("severity %d, want %d: %v", worst, c.want, findings(t, path))
			}
			errs, leaks := checkWithQEMU(t, path)
			if (errs > 0) != (c.want == disk.Damaged) || c.want == disk.Leaked && leaks == 0 {
				t.Errorf("qemu-img check finds %d errors and %d leaks", errs, leaks)
			}
		})
	}
}

// TestCheckOverlay checks the file of an Overlay.
func TestCheckOverlay(t *testing.T) {
	path := filepath.Join(memoryDir(t), "overlay")
	o := create(t, path, 3<<30)
	newModel(3<<30).set(t, o, 0, 5, 300)
	must(t, o.Close())
	if all := findings(t, path); len(all) > 0 {
		t.Errorf("Check finds %v", all)
	}
	if info := describe(t, path); info.Kind != "dynamic" || info.UnitBytes != 128<<10 || info.Parent != nil {
		t.Errorf("%+v", info)
	}
}
