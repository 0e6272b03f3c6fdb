package config_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"moire.dev/moire/proxy/config"
	"moire.dev/moire/snapshot/l7"
)

// certify writes a certificate of its own and its key.
func certify(t *testing.T, chain, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"shop.example.com"}}
	der, err := x509.CreateCertificate(rand.Reader, c, c, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	write(t, chain, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	write(t, key, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})))
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestExamples: the files that people start from load, and mean what they say.
func TestExamples(t *testing.T) {
	folder := t.TempDir()
	certify(t, filepath.Join(folder, "edge.pem"), filepath.Join(folder, "edge.key"))
	certify(t, filepath.Join(folder, "services-ca.pem"), filepath.Join(folder, "unused.key"))
	files, err := filepath.Glob("../../examples/proxy/*.yaml")
	if err != nil || len(files) != 3 {
		t.Fatalf("%d examples, %v", len(files), err)
	}
	loaded := map[string]*l7.Config{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		copied := filepath.Join(folder, filepath.Base(file))
		write(t, copied, string(text))
		cfg, err := config.Load(copied)
		if err != nil {
			t.Errorf("%s:\n%v", file, err)
			continue
		}
		loaded[filepath.Base(file)] = cfg
	}
	if t.Failed() {
		return
	}
	split := loaded["split.yaml"]
	if b := split.Routes[0].Rules[1].Backends; *b[0].Weight != 90 || *b[1].Weight != 10 || time.Duration(split.Routes[0].Rules[1].Timeouts.Backend) != 3*time.Second {
		t.Errorf("split.yaml: %+v", split.Routes[0].Rules[1])
	}
	mtls := loaded["mtls.yaml"]
	if s := mtls.Listeners[1].TLS; !strings.Contains(s.ClientCA, "BEGIN CERTIFICATE") || s.ClientCAFile != "" || s.MinVersion != "1.3" || len(s.Callers) != 2 {
		t.Errorf("mtls.yaml: %+v", s)
	}
	if c := mtls.Clusters[0].TLS; !strings.Contains(c.CA, "BEGIN CERTIFICATE") || c.CAFile != "" {
		t.Errorf("mtls.yaml: %+v", c)
	}
	if c := mtls.Certificates[0]; c.KeyFile != filepath.Join(folder, "edge.key") {
		t.Errorf("mtls.yaml: the key is looked for at %s", c.KeyFile)
	}
	pass := loaded["passthrough.yaml"]
	if r := pass.Routes[2]; r.Kind != l7.TCPRoute || pass.Listeners[0].Protocol != l7.TLS {
		t.Errorf("passthrough.yaml: %+v", r)
	}
}

