package balance

// Tried holds the endpoints that a request was sent to already, by index; the
// zero Tried is empty. Of more than eight the oldest are forgotten.
type Tried struct {
	n  uint8
	at [8]int32
}

// Add remembers i.
func (t *Tried) Add(i int) {
	t.at[t.n%8] = int32(i)
	if t.n++; t.n == 16 {
		t.n = 8
	}
}

// Has says whether i was tried. A nil Tried is empty.
func (t *Tried) Has(i int) bool {
	if t == nil {
		return false
	}
	for _, v := range t.at[:min(t.n, 8)] {
		if v == int32(i) {
			return true
		}
	}
	return false
}

func (t *Tried) empty() bool { return t == nil || t.n == 0 }
