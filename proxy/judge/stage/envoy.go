package stage

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"moire.dev/moire/snapshot/l7"
)

type object = map[string]any

func socket(address string) object {
	host, port, _ := net.SplitHostPort(address)
	n, _ := strconv.Atoi(port)
	return object{"socket_address": object{"address": host, "port_value": n}}
}

func typed(name string, o object) object {
	o["@type"] = "type.googleapis.com/envoy.extensions." + name
	return o
}

func file(path string) object { return object{"filename": path} }

// envoy writes what c says as a static bootstrap with one worker.
func (s *Stage) envoy(dir string, c *l7.Config) ([]string, error) {
	var listeners, clusters []any
	for i := range c.Listeners {
		l, err := s.envoyListener(c, &c.Listeners[i])
		if err != nil {
			return nil, err
		}
		listeners = append(listeners, l)
	}
	for i := range c.Clusters {
		clusters = append(clusters, s.envoyCluster(&c.Clusters[i]))
	}
	b, err := json.MarshalIndent(object{"static_resources": object{"listeners": listeners, "clusters": clusters}}, "", " ")
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "envoy.json")
	return []string{s.Tool("envoy"), "-c", path, "--concurrency", "1", "--disable-hot-restart", "-l", "warning"}, os.WriteFile(path, b, 0o600)
}

func (s *Stage) envoyListener(c *l7.Config, l *l7.Listener) (object, error) {
	routes, err := routesOf(c, l)
	if err != nil {
		return nil, err
	}
	byHost := map[string][]any{}
	for _, r := range routes {
		hosts := r.hosts
		if len(hosts) == 0 {
			hosts = []string{"*"}
		}
		for _, h := range hosts {
			byHost[h] = append(byHost[h], envoyRoute(r))
		}
	}
	var virtual []any
	for h, rs := range byHost {
		domains := []string{h}
		if h != "*" {
			domains = append(domains, h+":*")
		}
		virtual = append(virtual, object{"name": h, "domains": domains, "routes": rs})
	}
	manager := typed("filters.network.http_connection_manager.v3.HttpConnectionManager", object{
		"stat_prefix": l.Name, "codec_type": "AUTO", "request_headers_timeout": "10s",
		"http2_protocol_options": object{"allow_connect": true, "max_concurrent_streams": 100, "initial_stream_window_size": 65536, "initial_connection_window_size": 1 << 20},
		"upgrade_configs":        []any{object{"upgrade_type": "websocket"}},
		"route_config":           object{"virtual_hosts": virtual},
		"http_filters":           []any{object{"name": "router", "typed_config": typed("filters.http.router.v3.Router", object{})}},
	})
	chain := object{"filters": []any{object{"name": "http", "typed_config": manager}}}
	o := object{"name": l.Name, "address": socket(l.Address), "filter_chains": []any{chain}}
	if l.TLS != nil {
		common := object{"alpn_protocols": []string{"h2", "http/1.1"},
			"tls_certificates": []any{object{"certificate_chain": file(s.PKI.Chain), "private_key": file(s.PKI.Key)}}}
		if l.TLS.ClientCA != "" {
			common["validation_context"] = object{"trusted_ca": file(s.PKI.CA)}
		}
		chain["transport_socket"] = object{"name": "tls", "typed_config": typed("transport_sockets.tls.v3.DownstreamTlsContext",
			object{"common_tls_context": common, "require_client_certificate": l.TLS.ClientCA != ""})}
	}
	if l.ProxyProtocol {
		o["listener_filters"] = []any{object{"name": "pp", "typed_config": typed("filters.listener.proxy_protocol.v3.ProxyProtocol", object{})}}
	}
	return o, nil
}

func envoyRoute(r served) object {
	o := object{"match": object{"path_separated_prefix": r.prefix}}
	if r.prefix == "/" {
		o["match"] = object{"prefix": "/"}
	}
	for _, h := range r.set {
		all, _ := o["request_headers_to_add"].([]any)
		o["request_headers_to_add"] = append(all, object{"header": object{"key": h.Name, "value": h.Value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"})
	}
	if r.to == nil {
		o["route"] = object{"cluster": r.cluster, "timeout": "0s"}
		return o
	}
	to := object{"response_code": map[int]string{301: "MOVED_PERMANENTLY", 0: "FOUND", 302: "FOUND", 307: "TEMPORARY_REDIRECT", 308: "PERMANENT_REDIRECT"}[r.to.Status]}
	if r.to.Path != nil && r.to.Path.Full != nil {
		to["path_redirect"] = *r.to.Path.Full
	}
	o["redirect"] = to
	return o
}

func (s *Stage) envoyCluster(k *l7.Cluster) object {
	var endpoints []any
	for _, e := range k.Endpoints {
		endpoints = append(endpoints, object{"endpoint": object{"address": socket(e.Address)}})
	}
	o := object{"name": k.Name, "type": "STATIC", "connect_timeout": "5s",
		"load_assignment": object{"cluster_name": k.Name, "endpoints": []any{object{"lb_endpoints": endpoints}}}}
	options := object{"http_protocol_options": object{}}
	if k.Protocol == l7.HTTP2 {
		options = object{"http2_protocol_options": object{}}
	}
	o["typed_extension_protocol_options"] = object{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": typed("upstreams.http.v3.HttpProtocolOptions", object{"explicit_http_config": options})}
	if k.TLS != nil {
		common := object{"tls_certificates": []any{object{"certificate_chain": file(s.PKI.ClientChain), "private_key": file(s.PKI.ClientKey)}},
			"validation_context": object{"trusted_ca": file(s.PKI.CA), "match_typed_subject_alt_names": []any{object{"san_type": "DNS", "matcher": object{"exact": k.TLS.ServerName}}}}}
		if k.Protocol == l7.HTTP2 {
			common["alpn_protocols"] = []string{"h2"}
		}
		o["transport_socket"] = object{"name": "tls", "typed_config": typed("transport_sockets.tls.v3.UpstreamTlsContext", object{"sni": k.TLS.ServerName, "common_tls_context": common})}
	}
	return o
}
