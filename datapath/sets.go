package datapath

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"maps"
	"slices"

	"moire.dev/moire/datapath/bpf"
	"moire.dev/moire/snapshot/policy"
)

type digest = [32]byte

const setHasClasses = 0x80000000

// setBook holds the flattened policy sets in the kernel. A set never changes:
// other content is another set under another number, and endpoints switch from
// one to the other in one write.
type setBook struct {
	rules   *ruleBook
	sets    *table[uint32, bpf.MoireSetRow]
	classes *table[bpf.MoireRouteKey, uint32]
	entries *table[bpf.MoirePolicyKey, bpf.MoireVerdict]
	ids     map[digest]uint32
	keys    map[uint32]setKeys
	next    uint32
}

// setKeys are the rows of one set.
type setKeys struct {
	classes map[bpf.MoireRouteKey]uint32
	entries map[bpf.MoirePolicyKey]bpf.MoireVerdict
}

// load reads the tables. Rows of sets that were not written to the end (they
// have no row in sets) are removed by prune.
func (b *setBook) load() error {
	if err := inOrder(b.sets.read, b.classes.read, b.entries.read); err != nil {
		return err
	}
	b.ids, b.keys = map[digest]uint32{}, map[uint32]setKeys{}
	for id, row := range b.sets.rows {
		b.ids[row.Digest] = id
		b.next = max(b.next, id&^setHasClasses)
		b.keys[id] = newSetKeys()
	}
	for k, v := range b.classes.rows {
		b.next = max(b.next, k.Vni&^setHasClasses)
		b.rowsOf(k.Vni).classes[k] = v
	}
	for k, v := range b.entries.rows {
		b.next = max(b.next, k.Set&^setHasClasses)
		b.rowsOf(k.Set).entries[k] = v
	}
	return nil
}

func newSetKeys() setKeys {
	return setKeys{map[bpf.MoireRouteKey]uint32{}, map[bpf.MoirePolicyKey]bpf.MoireVerdict{}}
}

func (b *setBook) rowsOf(id uint32) setKeys {
	if _, ok := b.keys[id]; !ok {
		b.keys[id] = newSetKeys()
	}
	return b.keys[id]
}

// intern returns the number of the set, writing it when it is not there. With
// verify, what is wrong in a set that is there gets repaired.
func (b *setBook) intern(s *policy.Set, d digest, verify bool) (uint32, error) {
	id, known := b.ids[d]
	if known && !verify {
		return id, nil
	}
	table := s.Flatten()
	if !known {
		b.next = (b.next + 1) &^ setHasClasses
		id = max(b.next, 1)
		if len(table.Classes) > 0 {
			id |= setHasClasses
		}
	}
	want, err := b.rowsFor(id, &table)
	if err != nil {
		return 0, err
	}
	if err := b.write(id, want); err != nil {
		return 0, err
	}
	if err := b.sets.put(id, bpf.MoireSetRow{Digest: d}); err != nil {
		return 0, err
	}
	b.ids[d] = id
	return id, nil
}

// write makes the rows of a set what is wanted.
func (b *setBook) write(id uint32, want setKeys) error {
	if err := b.entries.grow(want.entries); err != nil {
		return err
	}
	if err := b.classes.grow(want.classes); err != nil {
		return err
	}
	have := b.rowsOf(id)
	for k := range have.entries {
		if _, ok := want.entries[k]; !ok {
			if err := b.entries.remove(k); err != nil {
				return err
			}
		}
	}
	for k := range have.classes {
		if _, ok := want.classes[k]; !ok {
			if err := b.classes.remove(k); err != nil {
				return err
			}
		}
	}
	b.keys[id] = want
	return nil
}

func (b *setBook) rowsFor(id uint32, t *policy.Table) (setKeys, error) {
	want := newSetKeys()
	for _, c := range t.Classes {
		want.classes[prefixKey(id, c.Prefix)] = c.Number
	}
	for _, e := range t.Entries {
		v, err := b.verdict(e.Verdict)
		if err != nil {
			return want, err
		}
		k := bpf.MoirePolicyKey{Bits: 96 + uint32(e.Bits), Set: id, Class: e.Class, Identity: uint32(e.Identity), Proto: e.Protocol}
		binary.BigEndian.PutUint16(k.Port[:], e.Port)
		want.entries[k] = v
	}
	return want, nil
}

func (b *setBook) verdict(v policy.Verdict) (out bpf.MoireVerdict, err error) {
	out.Tier = uint8(v.Tier)
	out.Allow, out.ShadowAllow = flag(v.Allow), flag(v.Shadow.Allow)
	if v.Proxy {
		out.Allow = flagProxied
	}
	if out.Rule, err = b.rules.number(v.Rule); err != nil {
		return out, err
	}
	out.Shadow, err = b.rules.number(v.Shadow.ID)
	return out, err
}

func flag(b bool) uint8 {
	if b {
		return 1
	}
	return 0
}

// prune removes the sets that are not in use; nobody may refer to them.
func (b *setBook) prune(used map[uint32]bool) error {
	for _, id := range slices.Collect(maps.Keys(b.keys)) {
		if used[id] {
			continue
		}
		if row, ok := b.sets.rows[id]; ok {
			if err := b.sets.remove(id); err != nil {
				return err
			}
			delete(b.ids, row.Digest)
		}
		if err := b.write(id, newSetKeys()); err != nil {
			return err
		}
		delete(b.keys, id)
	}
	return nil
}

// used lists the rules that the sets refer to.
func (b *setBook) used(into map[uint32]bool) {
	for _, v := range b.entries.rows {
		into[v.Rule], into[v.Shadow] = true, true
	}
}

// digestOf names the content of a set.
func digestOf(s *policy.Set) digest {
	h := sha256.New()
	text(h, string(s.Isolated), string(s.AuditIsolated), string(s.Default.ID))
	numbers(h, flag(s.Default.Allow), len(s.Rules))
	for i := range s.Rules {
		r := &s.Rules[i]
		text(h, string(r.ID))
		// Of requests a table knows only whether there are any.
		numbers(h, uint8(r.Tier), uint8(r.Action), flag(r.Audit), flag(len(r.Requests) > 0), len(r.Peers), len(r.Ports))
		for _, p := range r.Peers {
			numbers(h, flag(p.Anyone), len(p.Identities), len(p.Except))
			for _, id := range p.Identities {
				numbers(h, int(id))
			}
			text(h, p.CIDR.String())
			for _, e := range p.Except {
				text(h, e.String())
			}
		}
		for _, p := range r.Ports {
			numbers(h, p.Protocol, int(p.First), int(p.Last))
		}
	}
	return digest(h.Sum(nil))
}

func text(h hash.Hash, all ...string) {
	for _, s := range all {
		numbers(h, len(s))
		h.Write([]byte(s))
	}
}

func numbers(h hash.Hash, all ...any) {
	for _, n := range all {
		switch n := n.(type) {
		case int:
			h.Write(binary.LittleEndian.AppendUint64(nil, uint64(n)))
		case uint8:
			h.Write([]byte{n})
		}
	}
}
