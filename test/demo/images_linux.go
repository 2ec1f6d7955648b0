package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const (
	imageSize = 1 << 30
	// treeBytes is about how much is copied into the image.
	treeBytes = 350 << 20
	tableRows = 100_000
)

// makeImages makes the machine's image, forks the replica's from it, and changes both.
func (d *demo) makeImages(ctx context.Context) error {
	if err := d.format(ctx); err != nil {
		return err
	}
	if err := d.mounted(ctx, d.image, "rw", func(root string) error { return fill(ctx, root) }); err != nil {
		return err
	}
	if err := tool(ctx, "cp", "--sparse=always", d.image, d.copy); err != nil {
		return err
	}
	fmt.Println("The machine works on; the copy, which somebody had started for a test, was changed too.")
	if err := d.mounted(ctx, d.image, "rw", func(root string) error { return workOn(ctx, root, "the machine", 97) }); err != nil {
		return err
	}
	return d.mounted(ctx, d.copy, "rw", func(root string) error { return workOn(ctx, root, "a test", 211) })
}

func (d *demo) format(ctx context.Context) error {
	file, err := os.OpenFile(d.image, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(file.Truncate(imageSize), file.Close()); err != nil {
		return err
	}
	return tool(ctx, "mkfs.ext4", "-q", "-F", d.image)
}

// mounted mounts an image, hands its root to use, and unmounts it, so that the file holds everything.
func (d *demo) mounted(ctx context.Context, image, options string, use func(root string) error) error {
	root := d.path("mnt")
	if err := tool(ctx, "mount", "-o", "loop,"+options, image, root); err != nil {
		return fmt.Errorf("%w (a container needs --privileged for loop mounts)", err)
	}
	d.cleanup.add(func() error { return tool(context.Background(), "umount", root) })
	useErr := use(root)
	last := len(d.cleanup.steps) - 1
	unmount := d.cleanup.steps[last]
	d.cleanup.steps = d.cleanup.steps[:last]
	if err := unmount(); err != nil {
		// Somebody is inside: what remains is taken away when it leaves.
		return errors.Join(useErr, err, tool(context.Background(), "umount", "--lazy", root))
	}
	return useErr
}

// fill copies what every machine with Go has, and makes a database.
func fill(ctx context.Context, root string) error {
	goroot, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("ask go where it lies: %w", err)
	}
	tree := tree{into: filepath.Join(root, "srv"), limit: treeBytes}
	for _, from := range []string{strings.TrimSpace(string(goroot)), "/usr/share", "/usr/lib"} {
		if err := tree.copy(ctx, from); err != nil {
			return err
		}
	}
	if err := sql(ctx, root, fmt.Sprintf(`
		PRAGMA journal_mode = WAL;
		CREATE TABLE orders (id INTEGER PRIMARY KEY, customer TEXT, item TEXT, state TEXT);
		WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d)
		INSERT INTO orders SELECT i, 'customer ' || (i * 7919 %% 5000), hex(randomblob(40)), 'new' FROM n;
		CREATE INDEX by_customer ON orders (customer);`, tableRows)); err != nil {
		return err
	}
	fmt.Printf("A file system of %s with %d files of %s and a database of %d rows.\n",
		size(imageSize), tree.files, size(tree.bytes), tableRows)
	return nil
}

// workOn changes a mounted image as a day of work does: files rewritten, cut, deleted and new, rows changed. Every
// nth file is touched.
func workOn(ctx context.Context, root, who string, nth int) error {
	changed := 0
	err := eachFile(ctx, filepath.Join(root, "srv"), func(path string, n int) error {
		if n%nth != 0 {
			return nil
		}
		changed++
		switch changed % 4 {
		case 0:
			return os.Remove(path)
		case 1:
			return os.Truncate(path, 1000)
		case 2:
			return os.WriteFile(path, []byte(strings.Repeat(who+" was here\n", 2000)), 0o600)
		default:
			return appendTo(path, strings.Repeat(who+" adds a line\n", 500))
		}
	})
	if err != nil {
		return err
	}
	if err := sql(ctx, root, fmt.Sprintf(`
		UPDATE orders SET state = 'shipped by %s' WHERE id %% %d = 0;
		DELETE FROM orders WHERE id %% %d = 1;
		INSERT INTO orders (customer, item, state)
			SELECT customer, hex(randomblob(40)), 'new' FROM orders WHERE id <= 5000;`, who, nth, nth)); err != nil {
		return err
	}
	fmt.Printf("  %-12s changed %d files and about %d rows\n", who, changed, 5000+2*tableRows/nth)
	return nil
}

func appendTo(path, text string) error {
	file, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	return errors.Join(err, file.Close())
}

// sql runs statements on the image's database.
func sql(ctx context.Context, root, statements string) error {
	return tool(ctx, "sqlite3", "-bail", filepath.Join(root, "orders.db"), statements)
}

// tool runs a program that says nothing when all is well.
func tool(ctx context.Context, name string, args ...string) error {
	output, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(string(output)))
	}
	return nil
}
