package smuggle

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"moire.dev/moire/proxy/judge/stage"
)

//go:embed backend.js
var nodeBackend []byte

// Backends that the proxy is put in front of; lenient ones are told to take
// what they are able to.
var Backends = []string{"go", "node", "node-lenient", "nginx", "apache", "apache-lenient", "haproxy", "haproxy-lenient"}

// StartBackend starts one of Backends and is its address.
func StartBackend(ctx context.Context, s *stage.Stage, kind string) (string, error) {
	address := s.Address()
	if kind == "go" {
		return address, serveGo(ctx, address)
	}
	dir := filepath.Join(s.Dir, "backend-"+kind)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	kind, lenient := strings.CutSuffix(kind, "-lenient")
	var command []string
	var name, content string
	switch kind {
	case "node":
		name, content = "backend.js", string(nodeBackend)
		command = []string{"node", filepath.Join(dir, name), address, fmt.Sprint(lenient)}
	case "nginx":
		name, content = "nginx.conf", nginxBackend(dir, address)
		command = []string{"nginx", "-p", dir, "-c", filepath.Join(dir, name), "-e", dir + "/early.log"}
	case "apache":
		name, content = "apache.conf", apacheBackend(dir, address, lenient)
		if err := os.WriteFile(filepath.Join(dir, "index.html"), []byte("ok\n"), 0o644); err != nil {
			return "", err
		}
		command = []string{"apache2", "-X", "-d", dir, "-f", filepath.Join(dir, name)}
	case "haproxy":
		name, content = "haproxy.cfg", haproxyBackend(address, lenient)
		command = []string{"haproxy", "-db", "-f", filepath.Join(dir, name)}
	default:
		return "", fmt.Errorf("back end %q is none of %v", kind, Backends)
	}
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
		return "", err
	}
	p, err := s.Run(ctx, command[0], command[1:]...)
	if err != nil {
		return "", err
	}
	return address, p.Await(address)
}

func serveGo(ctx context.Context, address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	server := &http.Server{ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		get := func(name string) string { return strings.Join(r.Header.Values(name), ",") }
		w.Header().Set(viewName, strings.Join([]string{get("X-Stamp"), get("X-Route"), r.Method, r.Host, r.URL.Path, r.RequestURI}, "|"))
		if err != nil {
			panic(http.ErrAbortHandler) // a body that broke off is not answered
		}
		fmt.Fprintln(w, "ok")
	})}
	go func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			panic(err) // a listener of ours does not fail
		}
	}()
	context.AfterFunc(ctx, func() { server.Close() })
	return nil
}

func nginxBackend(dir, address string) string {
	return fmt.Sprintf(`daemon off; master_process off; pid %[1]s/pid; error_log %[1]s/error.log;
events { worker_connections 512; }
http {
 access_log off; client_max_body_size 0; client_body_timeout 2s;
 client_body_temp_path %[1]s/a; proxy_temp_path %[1]s/b; fastcgi_temp_path %[1]s/c; uwsgi_temp_path %[1]s/d; scgi_temp_path %[1]s/e;
 server { listen %[2]s; server_name _;
  add_header X-Saw "$http_x_stamp|$http_x_route|$request_method|$http_host|$uri|$request_uri" always;
  location / { return 200 "ok\n"; } } }
`, dir, address)
}

func apacheBackend(dir, address string, lenient bool) string {
	options := "Strict"
	if lenient {
		options = "Unsafe"
	}
	return fmt.Sprintf(`ServerName a.test
PidFile %[1]s/pid
ErrorLog %[1]s/error.log
Listen %[2]s
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule headers_module /usr/lib/apache2/modules/mod_headers.so
LoadModule dir_module /usr/lib/apache2/modules/mod_dir.so
HttpProtocolOptions %[3]s Allow0.9
KeepAlive On
MaxKeepAliveRequests 0
KeepAliveTimeout 30
DocumentRoot %[1]s
ErrorDocument 404 "ok"
Header always set X-Saw "expr=%%{req:X-Stamp}|%%{req:X-Route}|%%{REQUEST_METHOD}|%%{HTTP_HOST}|%%{REQUEST_URI}|%%{THE_REQUEST}"
`, dir, address, options)
}

func haproxyBackend(address string, lenient bool) string {
	accept := ""
	if lenient {
		accept = " option accept-invalid-http-request\n"
	}
	return fmt.Sprintf(`global
 nbthread 1
 maxconn 500
defaults
 mode http
 timeout client 20s
 timeout http-request 5s
 timeout http-keep-alive 30s
frontend f
 bind %s
%s http-request wait-for-body time 1s
 http-request return status 200 content-type text/plain hdr X-Saw "%%[req.hdr(x-stamp)]|%%[req.hdr(x-route)]|%%[method]|%%[req.hdr(host)]|%%[path]|%%[url]" string "ok"
`, address, accept)
}
