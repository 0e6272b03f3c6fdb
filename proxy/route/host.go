package route

import "bytes"

// badHost is why an authority is refused (400).
const badHost = "the host is not a name, an address, or either with a port"

// lower gives the canonical form of a byte of a host name; 0: not allowed.
var lower = func() (c [256]uint8) {
	for i := byte('a'); i <= 'z'; i++ {
		c[i], c[i-0x20] = i, i
	}
	for i := byte('0'); i <= '9'; i++ {
		c[i] = i
	}
	c['-'], c['_'], c['.'] = '-', '_', '.'
	return c
}()

// authority puts the canonical host of an authority into s: lower case, no
// port, no trailing dot. An empty authority is an empty host.
func (s *Scratch) authority(b []byte) bool {
	s.hostLen, s.labels, s.hostHash = 0, 0, seed
	if len(b) == 0 {
		return true
	}
	if b[0] == '[' {
		return s.bracketed(b)
	}
	n := 0
	for i, c := range b {
		l := lower[c]
		if l == 0 {
			if c != ':' || !port(b[i+1:]) {
				return false
			}
			break
		}
		if n == len(s.host) {
			return false
		}
		s.host[n] = l
		n++
	}
	if n > 0 && s.host[n-1] == '.' {
		n--
	}
	s.hostLen = n
	return s.split()
}

// bracketed is an IPv6 address: one label.
func (s *Scratch) bracketed(b []byte) bool {
	end := bytes.IndexByte(b, ']')
	if end < 2 || end > 63 {
		return false
	}
	for i, c := range b[1:end] {
		if !isHex(c) && c != ':' && c != '.' {
			return false
		}
		if 'A' <= c && c <= 'F' {
			c |= 0x20
		}
		s.host[i+1] = c
	}
	s.host[0], s.host[end] = '[', ']'
	s.hostLen, s.labels = end+1, 1
	s.hostHash = element(seed, s.host[:end+1])
	s.hosts[0], s.starts[0] = s.hostHash, 0
	rest := b[end+1:]
	return len(rest) == 0 || rest[0] == ':' && port(rest[1:])
}

func port(b []byte) bool {
	if len(b) > 5 {
		return false
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// split hashes the host label by label from the right, so that hosts[k-1] is
// the hash of its last k labels.
func (s *Scratch) split() bool {
	end := s.hostLen
	for i := s.hostLen - 1; i >= -1; i-- {
		if i >= 0 && s.host[i] != '.' {
			continue
		}
		if i+1 == end {
			return false
		}
		s.hostHash = element(s.hostHash, s.host[i+1:end])
		if s.labels < len(s.hosts) {
			s.hosts[s.labels], s.starts[s.labels] = s.hostHash, uint8(i+1)
		}
		s.labels++
		end = i
	}
	return true
}
