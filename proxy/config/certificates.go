package config

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"moire.dev/moire/snapshot/l7"
)

// bundles checks the PEM texts of a Config.
func (r *reader) bundles(cfg *l7.Config) {
	for i := range cfg.Listeners {
		if t := cfg.Listeners[i].TLS; t != nil && t.ClientCA != "" {
			r.bundle(fmt.Sprintf("listeners[%d].tls.clientCA", i), t.ClientCA)
		}
	}
	for i := range cfg.Clusters {
		if t := cfg.Clusters[i].TLS; t != nil && t.CA != "" {
			r.bundle(fmt.Sprintf("clusters[%d].tls.ca", i), t.CA)
		}
	}
}

// certificates checks that every chain has its key.
func (r *reader) certificates(cfg *l7.Config) {
	for i := range cfg.Certificates {
		c, field := &cfg.Certificates[i], fmt.Sprintf("certificates[%d]", i)
		chain, ok := r.part(field+".chainFile", c.Chain, c.ChainFile)
		key, also := r.part(field+".keyFile", c.Key, c.KeyFile)
		if ok && also {
			r.pair(field, chain, key)
		}
	}
}

// part is a text, or what is in a file when files are opened.
func (r *reader) part(field, text, file string) ([]byte, bool) {
	if file == "" || text != "" {
		return []byte(text), file == "" && text != ""
	}
	if r.folder == "" {
		return nil, false
	}
	b, err := readSome(file)
	if err != nil {
		r.problem(r.line(field), field, "write the path of a file that this user can read", "cannot be read: %s", err)
	}
	return b, err == nil
}

// files makes relative paths start from the folder of the Config, and puts
// bundles that are in files into it.
func (r *reader) files(cfg *l7.Config) {
	from := func(path *string) {
		if *path != "" && !filepath.IsAbs(*path) {
			*path = filepath.Join(r.folder, *path)
		}
	}
	bundle := func(field string, file, text *string) {
		if *file == "" || *text != "" {
			return
		}
		from(file)
		if b, ok := r.part(field, "", *file); ok {
			*text = string(b)
			if len(b) == 0 {
				r.problem(r.line(field), field, "write the path of a PEM bundle", "%s is empty", *file)
			}
		} else {
			r.broke(field)
		}
		*file = ""
	}
	for i := range cfg.Certificates {
		from(&cfg.Certificates[i].ChainFile)
		from(&cfg.Certificates[i].KeyFile)
	}
	for i := range cfg.Listeners {
		if t := cfg.Listeners[i].TLS; t != nil {
			bundle(fmt.Sprintf("listeners[%d].tls.clientCAFile", i), &t.ClientCAFile, &t.ClientCA)
		}
	}
	for i := range cfg.Clusters {
		if t := cfg.Clusters[i].TLS; t != nil {
			bundle(fmt.Sprintf("clusters[%d].tls.caFile", i), &t.CAFile, &t.CA)
		}
	}
}

// bundle checks certificates of authorities.
func (r *reader) bundle(field, text string) {
	const fix = "write the PEM text of the certificates, from BEGIN to END CERTIFICATE"
	n := 0
	for rest := []byte(text); ; {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil {
			if n == 0 {
				r.problem(r.line(field), field, fix, "there is no PEM text in it")
			} else if strings.Contains(string(rest), "-----BEGIN") {
				r.problem(r.line(field), field, fix, "what follows certificate %d is broken", n)
			}
			return
		}
		n++
		if block.Type != "CERTIFICATE" {
			r.problem(r.line(field), field, "remove it", "it has a %s, which is no certificate", clip(block.Type))
			continue
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			r.problem(r.line(field), field, fix, "certificate %d cannot be read: %s", n, clip(trim(err)))
		}
	}
}

// pair checks that a chain and a key belong together. Nothing of a key is ever
// part of a Problem.
func (r *reader) pair(field string, chain, key []byte) {
	if _, err := tls.X509KeyPair(chain, key); err != nil {
		r.problem(r.line(field), field, "write the PEM text of the chain, leaf first, and of its own private key", "the chain and the key do not make a certificate: %s", clip(trim(err)))
	}
}

func trim(err error) string {
	return strings.TrimPrefix(strings.TrimPrefix(err.Error(), "tls: "), "x509: ")
}

// readSome reads a file that cannot be large.
func readSome(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, 1<<20))
}
