package attachment

import (
	"fmt"
	"strings"
)

const qemuNamespace = "http://libvirt.org/schemas/domain/qemu/1.0"

// attribute escapes what stands between single quotes, in which the double ones of JSON stay readable.
var attribute = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "'", "&apos;")

// libvirtXML has the arguments for QEMU, for a libvirt that cannot say what they say, and the disks for one that can.
func libvirtXML(exported []export) string {
	var text strings.Builder
	text.WriteString("<!-- libvirt 9.0 and older: the namespace on the domain's element, the arguments below it -->\n")
	fmt.Fprintf(&text, "<domain type='kvm' xmlns:qemu='%s'>\n  <qemu:commandline>\n", qemuNamespace)
	for _, e := range exported {
		for _, argument := range []string{"-blockdev", e.blockdev(), "-device", e.device()} {
			fmt.Fprintf(&text, "    <qemu:arg value='%s'/>\n", attribute.Replace(argument))
		}
	}
	text.WriteString("  </qemu:commandline>\n</domain>\n")
	text.WriteString("<!-- newer libvirt: these among the devices instead -->\n")
	text.WriteString("<devices>\n")
	for _, e := range exported {
		text.WriteString(e.disk())
	}
	text.WriteString("</devices>\n")
	return text.String()
}

// disk is the element of one disk below devices.
func (e export) disk() string {
	blockIO := ""
	if size := e.LogicalSectorSize; size > 512 {
		blockIO = fmt.Sprintf("    <blockio logical_block_size='%d' physical_block_size='%d'/>\n", size, size)
	}
	return fmt.Sprintf(`  <disk type='network' device='disk'>
    <driver name='qemu' type='raw' cache='none' error_policy='stop' rerror_policy='stop' discard='unmap' detect_zeroes='off'/>
    <source protocol='nbd' name='%s'>
      <host transport='unix' socket='%s'/>
      <reconnect delay='%d'/>
    </source>
%s    <target dev='%s' bus='virtio'/>
  </disk>
`, attribute.Replace(e.name), attribute.Replace(e.socket), reconnectDelay, blockIO, e.target)
}
