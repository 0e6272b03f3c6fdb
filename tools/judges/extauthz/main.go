// Command extauthz is a judge of our side of Envoy's ext_authz protocol: a server
// made of grpc-go and of the code that Envoy publishes. It listens on the address
// that it is given, prints the one that it has, and then each CheckRequest as one
// line of JSON. What it answers the request itself says, in its field x-want.
package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"os"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	envoytype "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	rpc "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func main() {
	l, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(l.Addr())
	s := grpc.NewServer()
	auth.RegisterAuthorizationServer(s, server{})
	log.Fatal(s.Serve(l))
}

type server struct {
	auth.UnimplementedAuthorizationServer
}

// Check implements auth.AuthorizationServer.
func (server) Check(ctx context.Context, r *auth.CheckRequest) (*auth.CheckResponse, error) {
	line, err := protojson.Marshal(r)
	if err != nil {
		return nil, err
	}
	fmt.Println(string(line))
	switch want := r.GetAttributes().GetRequest().GetHttp().GetHeaders()["x-want"]; want {
	case "allow":
		return &auth.CheckResponse{}, nil
	case "change":
		return ok(&auth.OkHttpResponse{
			Headers: []*core.HeaderValueOption{option("x-user", "anna"), added("x-group", "a"), added("x-group", "b"),
				action("x-there", "no", core.HeaderValueOption_ADD_IF_ABSENT), action("x-absent", "no", core.HeaderValueOption_OVERWRITE_IF_EXISTS), option("x-empty", "")},
			HeadersToRemove:      []string{"Authorization", "x-secret", ":path", "host"},
			ResponseHeadersToAdd: []*core.HeaderValueOption{option("set-cookie", "a=1"), option("set-cookie", "b=2")},
		}), nil
	case "path", "host", "framing", "internal":
		name := map[string]string{"path": ":path", "host": "Host", "framing": "content-length", "internal": "x-moire-caller"}[want]
		return ok(&auth.OkHttpResponse{Headers: []*core.HeaderValueOption{option(name, "1")}}), nil
	case "line":
		return ok(&auth.OkHttpResponse{Headers: []*core.HeaderValueOption{option("x-user", "anna\r\nx-admin: yes")}}), nil
	case "query":
		return ok(&auth.OkHttpResponse{QueryParametersToRemove: []string{"a"}}), nil
	case "redirect":
		return denied(302, "", option("location", "https://login.example/"), option("set-cookie", "s=1"), option("content-length", "7")), nil
	case "body":
		return denied(429, "too often\n", option("content-type", "text/plain")), nil
	case "large":
		return denied(403, string(make([]byte, 200_000))), nil
	case "failed":
		return &auth.CheckResponse{Status: &rpc.Status{Code: int32(codes.Internal)},
			HttpResponse: &auth.CheckResponse_ErrorResponse{ErrorResponse: &auth.DeniedHttpResponse{}}}, nil
	case "both":
		return &auth.CheckResponse{HttpResponse: &auth.CheckResponse_DeniedResponse{DeniedResponse: &auth.DeniedHttpResponse{}}}, nil
	case "error":
		return nil, status.Error(codes.Unavailable, "not now")
	case "slow":
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Second):
		}
		return &auth.CheckResponse{}, nil
	}
	return &auth.CheckResponse{Status: &rpc.Status{Code: int32(codes.PermissionDenied)}}, nil
}

func ok(r *auth.OkHttpResponse) *auth.CheckResponse {
	return &auth.CheckResponse{Status: &rpc.Status{}, HttpResponse: &auth.CheckResponse_OkResponse{OkResponse: r}}
}

func denied(code int32, body string, headers ...*core.HeaderValueOption) *auth.CheckResponse {
	return &auth.CheckResponse{Status: &rpc.Status{Code: int32(codes.PermissionDenied)},
		HttpResponse: &auth.CheckResponse_DeniedResponse{DeniedResponse: &auth.DeniedHttpResponse{
			Status: &envoytype.HttpStatus{Code: envoytype.StatusCode(code)}, Body: body, Headers: headers}}}
}

func option(name, value string) *core.HeaderValueOption {
	return &core.HeaderValueOption{Header: &core.HeaderValue{Key: name, Value: value}}
}

func added(name, value string) *core.HeaderValueOption {
	o := option(name, value)
	o.Append = wrapperspb.Bool(true)
	return o
}

func action(name, value string, a core.HeaderValueOption_HeaderAppendAction) *core.HeaderValueOption {
	o := option(name, value)
	o.AppendAction = a
	return o
}
