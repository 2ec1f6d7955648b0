package attachment_test

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"net/url"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"vmreplica/agent-primary/attachment"
	"vmreplica/internal/failure"
)

// allowed has every character that a name may have, at its greatest length.
var allowed = []string{
	"ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz", "0123456789._-", "0.._--", "9", "root", "ROOT",
	strings.Repeat("z", 63), strings.Repeat("z", 62) + "y", strings.Repeat("-", 62), "vmr-root", "a--b",
}

// hostile are paths that mean something to a shell, to JSON, to XML or to QEMU's own options.
var hostile = []string{
	"/run/vmreplica/nbd.sock", "/run/a b/nbd.sock", `/run/it's/"nbd".sock`, "/run/$(touch pwned)/`touch pwned`/${HOME}",
	`/run/\n\\/'; touch pwned; '`, "/run/a,path=b,,c=d/x", "/run/-->/<qemu:arg value='-x'/>&amp;&lt;]]>", "/run/ü/☃.sock",
	`/run/","export":"other","x":"`, "/run/*?[a]~!#%",
}

func disks() []attachment.Disk {
	var list []attachment.Disk
	for _, id := range allowed {
		if id[0] != '-' {
			list = append(list, attachment.Disk{ID: id, LogicalSectorSize: 512})
		}
	}
	list[1].LogicalSectorSize = 4096
	return list
}

