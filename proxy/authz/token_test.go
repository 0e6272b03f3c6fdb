package authz

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"moire.dev/moire/snapshot/l7"
)

const (
	now    = int64(1_800_000_000)
	issuer = "https://issuer.example"
	uri    = issuer + "/keys"
)

// signer has one private key.
type signer struct {
	id        string
	algorithm jose.SignatureAlgorithm
	private   crypto.Signer
}

// signers are one of each kind of key, made once.
var signers = sync.OnceValue(func() map[string]signer {
	out := map[string]signer{}
	add := func(id string, a jose.SignatureAlgorithm, k crypto.Signer, err error) {
		if err != nil {
			panic(err)
		}
		out[id] = signer{id, a, k}
	}
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	for _, a := range accepted[:6] {
		add("rsa-"+string(a), a, r, err)
	}
	for curve, a := range map[elliptic.Curve]jose.SignatureAlgorithm{elliptic.P256(): jose.ES256, elliptic.P384(): jose.ES384, elliptic.P521(): jose.ES512} {
		k, err := ecdsa.GenerateKey(curve, rand.Reader)
		add("ec-"+string(a), a, k, err)
	}
	_, k, err := ed25519.GenerateKey(rand.Reader)
	add("ed", jose.EdDSA, k, err)
	return out
})

// public is the JWK of a signer, with more members.
func (s signer) public(more string) string {
	b, err := jose.JSONWebKey{Key: s.private.Public(), KeyID: s.id}.MarshalJSON()
	if err != nil {
		panic(err)
	}
	return strings.TrimSuffix(string(b), "}") + more + "}"
}

// sign makes a token of a payload, with more in its header.
func (s signer) sign(payload string, header map[jose.HeaderKey]any) string {
	o := &jose.SignerOptions{ExtraHeaders: header}
	js, err := jose.NewSigner(jose.SigningKey{Algorithm: s.algorithm, Key: jose.JSONWebKey{Key: s.private, KeyID: s.id}}, o)
	if err != nil {
		panic(err)
	}
	signed, err := js.Sign([]byte(payload))
	if err != nil {
		panic(err)
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		panic(err)
	}
	return text
}

func keySet(keys ...string) string { return `{"keys":[` + strings.Join(keys, ",") + `]}` }

// all are the public keys of all signers.
func all() string {
	var keys []string
	for _, s := range signers() {
		keys = append(keys, s.public(""))
	}
	return keySet(keys...)
}

func payload(more string) string {
	return fmt.Sprintf(`{"iss":%q,"sub":"anna","aud":"shop","exp":%d,"iat":%d%s}`, issuer, now+600, now-10, more)
}

