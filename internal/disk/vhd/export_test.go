package vhd

// Summed is a footer or header with the right checksum.
func Summed(p []byte) []byte {
	switch len(p) {
	case footerSize:
		f := footer(p)
		f.setIdentity(f.identity())
		return f[:]
	case headerSize:
		h := header(p)
		h.sum()
		return h[:]
	}
	return p
}
