package tls

import (
	"crypto/x509"
	"sync"
	"time"
)

// Verified remembers peers whose chain was verified, so that their next full
// handshake costs no signature of a CA. That the peer holds the key is checked
// by every handshake. A nil Verified remembers nothing.
type Verified struct {
	mu          sync.Mutex
	most        int
	young, aged map[[32]byte]verified
	hits, made  uint64
}

// verified is what was found about a chain.
type verified struct {
	uris  []string
	until time.Time
	leaf  *x509.Certificate // keeps crypto/tls from parsing it again
}

// NewVerified remembers up to most peers; those not seen for longest go first.
func NewVerified(most int) *Verified {
	return &Verified{most: most, young: map[[32]byte]verified{}}
}

// Counts says how many handshakes asked and how many of them needed no
// verification of the chain.
func (v *Verified) Counts() (asked, known uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.made + v.hits, v.hits
}

func (v *Verified) get(key [32]byte, now time.Time) (verified, bool) {
	if v == nil {
		return verified{}, false
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	found, ok := v.young[key]
	if !ok {
		if found, ok = v.aged[key]; ok {
			v.add(key, found)
		}
	}
	if !ok || now.After(found.until) {
		v.made++
		return verified{}, false
	}
	v.hits++
	return found, true
}

func (v *Verified) put(key [32]byte, found verified, now time.Time) {
	if v == nil || now.After(found.until) {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.add(key, found)
}

// add puts into the young half; when that is full it becomes the aged one.
func (v *Verified) add(key [32]byte, found verified) {
	if _, ok := v.young[key]; !ok && len(v.young) >= max(v.most/2, 1) {
		v.aged, v.young = v.young, make(map[[32]byte]verified, v.most/2)
	}
	v.young[key] = found
}
