package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"sigs.k8s.io/yaml"

	"moire.dev/moire/compile"
)

// api writes objects with the administrator's rights, as any client of HTTPS
// may.
type api struct {
	server string
	client *http.Client
}

// newAPI reads where the API is, and who we are, from a kubeconfig with one of
// each.
func newAPI(kubeconfig string) (*api, error) {
	b, err := os.ReadFile(kubeconfig)
	if err != nil {
		return nil, err
	}
	var k struct {
		Clusters []struct {
			Cluster struct {
				Server string `json:"server"`
				CA     []byte `json:"certificate-authority-data"`
			} `json:"cluster"`
		} `json:"clusters"`
		Users []struct {
			User struct {
				Certificate []byte `json:"client-certificate-data"`
				Key         []byte `json:"client-key-data"`
			} `json:"user"`
		} `json:"users"`
	}
	if err := yaml.Unmarshal(b, &k); err != nil {
		return nil, fmt.Errorf("%s: %w", kubeconfig, err)
	}
	if len(k.Clusters) != 1 || len(k.Users) != 1 {
		return nil, fmt.Errorf("%s has %d clusters and %d users, want one of each", kubeconfig, len(k.Clusters), len(k.Users))
	}
	pair, err := tls.X509KeyPair(k.Users[0].User.Certificate, k.Users[0].User.Key)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", kubeconfig, err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(k.Clusters[0].Cluster.CA) {
		return nil, fmt.Errorf("%s has no certificate of the server's authority", kubeconfig)
	}
	return &api{server: k.Clusters[0].Cluster.Server, client: &http.Client{
		Timeout: 30 * time.Second,
		Transport: &http.Transport{ForceAttemptHTTP2: true,
			TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, Certificates: []tls.Certificate{pair}}},
	}}, nil
}

// path of an object or, with all, of the collection that it is made in.
func path(resource string, key compile.Key, all bool) string {
	p := "/apis/moire.dev/v1alpha1/namespaces/" + key.Project + "/" + resource
	if all {
		return p
	}
	return p + "/" + key.Name
}

// post makes an object; what it says of its status is left out.
func (a *api) post(ctx context.Context, path, apiVersion, kind string, object any) error {
	b, err := json.Marshal(object)
	if err != nil {
		return err
	}
	var plain map[string]any
	if err := json.Unmarshal(b, &plain); err != nil {
		return err
	}
	plain["apiVersion"], plain["kind"] = apiVersion, kind
	delete(plain, "status")
	return a.do(ctx, http.MethodPost, path, "application/json", plain)
}

// patch changes what the given part says.
func (a *api) patch(ctx context.Context, path string, part any) error {
	return a.do(ctx, http.MethodPatch, path, "application/merge-patch+json", part)
}

func (a *api) do(ctx context.Context, method, path, form string, body any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, method, a.server+path, bytes.NewReader(b))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", form)
	answer, err := a.client.Do(r)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err = errors.Join(err, answer.Body.Close()); err == nil && answer.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s: %s: %s", method, path, answer.Status, text)
	}
	return err
}