func TestLoadFiles(t *testing.T) {
	folder := t.TempDir()
	at := func(name string) string { return filepath.Join(folder, name) }
	certify(t, at("a.pem"), at("a.key"))
	certify(t, at("b.pem"), at("b.key"))
	write(t, at("empty.pem"), "")
	load := func(text string) string {
		write(t, at("proxy.yaml"), text)
		_, err := config.Load(at("proxy.yaml"))
		if err == nil {
			return ""
		}
		var one config.Problem
		if !errors.As(err, &one) || one.File != at("proxy.yaml") {
			t.Errorf("not a Problem of the file: %v", err)
		}
		return strings.ReplaceAll(err.Error(), folder+"/", "")
	}
	const head = "name: edge\nlisteners:\n- name: web\n  address: 0.0.0.0:443\n  tls:\n    certificates: [c]\n"
	for _, c := range []struct{ text, want string }{
		{head + "certificates:\n- {name: c, chainFile: a.pem, keyFile: a.key}\n", ""},
		{head + "certificates:\n- {name: c, chainFile: " + at("a.pem") + ", keyFile: a.key}\n", ""},
		{head + "certificates:\n- {name: c, chainFile: a.pem, keyFile: b.key}\n", "proxy.yaml:8: certificates[0]: the chain and the key do not make a certificate: private key does not match public key; write the PEM text of the chain, leaf first, and of its own private key"},
		{head + "certificates:\n- {name: c, chainFile: a.key, keyFile: a.pem}\n", "proxy.yaml:8: certificates[0]: the chain and the key do not make a certificate: "},
		{head + "certificates:\n- {name: c, chainFile: gone.pem, keyFile: a.key}\n", "proxy.yaml:8: certificates[0].chainFile: cannot be read: open gone.pem: no such file or directory; write the path of a file that this user can read"},
		{head + "    clientCAFile: a.pem\ncertificates:\n- {name: c, chainFile: a.pem, keyFile: a.key}\n", ""},
		{head + "    clientCAFile: gone.pem\ncertificates:\n- {name: c, chainFile: a.pem, keyFile: a.key}\n", "proxy.yaml:7: listeners[0].tls.clientCAFile: cannot be read: "},
		{head + "    clientCAFile: empty.pem\ncertificates:\n- {name: c, chainFile: a.pem, keyFile: a.key}\n", "proxy.yaml:7: listeners[0].tls.clientCAFile: empty.pem is empty; "},
		{head + "    clientCAFile: a.key\ncertificates:\n- {name: c, chainFile: a.pem, keyFile: a.key}\n", "proxy.yaml:5: listeners[0].tls.clientCA: it has a PRIVATE KEY, which is no certificate; remove it"},
		{head + "    clientCAFile: a.pem\n    clientCA: x\ncertificates:\n- {name: c, chainFile: a.pem, keyFile: a.key}\n", "proxy.yaml:7: listeners[0].tls.clientCAFile: the bundle is in a file and here; keep one of them\nproxy.yaml:8: listeners[0].tls.clientCA: there is no PEM text in it; "},
	} {
		if got := load(c.text); c.want == "" && got != "" || !strings.HasPrefix(got, c.want) {
			t.Errorf("%s\nis told\n%s\nwant\n%s", c.text, got, c.want)
		}
	}
	if _, err := config.Load(at("nowhere.yaml")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that does not exist: %v", err)
	}
	// Without a path nothing is opened, and a bundle that is not there is no door
	// that stands open.
	_, problems := config.Parse("x.yaml", []byte(head+"    clientCAFile: a.pem\ncertificates:\n- {name: c, chainFile: a.pem, keyFile: a.key}\n"))
	if len(problems) != 1 || problems[0].Field != "listeners[0].tls.clientCAFile" {
		t.Errorf("a bundle that nobody opens: %v", problems)
	}
}

// TestEveryFieldIsRead: a Config with all its fields set is the same after it
// was written and read.
func TestEveryFieldIsRead(t *testing.T) {
	var cfg l7.Config
	fill(reflect.ValueOf(&cfg).Elem(), 0)
	text, err := json.MarshalIndent(cfg, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	got, problems := config.Parse("all.json", text)
	for _, p := range problems {
		if strings.Contains(p.Reason, "there is no field") || strings.Contains(p.Reason, "this must be") {
			t.Error(p)
		}
	}
	if !reflect.DeepEqual(got, &cfg) {
		again, _ := json.MarshalIndent(got, "", "\t")
		t.Errorf("read\n%s\nwant\n%s", again, text)
	}
}

// fill sets everything in v to something.
func fill(v reflect.Value, depth int) {
	if depth > 20 {
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), depth+1)
	case reflect.Struct:
		for i := range v.NumField() {
			switch name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ","); name {
			case "mesh", "view", "spiffe": // given by an agent, never by a file
			default:
				fill(v.Field(i), depth+1)
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0), depth+1)
		fill(v.Index(1), depth+1)
	case reflect.Map:
		v.Set(reflect.ValueOf(map[string]string{"a": "b"}))
	case reflect.String:
		v.SetString("text")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Float64:
		v.SetFloat(1.5)
	case reflect.Uint32:
		v.SetUint(7)
	default:
		v.SetInt(7_000_000_000 % (1 << 31))
	}
}
