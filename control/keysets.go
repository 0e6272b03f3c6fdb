package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"unicode/utf8"

	"moire.dev/moire/api/v1alpha1"
	"moire.dev/moire/compile"
	"moire.dev/moire/snapshot/l7"
)

// keyPrefix is where the rows of JWK sets are: one for each URI, so that all
// processes compile the same.
const keyPrefix = "keys/"

// codeNoKeys is the Problem of a Policy whose issuer's keys cannot be had, or
// not anew.
const codeNoKeys = "MOI2049"

// keySet is what is known of the JWK set at one URI.
type keySet struct {
	// JSON as it was when it was last fetched.
	JSON string `json:"json,omitempty"`
	// Until, seconds since 1970: then it is too old to be believed.
	Until int64 `json:"until,omitempty"`
	// Error says why there is no newer one.
	Error string `json:"error,omitempty"`
}

// keySets is everything that is known of JWK sets. It never changes.
type keySets struct {
	by   map[string]keySet
	have map[string]l7.KeySet // those with keys, as the compiler wants them
}

func newKeySets(by map[string]keySet) *keySets {
	k := &keySets{by: by, have: make(map[string]l7.KeySet, len(by))}
	for uri, s := range by {
		if s.JSON != "" {
			k.have[uri] = l7.KeySet{URI: uri, JSON: s.JSON, Until: s.Until}
		}
	}
	return k
}

func (k *keySets) sets() map[string]l7.KeySet {
	if k == nil {
		return nil
	}
	return k.have
}

func (k *keySets) find(uri string) (keySet, bool) {
	if k == nil {
		return keySet{}, false
	}
	s, ok := k.by[uri]
	return s, ok
}

// unkeyed are the Problems of Policies whose issuers' keys cannot be had.
func unkeyed(in *compile.Input, known *keySets, now int64) []v1alpha1.Problem {
	var out []v1alpha1.Problem
	for _, k := range slices.SortedFunc(keys(in.Policies), compareKeys) {
		for field, uri := range compile.KeyURIs(in.Policies[k]) {
			s, asked := known.find(uri)
			p := v1alpha1.Problem{Code: codeNoKeys, Object: "Policy " + k.String(), Field: field}
			switch {
			case !asked:
				p.Reason, p.Fix, p.Warning = "the keys have not been fetched yet; until then no token is believed", "wait a few seconds", true
			case s.Error == "":
				continue
			case s.JSON != "" && s.Until > now:
				p.Reason, p.Fix, p.Warning = s.Error+"; the keys that were fetched last stay in use for 12 to 24 hours", "mend the issuer, or correct the URI", true
			default:
				p.Reason, p.Fix = s.Error+"; no token is believed", "mend the issuer, correct the URI, or write the keys into jwks"
			}
			out = append(out, p)
		}
	}
	return out
}

// readKeySet checks a document that is said to be a JWK set, and makes it as
// small as it can be. Who verifies tokens looks closer.
func readKeySet(document []byte) (string, error) {
	var set struct {
		Keys []map[string]any `json:"keys"`
	}
	if err := json.Unmarshal(document, &set); err != nil || len(set.Keys) == 0 || !utf8.Valid(document) {
		return "", errors.New(`it is not a JWK set: {"keys": [...]} with at least one key`)
	}
	for _, k := range set.Keys {
		for _, secret := range []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"} {
			if k[secret] != nil {
				return "", errors.New("it has a key that is not public, which anybody could have taken: replace the keys of the issuer")
			}
		}
	}
	var small bytes.Buffer
	if err := json.Compact(&small, document); err != nil {
		return "", err
	}
	return small.String(), nil
}

// loadKeySets reads the rows of all JWK sets.
func (k *keeper) loadKeySets(ctx context.Context) error {
	by, err := loadRows[keySet](ctx, k, keyPrefix)
	if err != nil {
		return err
	}
	k.mu.Lock()
	same := k.keys != nil && maps.Equal(k.keys.by, by)
	if !same {
		k.keys = newKeySets(by)
	}
	k.mu.Unlock()
	if !same {
		k.wake()
	}
	return nil
}

// keySets is what is known of JWK sets; nil until load succeeded.
func (k *keeper) keySets() *keySets {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.keys
}

// saveKeySets writes what changed, nil to forget a set, and tells everybody.
func (k *keeper) saveKeySets(ctx context.Context, changed map[string]*keySet) error {
	if err := saveRows(ctx, k, keyPrefix, changed); err != nil {
		return err
	}
	k.mu.Lock()
	by := map[string]keySet{}
	if k.keys != nil {
		maps.Copy(by, k.keys.by)
	}
	merge(by, changed)
	k.keys, k.unsung = newKeySets(by), true
	k.mu.Unlock()
	k.wake()
	return nil
}

// loadRows reads the rows under a prefix. One that cannot be read is left out:
// what it said is found out anew.
func loadRows[V any](ctx context.Context, k *keeper, prefix string) (map[string]V, error) {
	rows, err := k.rows.List(ctx, prefix)
	if err != nil {
		return nil, fmt.Errorf("control: read the rows under %s: %w", prefix, err)
	}
	out := make(map[string]V, len(rows))
	for key, row := range rows {
		var v V
		if err := json.Unmarshal(row, &v); err != nil {
			k.log.Warn("a saved row cannot be read and is made anew", "row", key, "error", err)
			continue
		}
		out[key[len(prefix):]] = v
	}
	return out, nil
}

// saveRows writes rows under a prefix; nil removes one.
func saveRows[V any](ctx context.Context, k *keeper, prefix string, changed map[string]*V) error {
	for _, name := range slices.Sorted(maps.Keys(changed)) {
		var row []byte
		if v := changed[name]; v != nil {
			var err error
			if row, err = json.Marshal(v); err != nil {
				return err
			}
		}
		if _, err := k.rows.Commit(ctx, nil, map[string][]byte{prefix + name: row}); err != nil {
			return fmt.Errorf("control: save row %s: %w", prefix+name, err)
		}
	}
	return nil
}

// merge puts what changed into m; nil removes.
func merge[V any](m map[string]V, changed map[string]*V) {
	for name, v := range changed {
		if v == nil {
			delete(m, name)
		} else {
			m[name] = *v
		}
	}
}
