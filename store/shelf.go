package store

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"reflect"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// shelfLog is how many changes a shelf remembers for watches that resume.
const shelfLog = 8192

// objectKey names an object of one resource.
type objectKey struct{ namespace, name string }

func keyOf(o *unstructured.Unstructured) objectKey {
	return objectKey{o.GetNamespace(), o.GetName()}
}

// entry is what the world says of one object.
type entry struct {
	from   *unstructured.Unstructured // as the World gave it
	object map[string]any             // complete: kind, uid; nobody changes it
	rev    int64                      // when it last changed
}

// change is one step of a shelf; nil means that there was, or is, no entry.
type change struct {
	rev      int64
	key      objectKey
	old, now *entry
}

// shelf is the world of one resource at one moment. It never changes; the next
// one takes its place and then closes next.
type shelf struct {
	rev     int64 // of the last change
	removed int64 // of the last change that removed an entry
	since   int64 // log holds every change after this revision
	entries map[objectKey]*entry
	log     []change
	next    chan struct{}
}

func newShelf(rev int64) *shelf {
	return &shelf{rev: rev, removed: rev, since: rev, entries: map[objectKey]*entry{}, next: make(chan struct{})}
}

// entryRev is the world's part of an object's resourceVersion. What has no
// entry takes the revision of the last removal, so that the version of an
// object grows also when its entry goes.
func (s *shelf) entryRev(k objectKey) int64 {
	if e := s.entries[k]; e != nil {
		return e.rev
	}
	return s.removed
}

// follow returns the shelf that shows objects, or s itself if nothing changed.
func (s *shelf) follow(kind string, objects []*unstructured.Unstructured) *shelf {
	rev := s.rev + worldStep
	n := &shelf{rev: rev, removed: s.removed, since: s.since, entries: make(map[objectKey]*entry, len(objects)), next: make(chan struct{})}
	var changes []change
	for _, o := range objects {
		k := keyOf(o)
		if _, twice := n.entries[k]; twice || k.name == "" {
			continue
		}
		old := s.entries[k]
		if old != nil && (old.from == o || reflect.DeepEqual(old.from.Object, o.Object)) {
			n.entries[k] = old
			continue
		}
		e := &entry{from: o, object: complete(kind, o), rev: rev}
		n.entries[k] = e
		changes = append(changes, change{rev, k, old, e})
	}
	for k, old := range s.entries {
		if n.entries[k] == nil {
			changes = append(changes, change{rev, k, old, nil})
			n.removed = rev
		}
	}
	if len(changes) == 0 {
		return s
	}
	// Appending never touches what readers of the old shelf see of the log.
	n.log = append(s.log, changes...)
	if over := len(n.log) - shelfLog; over > shelfLog/2 {
		n.since = n.log[over-1].rev
		n.log = append([]change(nil), n.log[over:]...)
	}
	return n
}

// at returns the entries as they were at revision rev; false if that is
// forgotten or was never.
func (s *shelf) at(rev int64) (map[objectKey]*entry, bool) {
	switch {
	case rev == s.rev:
		return s.entries, true
	case rev < s.since, rev > s.rev, (s.rev-rev)%worldStep != 0:
		return nil, false
	}
	was := maps.Clone(s.entries)
	for i := len(s.log) - 1; i >= 0 && s.log[i].rev > rev; i-- {
		if c := s.log[i]; c.old != nil {
			was[c.key] = c.old
		} else {
			delete(was, c.key)
		}
	}
	return was, true
}

// after returns the changes after revision rev; false if they are forgotten.
func (s *shelf) after(rev int64) ([]change, bool) {
	if rev < s.since {
		return nil, false
	}
	i := len(s.log)
	for i > 0 && s.log[i-1].rev > rev {
		i--
	}
	return s.log[i:], true
}

// complete fills in what the API promises of every object.
func complete(kind string, o *unstructured.Unstructured) map[string]any {
	out := maps.Clone(o.Object)
	out["apiVersion"], out["kind"] = group+"/"+version, kind
	meta, _ := out["metadata"].(map[string]any)
	meta = maps.Clone(meta)
	if uid, _ := meta["uid"].(string); uid == "" {
		meta["uid"] = worldUID(kind, keyOf(o), o.GetCreationTimestamp().String())
	}
	delete(meta, "resourceVersion")
	out["metadata"] = meta
	return out
}

// worldUID is stable for as long as the node reports the same thing.
func worldUID(kind string, k objectKey, created string) string {
	h := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%s\x00%s", kind, k.namespace, k.name, created))
	h[6], h[8] = h[6]&0x0f|0x80, h[8]&0x3f|0x80 // version 8, custom
	return fmt.Sprintf("%x-%x-%x-%x-%x", h[0:4], h[4:6], h[6:8], h[8:10], h[10:16])
}

// lay returns the declared object with the world's status over it, or the
// world's object if none is declared; nil if there is neither. The result
// shares what it does not change with its sources.
func (s *shelf) lay(k objectKey, declared map[string]any) *unstructured.Unstructured {
	return layEntry(declared, s.entries[k], s.entryRev(k))
}

func layEntry(declared map[string]any, e *entry, rev int64) *unstructured.Unstructured {
	intent := "1" // older than every object that is declared
	out := declared
	switch {
	case declared == nil && e == nil:
		return nil
	case declared == nil:
		out = maps.Clone(e.object)
	default:
		out = maps.Clone(declared)
		if e != nil {
			if status, ok := e.object["status"]; ok {
				out["status"] = status
			}
		}
	}
	meta, _ := out["metadata"].(map[string]any)
	meta = maps.Clone(meta)
	if v, _ := meta["resourceVersion"].(string); v != "" {
		intent = v
	}
	meta["resourceVersion"] = joinVersion(intent, rev)
	out["metadata"] = meta
	return &unstructured.Unstructured{Object: out}
}
