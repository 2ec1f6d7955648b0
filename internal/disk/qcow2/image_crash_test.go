package qcow2_test

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"vmreplica/internal/disk/disktest"
	"vmreplica/internal/disk/qcow2"
	"vmreplica/internal/durable"
	"vmreplica/internal/durable/durabletest"
)

// What a crash's marks say: there is an image; all these sectors were flushed; from here on these may hold this.
type (
	imageThere   struct{}
	imageFlushed []uint64
	imageChange  struct {
		first  int64
		stamps []uint64
	}
)

// imageScenario is a history of an image whose every operation is recorded.
type imageScenario struct {
	*durabletest.Recorder
	s    *sectors
	i    *qcow2.Image
	from int
	// few says that a state is large, so that fewer are looked at.
	few bool
}

// refcountTable is where the file has it.
func (c *imageScenario) refcountTable(t *testing.T) uint64 {
	t.Helper()
	file, err := c.Dir().Open("image", durable.ReadOnly)
	must(t, err)
	var field [8]byte
	_, err = file.ReadAt(field[:], 48)
	must(t, err)
	return binary.BigEndian.Uint64(field[:])
}

func (c *imageScenario) create(t *testing.T, size, cluster int64) *imageScenario {
	t.Helper()
	file, err := c.Dir().Create("image")
	must(t, err)
	c.s = newSectors(size)
	c.i, err = qcow2.CreateImage(file, qcow2.ImageOptions{SizeBytes: size, ClusterBytes: cluster})
	must(t, err)
	must(t, c.Dir().Sync("."))
	c.Mark(imageThere{})
	c.Mark(imageFlushed(slices.Clone(c.s.stamps)))
	return c
}

// adopt starts with a file that is durable already.
func (c *imageScenario) adopt(t *testing.T, path string, s *sectors) *imageScenario {
	t.Helper()
	content, err := os.ReadFile(path)
	must(t, err)
	file, err := c.Dir().Create("image")
	must(t, err)
	_, err = file.WriteAt(content, 0)
	must(t, err)
	must(t, file.Sync())
	must(t, c.Dir().Sync("."))
	c.s = s
	c.Mark(imageThere{})
	c.Mark(imageFlushed(slices.Clone(s.stamps)))
	c.i, err = qcow2.OpenImage(file, durable.ReadWrite)
	must(t, err)
	c.from = 4
	return c
}

func (c *imageScenario) set(t *testing.T, what int, first, count int64) {
	t.Helper()
	stamps := make([]uint64, count)
	for n := range stamps {
		if what == 0 {
			stamps[n] = c.s.last + 1 + uint64(n)
		}
	}
	c.Mark(imageChange{first, stamps})
	c.s.set(t, c.i, what, first, count)
}

func (c *imageScenario) flush(t *testing.T) {
	t.Helper()
	must(t, c.i.Flush())
	c.Mark(imageFlushed(slices.Clone(c.s.stamps)))
}

func newImageScenario() *imageScenario { return &imageScenario{Recorder: durabletest.New()} }

var imageScenarios = map[string]func(t *testing.T, c *imageScenario){
	"new": func(t *testing.T, c *imageScenario) {
		c.create(t, 1<<20+512, 4096)
		c.set(t, 0, 0, 3)
		c.set(t, 0, 100, 40)
		c.flush(t)
		c.set(t, 0, 2, 9)
		c.set(t, 1, 100, 8)
		c.set(t, 2, 112, 17)
		c.set(t, 0, 2048, 1)
		c.flush(t)
		c.set(t, 0, 110, 12)
		c.set(t, 2, 0, 2049)
		c.flush(t)
		c.set(t, 0, 900, 20)
		c.flush(t)
	},
	"freed and taken again": func(t *testing.T, c *imageScenario) {
		c.create(t, 256<<10, 512)
		c.set(t, 0, 0, 40)
		c.flush(t)
		c.set(t, 2, 3, 30)
		c.set(t, 0, 100, 20)
		c.flush(t)
		c.set(t, 0, 200, 40)
		c.set(t, 2, 100, 20)
		c.flush(t)
		c.set(t, 0, 400, 30)
		c.flush(t)
	},
	"a refcount table that moves": func(t *testing.T, c *imageScenario) {
		c.create(t, 9<<20, 512)
		c.set(t, 0, 0, 15600)
		c.flush(t)
		c.from, c.few = countOps(c), true
		c.set(t, 0, 15600, 700)
		c.set(t, 0, 3, 2)
		c.flush(t)
		if at := c.refcountTable(t); at == 512 {
			t.Errorf("the refcount table stayed at %d", at)
		}
		c.set(t, 0, 18000, 300)
		c.flush(t)
	},
	"snapshots":               withForeign("compat=1.1,cluster_size=4k", "", true),
	"snapshots, version 2":    withForeign("compat=0.10,cluster_size=512", "", true),
	"snapshots, extended L2":  withForeign("extended_l2=on,cluster_size=16k", "", true),
	"compressed":              withForeign("cluster_size=4k", "cluster_size=4k", false),
	"refcounts of 1 bit":      withForeign("cluster_size=512,refcount_bits=1", "", false),
	"bitmaps to be forgotten": withForeign("cluster_size=4k", "bitmap", false),
}

