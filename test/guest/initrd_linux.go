package guest

import (
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

//go:embed init.sh
var script []byte

// build writes an initrd of busybox and some programs, with the libraries that they load, and the kernel's modules.
func build(to, modules string, programs ...string) error {
	root, err := os.MkdirTemp(filepath.Dir(to), "root-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(root)
	files, err := closure(programs)
	if err != nil {
		return err
	}
	kernel, err := filepath.Glob(filepath.Join(modules, "*.ko"))
	if err != nil || len(kernel) == 0 {
		return errors.Join(fmt.Errorf("no kernel in %s: make setup", modules), err)
	}
	for _, module := range kernel {
		files[filepath.Join("modules", filepath.Base(module))] = module
	}
	for inside, outside := range files {
		if err := place(filepath.Join(root, inside), outside); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(root, "init"), script, 0o755); err != nil {
		return err
	}
	for _, mount := range []string{"proc", "sys", "dev", "tmp"} {
		if err := os.Mkdir(filepath.Join(root, mount), 0o755); err != nil {
			return err
		}
	}
	return archive(root, to)
}

// closure are busybox by the names of its applets, the programs, and the libraries they load: the place in the guest by
// the file of the host.
func closure(programs []string) (map[string]string, error) {
	files := map[string]string{}
	for _, name := range append([]string{"busybox"}, programs...) {
		path, err := find(name)
		if err != nil {
			return nil, err
		}
		files[filepath.Join("bin", name)] = path
		loaded, _ := exec.Command("ldd", path).Output() // which fails for what is linked statically
		for _, word := range strings.Fields(string(loaded)) {
			if filepath.IsAbs(word) {
				files[word] = word
			}
		}
	}
	return files, nil
}

// find looks where root would: a user's PATH may lack the places of e2fsprogs.
func find(name string) (string, error) {
	for _, dir := range []string{"/bin", "/usr/bin", "/sbin", "/usr/sbin"} {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not installed: make setup", name)
}

func place(at, file string) error {
	content, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		return err
	}
	return os.WriteFile(at, content, 0o755)
}

// archive makes the initrd, with busybox's applets linked.
func archive(root, to string) error {
	command := exec.Command("sh", "-c", `
		for applet in $(bin/busybox --list); do [ -e "bin/$applet" ] || ln -s busybox "bin/$applet"; done
		find . | cpio --create --format=newc --quiet >"$0"`, to)
	command.Dir = root
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("making the initrd: %w: %s", err, output)
	}
	return nil
}
