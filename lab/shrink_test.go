package lab

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// shrink takes away, one by one, what passes of the tenant of an ask, as long as
// what happens still differs from what explain says: what is left is all that it takes
// to see it. It goes on for two minutes at most.
func (r *trial) shrink(t *testing.T, a *ask) {
	file := filepath.Join(t.TempDir(), "part.yaml")
	parts := strings.Split(a.tenant.passing, "---\n")[1:]
	for i, until := len(parts)-1, time.Now().Add(2*time.Minute); i >= 0 && time.Now().Before(until); i-- {
		written(t, file, parts[i])
		if _, err := r.lab.moire("delete", "-f", file); err != nil {
			continue
		}
		r.calm(t)
		if b, why := r.again(t, a); why != "" {
			t.Logf("with less intent, too: %s", r.reproduction(b, why))
			parts = slices.Delete(parts, i, i+1)
			continue
		}
		r.lab.must(t, "apply", "-f", file)
		r.calm(t)
	}
	var all string
	a.tenant.passing = ""
	for _, p := range parts {
		a.tenant.passing += "---\n" + p
	}
	for _, x := range r.tenants {
		all += x.passing
	}
	written(t, r.file, all)
}

// again asks the same once more, and says how it differs.
func (r *trial) again(t *testing.T, a *ask) (*ask, string) {
	b, began := *a, time.Now()
	b.id = fmt.Sprintf("%016x", rand.Uint64())
	r.send(&b, 3*time.Second)
	return &b, r.judge(t, []*ask{&b}, began)[&b]
}