// withForeign changes an image that QEMU made.
func withForeign(create, compress string, snapshot bool) func(t *testing.T, c *imageScenario) {
	return func(t *testing.T, c *imageScenario) {
		s := newSectors(512 << 10)
		f := &foreign{fixture: fixture{directory: memoryDir(t)}}
		f.path = filepath.Join(f.directory, "image")
		f.run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", create, f.path, "512k")
		i := openImage(t, f.path, durable.ReadWrite)
		s.set(t, i, 0, 0, 60)
		s.set(t, i, 0, 500, 40)
		must(t, i.Close())
		switch {
		case compress == "bitmap":
			f.run(t, "qemu-img", "bitmap", "--add", f.path, "dirty")
		case compress != "":
			f.compress(t, compress)
		}
		if snapshot {
			f.run(t, "qemu-img", "snapshot", "-c", "kept", f.path)
		}
		c.adopt(t, f.path, s)
		c.set(t, 0, 2, 11)
		c.set(t, 2, 24, 20)
		c.set(t, 1, 510, 3)
		c.flush(t)
		c.set(t, 0, 0, 60)
		c.set(t, 0, 700, 9)
		c.flush(t)
		c.set(t, 2, 0, 1024)
		c.flush(t)
		c.set(t, 0, 300, 30)
		c.flush(t)
	}
}

// countOps is how many operations were recorded.
func countOps(c *imageScenario) int {
	last := 0
	for crash := range c.Crashes(durabletest.Options{Random: -1, Singles: 1, Every: 1 << 20}) {
		last = crash.Position()
	}
	return last
}

// TestImageCrashes loses power after every operation, with every choice of what was not synced. Each state opens,
// holds what was flushed, has leaks at worst, by this package's Check and by QEMU's, and can be gone on with.
func TestImageCrashes(t *testing.T) {
	disktest.OneGoroutine(t)
	for name, play := range imageScenarios {
		t.Run(name, func(t *testing.T) {
			c := newImageScenario()
			play(t, c)
			options, states := durabletest.Options{Singles: 10, Random: 4, From: c.from}, 0
			if c.few {
				options.Singles, options.Random = 2, 1
			}
			for crash := range c.Crashes(options) {
				err := checkImageCrash(crash)
				if err == nil && states%101 == 0 {
					err = askQEMUAboutCrash(t, crash)
				}
				if err == nil && states%37 == 0 {
					err = goOnWithImage(t, crash)
				}
				if err != nil {
					t.Fatalf("%v\n%v", crash, err)
				}
				states++
			}
			t.Logf("%d states", states)
		})
	}
}

// TestEverySyncOfAnImageIsNeeded leaves out one sync after the other: each time a crash breaks a promise.
func TestEverySyncOfAnImageIsNeeded(t *testing.T) {
	disktest.OneGoroutine(t)
	plays := map[string]func(*testing.T, *imageScenario){
		"create, write and unmap": func(t *testing.T, c *imageScenario) {
			c.create(t, 1<<20, 4096)
			c.set(t, 0, 0, 9)
			c.flush(t)
		},
		"a new refcount block": func(t *testing.T, c *imageScenario) {
			c.create(t, 256<<10, 512)
			c.set(t, 0, 0, 300)
			c.flush(t)
		},
	}
	for name, play := range plays {
		t.Run(name, func(t *testing.T) {
			for lost, done := 0, false; !done; lost++ {
				c, seen := newImageScenario(), 0
				c.Drop(func(op durabletest.Op) bool {
					if op.Kind == durabletest.Sync {
						seen++
					}
					return op.Kind == durabletest.Sync && seen == lost+1
				})
				play(t, c)
				done = seen <= lost
				if !done && !anyImageCrashFails(c) {
					t.Errorf("sync %d of %d can be left out", lost+1, seen)
				}
			}
		})
	}
}

func anyImageCrashFails(c *imageScenario) bool {
	for crash := range c.Crashes(durabletest.Options{}) {
		if checkImageCrash(crash) != nil {
			return true
		}
	}
	return false
}