func mustRead(t testing.TB, text string) *content {
	t.Helper()
	c, err := read(text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestEveryAlgorithm(t *testing.T) {
	c := mustRead(t, all())
	for id, s := range signers() {
		got, err := c.verify(s.sign(payload(`,"role":"admin"`), nil), issuer, now)
		if err != nil {
			t.Errorf("%s: %v", id, err)
			continue
		}
		if got.issuer != issuer || got.claims["role"][0] != "admin" {
			t.Errorf("%s: %+v", id, got)
		}
		forged := s.sign(payload(`,"role":"user"`), nil)
		parts, honest := strings.Split(forged, "."), strings.Split(s.sign(payload(`,"role":"admin"`), nil), ".")
		if _, err := c.verify(parts[0]+"."+honest[1]+"."+parts[2], issuer, now); err != errSignature {
			t.Errorf("%s: a changed payload: %v", id, err)
		}
	}
}

// encode makes a token of raw parts.
func encode(header, payload string, signature []byte) string {
	e := base64.RawURLEncoding
	return e.EncodeToString([]byte(header)) + "." + e.EncodeToString([]byte(payload)) + "." + e.EncodeToString(signature)
}

func TestTokensThatAreNotBelieved(t *testing.T) {
	c := mustRead(t, all())
	es, rs := signers()["ec-ES256"], signers()["rsa-RS256"]
	stranger := signers()["ed"]
	_, stranger.private, _ = ed25519.GenerateKey(rand.Reader)
	stranger.id = "nobody"
	rsaPublic, err := json.Marshal(jose.JSONWebKey{Key: rs.private.Public()})
	if err != nil {
		t.Fatal(err)
	}
	hs := func(secret []byte) string {
		js, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: jose.JSONWebKey{Key: secret, KeyID: rs.id}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		signed, err := js.Sign([]byte(payload("")))
		if err != nil {
			t.Fatal(err)
		}
		text, _ := signed.CompactSerialize()
		return text
	}
	good := es.sign(payload(""), nil)
	parts := strings.Split(good, ".")
	foreign := es
	foreign.id = rs.id
	asES384 := signers()["ec-ES384"]
	asES384.id = es.id
	at := func(claims string) string { return es.sign(fmt.Sprintf(`{"iss":%q,%s}`, issuer, claims), nil) }
	for name, text := range map[string]string{
		"empty":                     "",
		"garbage":                   "not a token",
		"alg none":                  encode(`{"alg":"none"}`, payload(""), nil),
		"alg None":                  encode(`{"alg":"None"}`, payload(""), nil),
		"no alg":                    encode(`{"typ":"JWT"}`, payload(""), []byte("x")),
		"HS256 with the public key": hs(rsaPublic),
		"HS256 with its modulus":    hs(rs.private.Public().(*rsa.PublicKey).N.Bytes()),
		"no signature":              parts[0] + "." + parts[1] + ".",
		"two parts":                 parts[0] + "." + parts[1],
		"five parts":                good + "..",
		"something behind it":       good + "x",
		"a space in front":          " " + good,
		"JSON form":                 `{"protected":"` + parts[0] + `","payload":"` + parts[1] + `","signature":"` + parts[2] + `"}`,
		"signature of zeros":        parts[0] + "." + parts[1] + "." + base64.RawURLEncoding.EncodeToString(make([]byte, 64)),
		"a key of nobody":           stranger.sign(payload(""), nil),
		"a key under another's id":  foreign.sign(payload(""), nil),
		"another curve":             asES384.sign(payload(""), nil),
		"its own key": func() string {
			js, _ := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: stranger.private}, &jose.SignerOptions{EmbedJWK: true})
			signed, _ := js.Sign([]byte(payload("")))
			text, _ := signed.CompactSerialize()
			return text
		}(),
		"critical":            es.sign(payload(""), map[jose.HeaderKey]any{"crit": []string{"exp"}, "exp": 1}),
		"b64":                 es.sign(payload(""), map[jose.HeaderKey]any{"crit": []string{"b64"}, "b64": true}),
		"logout token":        es.sign(payload(""), map[jose.HeaderKey]any{"typ": "logout+jwt"}),
		"typ is a number":     es.sign(payload(""), map[jose.HeaderKey]any{"typ": 1}),
		"another issuer":      es.sign(strings.Replace(payload(""), issuer, "https://other.example", 1), nil),
		"issuer with a slash": es.sign(strings.Replace(payload(""), issuer, issuer+"/", 1), nil),
		"two issuers":         es.sign(payload(`,"iss":"https://other.example"`), nil),
		"list of issuers":     at(fmt.Sprintf(`"iss2":1,"exp":%d,"iss":[%q,"b"]`, now+60, issuer)),
		"two roles":           es.sign(payload(`,"role":"user","role":"admin"`), nil),
		"no end":              at(`"sub":"anna"`),
		"ended":               at(fmt.Sprintf(`"exp":%d`, now-leeway)),
		"end is null":         at(`"exp":null`),
		"end is text":         at(`"exp":"tomorrow"`),
		"end is far":          at(`"exp":1e300`),
		"end is negative":     at(`"exp":-1`),
		"two ends":            at(fmt.Sprintf(`"exp":[%d,%d]`, now-100, now+100)),
		"early":               at(fmt.Sprintf(`"exp":%d,"nbf":%d`, now+900, now+leeway+1)),
		"of the future":       at(fmt.Sprintf(`"exp":%d,"iat":%d`, now+900, now+leeway+1)),
		"not JSON":            es.sign("hello", nil),
		"a list":              es.sign("[]", nil),
		"two objects":         es.sign(payload("")+payload(""), nil),
		"deep":                es.sign(payload(`,"a":`+strings.Repeat(`{"a":`, 40)+"1"+strings.Repeat("}", 40)), nil),
		"deeper than claims":  es.sign(payload(`,"a":`+strings.Repeat(`{"a":`, 12)+"1"+strings.Repeat("}", 12)), nil),
		"many claims":         es.sign(payload(`,"a":[`+strings.Repeat("1,", 600)+`1]`), nil),
		"long issuer":         es.sign(strings.Replace(payload(""), issuer, strings.Repeat("x", maxIssuer+1), 1), nil),
		"large":               es.sign(payload(`,"a":"`+strings.Repeat("x", maxToken)+`"`), nil),
	} {
		if got, err := c.verify(text, issuer, now); err == nil {
			t.Errorf("%s: believed: %+v", name, got)
		}
	}
	if _, err := c.verify(good, issuer, now); err != nil {
		t.Errorf("the honest one: %v", err)
	}
}

func TestTimesHaveLeeway(t *testing.T) {
	c, es := mustRead(t, all()), signers()["ec-ES256"]
	text := es.sign(fmt.Sprintf(`{"iss":%q,"exp":%d.5,"nbf":%d}`, issuer, now, now-60), nil)
	for at, want := range map[int64]error{now - 60 - leeway: nil, now - 61 - leeway: errEarly, now: nil, now + leeway - 1: nil, now + leeway: errEnded} {
		if _, err := c.verify(text, issuer, at); err != want {
			t.Errorf("at %d: %v, want %v", at-now, err, want)
		}
	}
}

