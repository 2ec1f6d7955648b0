package main

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// enable admits the primary on the replica and enables the VM on the copy that lies there.
func (d *demo) enable(ctx context.Context) error {
	if err := d.person.types(ctx, d.person.replica, "authorize", primaryName); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"test-connection", d.person.replica},
		{"enable", vmName, "--disk", d.image, "--replica", d.person.replica, "--use-existing", "--auto-resync", "off"},
	} {
		if err := d.person.types(ctx, d.person.primary, args...); err != nil {
			return err
		}
	}
	return nil
}

// firstRun brings the older copy in step.
func (d *demo) firstRun(ctx context.Context) error {
	if err := d.transfer(ctx, "first run", "start-initial", vmName, "--wait"); err != nil {
		return err
	}
	return d.judge(ctx)
}

// secondRun changes the machine's disk again and resynchronizes.
func (d *demo) secondRun(ctx context.Context) error {
	work := func(root string) error { return workOn(ctx, root, "the next day", 151) }
	if err := d.mounted(ctx, d.image, "rw", work); err != nil {
		return err
	}
	if err := d.transfer(ctx, "resync", "resync", vmName, "--wait"); err != nil {
		return err
	}
	return d.judge(ctx)
}

// verify compares and proves once more.
func (d *demo) verify(ctx context.Context) error {
	if err := d.transfer(ctx, "verify", "verify", vmName, "--wait"); err != nil {
		return err
	}
	for _, args := range [][]string{{"get"}, {"resyncs", vmName}} {
		if err := d.person.types(ctx, d.person.primary, args...); err != nil {
			return err
		}
	}
	return nil
}

// resync is what the command line says of a resync, as JSON.
type resync struct {
	Result string
	Disks  []struct {
		SizeBytes, BlocksCompared, BytesDiffering, WireBytesSent, WireBytesReceived int64 `json:",string"`
	}
}

// transfer runs one and keeps its figures. Its progress is shown while it runs.
func (d *demo) transfer(ctx context.Context, name string, args ...string) error {
	var done resync
	began := time.Now()
	if err := d.person.asks(ctx, d.person.primary, &done, append(args, "-o", "json")...); err != nil {
		return err
	}
	took := time.Since(began)
	if len(done.Disks) != 1 {
		return fmt.Errorf("the %s has %d disks, not 1", name, len(done.Disks))
	}
	disk := done.Disks[0]
	fmt.Printf("  its JSON says: %s\n", done.Result)
	d.report.transfer(transfer{
		name: name, took: took, compared: min(disk.BlocksCompared*blockSize, disk.SizeBytes),
		differing: disk.BytesDiffering, sent: disk.WireBytesSent, received: disk.WireBytesReceived,
	})
	return nil
}

// judge asks programs that know nothing of vmreplica whether the replica is the machine's disk.
func (d *demo) judge(ctx context.Context) error {
	if err := d.verdict(ctx, "cmp", d.image, d.copy); err != nil {
		return err
	}
	if err := d.verdict(ctx, "e2fsck", "-f", "-n", d.copy); err != nil {
		return err
	}
	return d.mounted(ctx, d.copy, "ro,noload", func(root string) error {
		database := "file:" + root + "/orders.db?immutable=1"
		integrity, err := exec.CommandContext(ctx, "sqlite3", database, "PRAGMA integrity_check; SELECT count(*) FROM orders;").CombinedOutput()
		answer := strings.Fields(string(integrity))
		if err != nil || len(answer) != 2 || answer[0] != "ok" {
			return fmt.Errorf("sqlite3 on the replica: %w: %s", err, integrity)
		}
		fmt.Printf("  right  sqlite3 on the replica: integrity_check ok, %s rows\n", answer[1])
		return nil
	})
}

func (d *demo) verdict(ctx context.Context, name string, args ...string) error {
	if err := tool(ctx, name, args...); err != nil {
		return fmt.Errorf("the replica is not what it must be: %w", err)
	}
	fmt.Println("  right ", name, strings.Join(args, " "))
	return nil
}
