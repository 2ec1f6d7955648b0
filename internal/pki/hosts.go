package pki

import (
	"crypto/x509"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"vmreplica/internal/failure"
)

// hostNames are what a certificate serves as.
type hostNames struct {
	dns       []string
	addresses []net.IP
}

// maxHosts bounds the hosts of one certificate, which every handshake carries.
const maxHosts = 100

var (
	labelPattern  = regexp.MustCompile(`^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?$`)
	numberPattern = regexp.MustCompile(`^[0-9]+$`)
)

// parseHosts tells addresses from names. An address may stand in brackets.
func parseHosts(hosts []string) (hostNames, error) {
	var names hostNames
	if len(hosts) > maxHosts {
		return names, failure.New(failure.Invalid, failure.ReasonLimit,
			"%d hosts are more than the %d of one certificate", len(hosts), maxHosts)
	}
	for _, host := range hosts {
		bare := strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
		if address, err := netip.ParseAddr(bare); err == nil && address.Zone() == "" {
			names.addAddress(address)
			continue
		}
		name := strings.ToLower(host)
		if !validName(name) {
			return hostNames{}, failure.New(failure.Invalid, failure.ReasonInvalidName,
				"host %q is neither a DNS name nor an address", host).
				Try("Give it as it is dialled, without scheme, port, zone and wildcard.")
		}
		names.addName(name)
	}
	return names, nil
}

// validName is a DNS name of labels, the last one no number so that no address is misread as a name.
func validName(name string) bool {
	labels := strings.Split(name, ".")
	if len(name) > 253 || numberPattern.MatchString(labels[len(labels)-1]) {
		return false
	}
	return !slices.ContainsFunc(labels, func(label string) bool { return !labelPattern.MatchString(label) })
}

func (h *hostNames) addName(name string) {
	if !slices.Contains(h.dns, name) {
		h.dns = append(h.dns, name)
	}
}

func (h *hostNames) addAddress(address netip.Addr) {
	ip := net.IP(address.Unmap().AsSlice())
	if !slices.ContainsFunc(h.addresses, ip.Equal) {
		h.addresses = append(h.addresses, ip)
	}
}

// complete takes the hosts of an old certificate where none are given, and adds loopback for an agent.
func (h hostNames) complete(role string, old *x509.Certificate) (hostNames, error) {
	if !serves(role) {
		return h, nil
	}
	if len(h.dns)+len(h.addresses) == 0 && old != nil {
		h = hostNames{dns: slices.Clone(old.DNSNames), addresses: slices.Clone(old.IPAddresses)}
	}
	if role == "replica" && len(h.dns)+len(h.addresses) == 0 {
		return hostNames{}, failure.New(failure.Invalid, failure.ReasonInvalidArgument,
			"a replica without a host cannot be dialled").
			Try("Give the name or address by which primaries dial it: --host HOST.")
	}
	h.addName("localhost")
	h.addAddress(netip.AddrFrom4([4]byte{127, 0, 0, 1}))
	h.addAddress(netip.IPv6Loopback())
	return h, nil
}

func (h hostNames) list() []string {
	list := slices.Clone(h.dns)
	for _, address := range h.addresses {
		list = append(list, address.String())
	}
	return list
}