func TestClaims(t *testing.T) {
	got, err := readClaims([]byte(`{"aud":["a","b"],"n":12345678901234567890,"f":1.50,"yes":true,"none":null,"roles":["x",1,true,null],"empty":[],"nothing":{},
		"realm":{"access":{"roles":["admin","user"]}},"https://a.example/roles":["r"],"scope":"read  write","scp":"one","list":[{"name":"p"},{"name":"q"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"aud": "[a b]", "n": "[12345678901234567890]", "f": "[1.50]", "yes": "[true]", "roles": "[1 true x]", "empty": "[]", "nothing": "[]",
		"realm": "[]", "realm.access": "[]", "realm.access.roles": "[admin user]", "https://a.example/roles": "[r]", "scope": "[read write]",
		"scp": "[one]", "list": "[]", "list.name": "[p q]",
	} {
		values, there := got[name]
		if !there || fmt.Sprint(values) != want {
			t.Errorf("%s is %v (there %v), want %s", name, values, there, want)
		}
	}
	if _, there := got["none"]; there {
		t.Error("a claim that is null is there")
	}
}

func TestKeySets(t *testing.T) {
	es := signers()["ec-ES256"]
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	small := signer{"weak", jose.RS256, weak}
	private, err := jose.JSONWebKey{Key: es.private, KeyID: "p"}.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	good := es.public("")
	for name, c := range map[string]struct {
		text string
		keys int
	}{
		"good":               {keySet(good), 1},
		"odd certificate":    {keySet(es.public(`,"x5c":["bm9uZQ=="],"x5t":"!","x5u":"::"`)), 1},
		"with its algorithm": {keySet(es.public(`,"alg":"ES256","use":"sig","key_ops":["verify"]`)), 1},
		"unknown beside":     {keySet(good, `{"kty":"XYZ"}`, `{"kty":"OKP","crv":"X25519","x":"AA"}`), 1},
		"empty":              {"", 0},
		"none":               {keySet(), 0},
		"not JSON":           {"<html>", 0},
		"a list":             {"[]", 0},
		"shared secret":      {keySet(`{"kty":"oct","k":"c2VjcmV0"}`), 0},
		"private":            {keySet(string(private)), 0},
		"for encryption":     {keySet(es.public(`,"use":"enc"`)), 0},
		"for wrapping":       {keySet(es.public(`,"key_ops":["wrapKey"]`)), 0},
		"another algorithm":  {keySet(es.public(`,"alg":"RS256"`)), 0},
		"shared algorithm":   {keySet(es.public(`,"alg":"HS256"`)), 0},
		"weak":               {keySet(small.public("")), 0},
		"twice the members":  {`{"keys":[` + good + `],"keys":[]}`, 0},
		"too many":           {keySet(strings.Split(strings.Repeat(good+"\n", maxKeys+1), "\n")[:maxKeys+1]...), 0},
		"too large":          {keySet(good) + strings.Repeat(" ", maxSet), 0},
		"deep":               {`{"keys":` + strings.Repeat("[", 300_000), 0},
	} {
		got, err := read(c.text)
		if c.keys == 0 {
			if err == nil {
				t.Errorf("%s: taken with %d keys", name, len(got.keys))
			}
			continue
		}
		if err != nil || len(got.keys) != c.keys {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

func TestKeysThatStayAreKept(t *testing.T) {
	old, err := NewKeys([]l7.KeySet{{URI: uri, JSON: all(), Until: now + 60}, {URI: "broken", JSON: "x"}}, nil)
	if err == nil || !strings.Contains(err.Error(), "broken") {
		t.Errorf("a broken set: %v", err)
	}
	c, ok := old.find(uri, now)
	if !ok {
		t.Fatal("the good set is not there")
	}
	if _, ok := old.find(uri, now+60); ok {
		t.Error("a set that is too old is believed")
	}
	if _, ok := old.find("broken", now); ok {
		t.Error("a broken set is there")
	}
	var none *Keys
	if _, ok := none.find(uri, now); ok {
		t.Error("no keys have a set")
	}
	later, err := NewKeys([]l7.KeySet{{URI: uri, JSON: c.json, Until: now + 600}}, old)
	if err != nil {
		t.Fatal(err)
	}
	if again, ok := later.find(uri, now+60); !ok || again != c {
		t.Error("the same set was made anew, or its new time does not count")
	}
	changed, err := NewKeys([]l7.KeySet{{URI: uri, JSON: keySet(signers()["ed"].public(""))}}, later)
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := changed.find(uri, now); again == c {
		t.Error("another set is the same")
	}
}

// FuzzToken: nothing that a caller sends is believed, takes long or panics.
func FuzzToken(f *testing.F) {
	c := mustRead(f, all())
	for _, s := range signers() {
		f.Add(s.sign(payload(`,"role":["a"]`), nil))
	}
	f.Add(encode(`{"alg":"none"}`, payload(""), nil))
	f.Fuzz(func(t *testing.T, text string) {
		_, err := c.verify(text, "https://nobody.example", now)
		if err == nil {
			t.Errorf("believed: %q", text)
		}
		_, bad := read(text)
		for _, err := range []error{err, bad} {
			if err != nil && strings.HasPrefix(err.Error(), "it cannot be read") {
				t.Errorf("%q: %v", text, err)
			}
		}
	})
}