func render(t *testing.T, socket, vm string, disks []attachment.Disk) attachment.Lines {
	t.Helper()
	lines, err := attachment.Render(socket, vm, disks)
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// words are what a shell makes of the arguments.
func words(t *testing.T, arguments []string) []string {
	t.Helper()
	shell := exec.Command("sh", "-c", `printf '%s\0' `+strings.Join(arguments, " "))
	shell.Dir = t.TempDir()
	output, err := shell.Output()
	if err != nil {
		t.Fatal(err)
	}
	if made, _ := filepath.Glob(filepath.Join(shell.Dir, "*")); len(made) > 0 {
		t.Fatalf("the shell made %q", made)
	}
	return strings.Split(strings.TrimSuffix(string(output), "\x00"), "\x00")
}

func TestAShellReadsWhatWasMeant(t *testing.T) {
	for _, socket := range hostile {
		list := disks()
		got := words(t, render(t, socket, "web01", list).QEMU)
		if len(got) != 4*len(list) {
			t.Fatalf("%s: %d words for %d disks", socket, len(got), len(list))
		}
		nodes := map[string]bool{}
		for i, d := range list {
			word := got[4*i : 4*i+4]
			var b blockdev
			if err := json.Unmarshal([]byte(word[1]), &b); err != nil {
				t.Fatal(err)
			}
			if word[0] != "-blockdev" || b.Server.Path != socket || b.Server.Type != "unix" || b.Export != "web01/"+d.ID {
				t.Fatalf("disk %q of %q: %q", d.ID, socket, word)
			}
			var device struct{ Drive, ID string }
			if err := json.Unmarshal([]byte(word[3]), &device); err != nil {
				t.Fatal(err)
			}
			if word[2] != "-device" || device.Drive != b.Node || device.ID != b.Node || len(b.Node) > 31 || nodes[b.Node] {
				t.Fatalf("disk %q has the node %q: %q", d.ID, b.Node, word)
			}
			nodes[b.Node] = true
		}
	}
}

type blockdev struct {
	Node   string `json:"node-name"`
	Export string
	Server struct{ Type, Path string }
}

// domain is what libvirt would read of the XML.
type domain struct {
	Arguments struct {
		Values []struct {
			Value string `xml:"value,attr"`
		} `xml:"arg"`
	} `xml:"domain>commandline"`
	Disks []struct {
		Driver struct {
			Error string `xml:"error_policy,attr"`
			Cache string `xml:"cache,attr"`
		} `xml:"driver"`
		Source struct {
			Protocol string `xml:"protocol,attr"`
			Name     string `xml:"name,attr"`
			Host     struct {
				Transport string `xml:"transport,attr"`
				Socket    string `xml:"socket,attr"`
			} `xml:"host"`
			Reconnect struct {
				Delay int `xml:"delay,attr"`
			} `xml:"reconnect"`
		} `xml:"source"`
		BlockIO struct {
			Logical int `xml:"logical_block_size,attr"`
		} `xml:"blockio"`
		Target struct {
			Dev string `xml:"dev,attr"`
		} `xml:"target"`
	} `xml:"devices>disk"`
}

func TestXMLSaysWhatTheArgumentsSay(t *testing.T) {
	for _, socket := range hostile {
		list := disks()
		lines := render(t, socket, "web01", list)
		var read domain
		if err := xml.Unmarshal([]byte("<both>"+lines.LibvirtXML+"</both>"), &read); err != nil {
			t.Fatalf("%s: %v", socket, err)
		}
		var values []string
		for _, v := range read.Arguments.Values {
			values = append(values, v.Value)
		}
		if want := words(t, lines.QEMU); !slices.Equal(values, want) {
			t.Fatalf("%s: libvirt would pass on\n%q\nnot\n%q", socket, values, want)
		}
		if len(read.Disks) != len(list) {
			t.Fatalf("%s: %d disks of %d", socket, len(read.Disks), len(list))
		}
		for i, d := range read.Disks {
			if d.Source.Name != "web01/"+list[i].ID || d.Source.Host.Socket != socket || d.Source.Host.Transport != "unix" ||
				d.Source.Protocol != "nbd" || d.Source.Reconnect.Delay != 60 || d.Driver.Error != "stop" || d.Driver.Cache != "none" {
				t.Fatalf("%s: disk %d is %+v", socket, i, d)
			}
			if large := list[i].LogicalSectorSize == 4096; large != (d.BlockIO.Logical == 4096) {
				t.Fatalf("disk %d has sectors of %d", i, d.BlockIO.Logical)
			}
		}
	}
}

func TestTheNamespaceIsLibvirts(t *testing.T) {
	decoder := xml.NewDecoder(strings.NewReader(render(t, hostile[0], "web01", disks()).LibvirtXML))
	for {
		token, err := decoder.Token()
		if err != nil {
			t.Fatalf("no arguments are found: %v", err)
		}
		if start, is := token.(xml.StartElement); is && start.Name.Local == "commandline" {
			if start.Name.Space != "http://libvirt.org/schemas/domain/qemu/1.0" {
				t.Fatalf("the namespace is %q", start.Name.Space)
			}
			return
		}
	}
}

func TestTargetsGoOnAfterZ(t *testing.T) {
	var list []attachment.Disk
	for i := range 26*27 + 1 {
		list = append(list, attachment.Disk{ID: fmt.Sprint("d", i), LogicalSectorSize: 512})
	}
	var read domain
	if err := xml.Unmarshal([]byte("<both>"+render(t, hostile[0], "web01", list).LibvirtXML+"</both>"), &read); err != nil {
		t.Fatal(err)
	}
	for i, want := range map[int]string{0: "vda", 25: "vdz", 26: "vdaa", 51: "vdaz", 52: "vdba", 701: "vdzz", 702: "vdaaa"} {
		if got := read.Disks[i].Target.Dev; got != want {
			t.Errorf("disk %d is %s, want %s", i, got, want)
		}
	}
}

func TestURIsNameTheSocketAndTheExport(t *testing.T) {
	for _, socket := range hostile {
		uri, err := url.Parse(attachment.URI(socket, "web01", "root"))
		if err != nil || uri.Scheme != "nbd+unix" || uri.Host != "" || uri.Path != "/web01/root" || uri.Query().Get("socket") != socket ||
			strings.Contains(uri.RawQuery, "+") {
			t.Errorf("%s: %v, %v", socket, uri, err)
		}
	}
}

func TestWhatCannotBeWrittenIsRefused(t *testing.T) {
	good := []attachment.Disk{{ID: "root", LogicalSectorSize: 512}}
	for name, test := range map[string]struct {
		socket, vm string
		disks      []attachment.Disk
	}{
		"a relative socket":  {"nbd.sock", "web01", good},
		"no socket":          {"", "web01", good},
		"a line break":       {"/run/a\nb", "web01", good},
		"a zero byte":        {"/run/a\x00b", "web01", good},
		"an escape":          {"/run/\x1b[2J", "web01", good},
		"bytes, no text":     {"/run/\xff", "web01", good},
		"no VM":              {"/run/nbd", "", good},
		"a VM with a quote":  {"/run/nbd", "web'01", good},
		"a disk with commas": {"/run/nbd", "web01", []attachment.Disk{{ID: "root,id=x"}}},
	} {
		if lines, err := attachment.Render(test.socket, test.vm, test.disks); err == nil || failure.Find(err).Class != failure.Invalid {
			t.Errorf("%s: %v, %v", name, lines, err)
		}
	}
}

func TestNotesNameWhatTheOperatorDoes(t *testing.T) {
	notes := strings.Join(render(t, hostile[0], "web01", disks()).Notes, "\n")
	for _, named := range []string{"all disks", "take out each <disk>", "werror=stop", "virsh resume", "--nbd-user libvirt-qemu", "<boot>"} {
		if !strings.Contains(notes, named) {
			t.Errorf("no note names %q", named)
		}
	}
}
