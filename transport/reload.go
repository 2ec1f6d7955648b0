package transport

import (
	"context"
	"fmt"
	"time"
)

// ReloadInterval is how often Watch looks at the credentials directory.
const ReloadInterval = 5 * time.Second

// Watch looks at the directory every ReloadInterval until ctx ends, and uses what changed for new connections.
// Connections that are open stay. It compares content, not times: replaced links and restored times are seen too.
func (c *Credentials) Watch(ctx context.Context) {
	ticker := time.NewTicker(c.interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			c.look()
		}
	}
}

// Observe has used called when new files are in use and rejected when they cannot be used and the old ones stay, once
// for each content, until another call of Observe. They must not block.
func (c *Credentials) Observe(used func(identity string, notAfter time.Time), rejected func(directory string, err error)) {
	c.reload.mu.Lock()
	defer c.reload.mu.Unlock()
	c.reload.used, c.reload.rejected = used, rejected
}

// Reload looks at the directory at once. An error means that the old credentials are still in use.
func (c *Credentials) Reload() error {
	c.reload.mu.Lock()
	defer c.reload.mu.Unlock()
	_, err := c.replace()
	return err
}

// look is one look of Watch. The files are replaced one after another, so a pair that does not fit is tried again
// at the next look; the same content failing twice is logged, once.
func (c *Credentials) look() {
	c.reload.mu.Lock()
	defer c.reload.mu.Unlock()
	digest, err := c.replace()
	if err == nil {
		c.reload.failed, c.reload.warned = [32]byte{}, false
		return
	}
	if again := digest == c.reload.failed; !again {
		c.reload.failed, c.reload.warned = digest, false
		return
	}
	if !c.reload.warned {
		c.reload.warned = true
		c.log.Warn("new certificate files cannot be used; the old ones stay in use", "dir", c.dir, "error", err,
			"not_after", c.NotAfter())
		if c.reload.rejected != nil {
			c.reload.rejected(c.dir, err)
		}
	}
}

// replace uses the files as they are now, if they changed and may be used. The digest tells their content; of
// files that cannot be read it is one that no content has.
func (c *Credentials) replace() ([32]byte, error) {
	files, err := readCredentialFiles(c.dir)
	if err != nil {
		return [32]byte{1}, err
	}
	digest, old := files.digest(), c.current.Load()
	if digest == old.digest {
		return digest, nil
	}
	loaded, err := files.parse(c.now())
	if err != nil {
		return digest, err
	}
	if loaded.identity != old.identity {
		return digest, fmt.Errorf("the new certificate is for %s, this is %s: restart to become another",
			loaded.identity, old.identity)
	}
	c.current.Store(loaded)
	c.log.Info("new certificate files are in use", "dir", c.dir, "not_after", loaded.notAfter)
	if c.reload.used != nil {
		c.reload.used(loaded.identity.String(), loaded.notAfter)
	}
	return digest, nil
}
