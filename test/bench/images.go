package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// sharedVM is the VM of the cases that share images.
const sharedVM = "bench"

// sharedImages is one image three times: the primary's, its replica's and rsync's, in step, with both agents and
// rsync's daemon running.
type sharedImages struct {
	dir   string
	pair  *pair
	rsync *rsyncDaemon
	// primary, replica and copied are the paths.
	primary, replica, copied string
}

// shared makes the images where they are not yet.
func (b *bench) shared(ctx context.Context) (*sharedImages, error) {
	if b.images != nil {
		return b.images, nil
	}
	s := &sharedImages{dir: filepath.Join(b.dir, "shared")}
	b.images = s
	copies := filepath.Join(s.dir, "rsync")
	s.primary = filepath.Join(s.dir, "images", sharedVM+".img")
	s.replica = filepath.Join(s.dir, "storage", primaryName, sharedVM, sharedVM+".img")
	s.copied = filepath.Join(copies, sharedVM+".img")
	progress("an image of %s is made of real files", bytesText(b.size))
	if err := buildImage(ctx, s.primary, b.size); err != nil {
		return nil, err
	}
	for _, other := range []string{s.replica, s.copied} {
		if err := duplicate(ctx, s.primary, other); err != nil {
			return nil, err
		}
	}
	var err error
	if s.rsync, err = startRsync(ctx, s.dir, copies); err != nil {
		return nil, err
	}
	s.pair, err = startPair(ctx, b, setting{dir: s.dir,
		images: filepath.Dir(s.primary), storage: filepath.Join(s.dir, "storage")})
	if err != nil {
		return nil, err
	}
	return s, s.pair.adopt(ctx, sharedVM, "")
}

// dropImages ends the agents and deletes the images.
func (b *bench) dropImages() {
	s := b.images
	if s == nil {
		return
	}
	if s.pair != nil {
		s.pair.stop()
	}
	if s.rsync != nil {
		s.rsync.stop()
	}
	b.images = nil
	_ = os.RemoveAll(s.dir) // what stays is deleted with the work directory
}

// check compares both copies with the primary's image.
func (s *sharedImages) check(ctx context.Context) error {
	if err := compare(ctx, s.primary, s.replica); err != nil {
		return err
	}
	return compare(ctx, s.primary, s.copied)
}

// warm reads the images into the page cache and says when they do not stay there.
func (s *sharedImages) warm(ctx context.Context, b *bench) error {
	if _, err := floor(ctx, b, passRead, s.primary, s.replica); err != nil {
		return err
	}
	if _, err := floor(ctx, b, passRead, s.primary, s.copied); err != nil {
		return err
	}
	for _, path := range []string{s.primary, s.replica, s.copied} {
		share, err := cachedShare(path)
		if err != nil {
			return err
		}
		if share >= 0 && share < 0.99 {
			b.table.note("The page cache holds only %.0f %% of %s: what is said to be warm is not.", 100*share, filepath.Base(filepath.Dir(path)))
		}
	}
	return nil
}

// cachedShare is the part of a file that is in the page cache; negative where the kernel cannot say.
func cachedShare(path string) (float64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	n, err := cached(path)
	if err != nil {
		return 0, fmt.Errorf("cachestat of %s: %w", path, err)
	}
	return float64(n) / float64(info.Size()), nil
}

// inTurn measures a round: every competitor once, each round beginning with another one, because what one leaves in
// memory and caches is the next one's start. It prepares before each.
func inTurn(round int, measures []func() error, prepare func() error) error {
	for i := range measures {
		if err := prepare(); err != nil {
			return err
		}
		if err := measures[(round+i)%len(measures)](); err != nil {
			return err
		}
	}
	return nil
}
